"""The servable folder that carries its gallery: written, loaded, asked."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.evaluation.whitening import Projection
from carcls.export import GalleryPredictor, Predictor, load_export, write_export
from carcls.export_gallery import GalleryIndex
from carcls.models.classifier import Classifier, build_classifier

SIZE = 64
CLASSES = ("Aero Coupe 2001", "Boxer Van 2007", "Corsa Wagon 2012")
# Of the gallery's images; the last one is the first one again, under another class.
LABELS = np.array([0, 1, 2, 0, 1, 2, 1], np.int64)


@pytest.fixture(scope="module")
def extractor() -> Classifier:
    """A small extractor with random weights."""
    config = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, seed=3)
    return build_classifier(config, len(CLASSES)).eval()


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Seven images uint8 [7, s, s, 3], each a coarse pattern, the last one that of the first."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)
    return np.concatenate([images, images[:1]])


@pytest.fixture(scope="module")
def queries() -> NDArray[np.uint8]:
    """Four images uint8 [4, s, s, 3] that are not in the gallery."""
    coarse = np.random.default_rng(1).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def _embed(extractor: Classifier, pixels: NDArray[np.uint8], pooling: str) -> NDArray[np.float32]:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (extractor.backbone.mean, extractor.backbone.std))
    with torch.inference_mode():
        return extractor.backbone.every_pooling((images - mean) / std)[pooling].numpy()


@pytest.fixture(scope="module")
def index(extractor: Classifier, pixels: NDArray[np.uint8]) -> GalleryIndex:
    """The gallery by generalized means, projected at random to eight numbers of length 1."""
    # One by one: on some processors the last bits of an embedding depend on its place in a batch.
    embeddings = np.concatenate([_embed(extractor, pixels[place : place + 1], "gem") for place in range(len(pixels))])
    matrix = np.random.default_rng(2).normal(size=(embeddings.shape[1], 8)).astype(np.float32)
    projection = Projection(embeddings.mean(axis=0), matrix, l2_normalize=True)
    images = tuple(f"train/{label}/{place}.jpg" for place, label in enumerate(LABELS))
    whitened = np.concatenate([projection.apply(embeddings[place : place + 1]) for place in range(len(pixels))])
    return GalleryIndex(whitened, LABELS, images, projection, "gem", 3, "euclidean", "distance", 0.1)


def _export(folder: Path, extractor: Classifier, index: GalleryIndex | None) -> None:
    write_export(
        folder,
        extractor,
        classes=CLASSES,
        image_size=SIZE,
        backbone=extractor.backbone.name,
        margin=0.1,
        details={"seed": 3},
        index=index,
    )


@pytest.fixture(scope="module")
def folder(extractor: Classifier, index: GalleryIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with the gallery."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    _export(folder, extractor, index)
    return folder


def test_every_file_of_an_export_follows_the_umask(folder: Path) -> None:
    """Whoever may read the description may read the tensors and the gallery."""
    modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 3
    assert len(set(modes.values())) == 1


@pytest.fixture(scope="module")
def predictor(folder: Path) -> GalleryPredictor:
    """The export, loaded."""
    loaded = load_export(folder)
    assert isinstance(loaded, GalleryPredictor)
    return loaded


@pytest.mark.parametrize("k", [None, 1, 7])
def test_neighbours_are_the_nearest_of_the_gallery(
    predictor: GalleryPredictor, extractor: Classifier, index: GalleryIndex, queries: NDArray[np.uint8], k: int | None
) -> None:
    """Each answer names the k nearest images with class and distance, and shares of votes by 1 / distance."""
    embeddings = index.projection.apply(_embed(extractor, queries, "gem")).astype(np.float64)
    for embedding, answer in zip(embeddings, predictor.neighbours(queries, k), strict=True):
        distances = np.linalg.norm(index.embeddings.astype(np.float64) - embedding, axis=1)
        nearest = np.argsort(distances, kind="stable")[: k or 3]
        assert [n.image for n in answer.neighbours] == [index.images[place] for place in nearest]
        assert [n.label for n in answer.neighbours] == [CLASSES[LABELS[place]] for place in nearest]
        assert [n.distance for n in answer.neighbours] == pytest.approx(distances[nearest], rel=1e-3)
        weights = 1 / distances[nearest]
        shares = np.array([weights[LABELS[nearest] == label].sum() for label in range(3)]) / weights.sum()
        assert dict(answer.top) == pytest.approx(dict(zip(CLASSES, shares, strict=True)), abs=1e-3)
        assert (answer.label, answer.probability) == answer.top[0]
        assert [share for _, share in answer.top] == sorted(dict(answer.top).values(), reverse=True)


def test_predict_answers_as_a_classifier_does(predictor: GalleryPredictor, queries: NDArray[np.uint8]) -> None:
    """Predict takes what a classifier's takes, and is the answer of as many neighbours as the trial had."""
    assert predictor.predict(queries) == predictor.neighbours(queries, 3)
    assert [len(answer.top) for answer in predictor.predict(queries, top=2)] == [2, 2, 2, 2]
    one_by_one = [answer for image in queries for answer in predictor.predict(image, batch_size=1)]
    for alone, together in zip(one_by_one, predictor.predict(list(queries)), strict=True):
        assert [n.image for n in alone.neighbours] == [n.image for n in together.neighbours]
        assert alone.probability == pytest.approx(together.probability, abs=1e-4)
    assert predictor.predict([]) == []
    assert predictor.image_size == SIZE
    assert predictor.classes == CLASSES


def test_of_equal_images_the_first_is_named_first(predictor: GalleryPredictor, pixels: NDArray[np.uint8]) -> None:
    """An image that lies in the gallery twice finds both, in the gallery's order, and itself before all others."""
    found = [neighbour.image for neighbour in predictor.neighbours(pixels[6], 3)[0].neighbours]
    assert found[:2] == ["train/0/0.jpg", "train/1/6.jpg"]
    for place in range(6):
        (answer,) = predictor.neighbours(pixels[place], 1)
        assert answer.neighbours[0].image == f"train/{LABELS[place]}/{place}.jpg"
        assert answer.neighbours[0].distance == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array", "floats"])
def test_every_kind_of_input_is_answered(
    predictor: GalleryPredictor, queries: NDArray[np.uint8], kind: str, tmp_path: Path
) -> None:
    """One image in any form has one answer."""
    path = tmp_path / "car.png"
    Image.fromarray(queries[0]).save(path)
    forms: dict[str, Any] = {"path": path, "text": str(path), "pil": Image.fromarray(queries[0]), "array": queries[0]}
    (answer,) = predictor.predict({**forms, "floats": queries[0] / 255}[kind])
    expected = predictor.predict(queries[:1])[0]
    assert [n.image for n in answer.neighbours] == [n.image for n in expected.neighbours]
    assert answer.label == expected.label


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 8}, "k must be from 1 to 7, .* got 8"),
        ({"k": 0}, "k must be from 1 to 7, .* got 0"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_nonsense_numbers_are_refused(
    predictor: GalleryPredictor, queries: NDArray[np.uint8], arguments: dict[str, int], message: str
) -> None:
    """More neighbours than there are, none, no classes to name or no images at a time is a mistake."""
    with pytest.raises(InputError, match=message):
        predictor.neighbours(queries, **arguments)


def test_an_unusable_image_is_named(predictor: GalleryPredictor, queries: NDArray[np.uint8]) -> None:
    """An image that cannot be read is refused by its path."""
    with pytest.raises(InputError, match=r"missing\.jpg"):
        predictor.neighbours([queries[0], "missing.jpg"])


def test_the_folder_needs_neither_data_nor_internet_nor_pickle(folder: Path, tmp_path: Path) -> None:
    """Another process with empty caches answers from three files, of which one is JSON and two are plain tensors."""
    assert sorted(p.name for p in folder.iterdir()) == ["gallery.safetensors", "model.json", "model.safetensors"]
    assert json.loads((folder / "model.json").read_text())["kind"] == "retrieval"
    assert load_file(folder / "gallery.safetensors")["embeddings"].dtype == np.float32
    path = tmp_path / "car.png"
    Image.new("RGB", (80, 60), (120, 40, 40)).save(path)
    nowhere = {"TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    code = (
        "import sys; from carcls.export import load_export; "
        "print(len(load_export(sys.argv[1]).predict(sys.argv[2])[0].neighbours))"
    )
    command = [sys.executable, "-c", code, str(folder), str(path)]
    answer = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "3"


@pytest.mark.parametrize("parts", ["neither", "length", "centre"])
def test_every_projection_survives_the_folder(
    extractor: Classifier, index: GalleryIndex, queries: NDArray[np.uint8], tmp_path: Path, parts: str
) -> None:
    """A projection without matrix, or that does nothing, is loaded as it was written."""
    centre = np.full(extractor.backbone.embedding, 0.25, np.float32)
    projections = {"neither": (None, False), "length": (None, True), "centre": (centre, False)}
    mean, length = projections[parts]
    projection = Projection(mean, None, length)
    embeddings = projection.apply(_embed(extractor, queries, "average"))
    other = replace(
        index,
        embeddings=embeddings,
        labels=LABELS[:4],
        images=index.images[:4],
        projection=projection,
        pooling="average",
        distance="cosine",
        vote="softmax",
    )
    _export(tmp_path, extractor, other)
    loaded = load_export(tmp_path)
    assert isinstance(loaded, GalleryPredictor)
    np.testing.assert_allclose(loaded.embed(queries), embeddings, rtol=1e-3, atol=1e-5)
    assert [a.neighbours[0].image for a in loaded.neighbours(queries, 1)] == list(index.images[:4])


def test_a_classifier_replaces_a_gallery_wholly(extractor: Classifier, index: GalleryIndex, tmp_path: Path) -> None:
    """Exporting a classifier into a retrieval model's folder leaves no gallery behind, and the other way round."""
    for gallery, kind in ((index, GalleryPredictor), (None, Predictor), (index, GalleryPredictor)):
        _export(tmp_path, extractor, gallery)
        assert type(load_export(tmp_path)) is kind
        assert (tmp_path / "gallery.safetensors").exists() == (gallery is not None)


def _describe(folder: Path, **gallery: Any) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({**description, "gallery": {**description["gallery"], **gallery}}))


def _arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    path = folder / "gallery.safetensors"
    save_file({**load_file(path), **arrays}, path)


def _cut(folder: Path) -> None:
    path = folder / "gallery.safetensors"
    path.write_bytes(path.read_bytes()[:60])


def _forget(folder: Path) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    del description["gallery"]
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "gallery.safetensors").unlink(),
        _cut,
        lambda folder: (folder / "gallery.safetensors").write_bytes(pickle.dumps({"embeddings": 1})),
        _forget,
        lambda folder: _describe(folder, images=["a.jpg"]),
        lambda folder: _describe(folder, k=8),
        lambda folder: _describe(folder, k="3"),
        lambda folder: _describe(folder, distance="taxicab"),
        lambda folder: _describe(folder, temperature=0),
        lambda folder: _arrays(folder, labels=LABELS + 1),
        lambda folder: _arrays(folder, embeddings=np.zeros((7, 9), np.float32)),
        lambda folder: _arrays(folder, matrix=np.zeros((9, 8), np.float32)),
        lambda folder: _arrays(folder, mean=np.zeros(9, np.float32)),
    ],
    ids=[
        "no-gallery",
        "torn-gallery",
        "a-pickle",
        "no-description",
        "other-images",
        "large-k",
        "k-of-letters",
        "unknown-distance",
        "no-temperature",
        "unknown-labels",
        "other-embeddings",
        "other-matrix",
        "other-mean",
    ],
)
def test_a_damaged_gallery_is_refused(
    tmp_path: Path, extractor: Classifier, index: GalleryIndex, spoil: Callable[[Path], object]
) -> None:
    """A gallery that is not whole, or not the one that is described, is refused in one line when it is loaded."""
    _export(tmp_path, extractor, index)
    spoil(tmp_path)
    with pytest.raises(InputError, match=r"^gallery\.safetensors in .* must hold the gallery") as caught:
        load_export(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_gallery_with_a_flipped_bit_is_refused(tmp_path: Path, extractor: Classifier, index: GalleryIndex) -> None:
    """Numbers that could be a gallery's, but are not the one that was exported, answer nothing."""
    _export(tmp_path, extractor, index)
    path = tmp_path / "gallery.safetensors"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^gallery\.safetensors must be as it was exported, but it has another"):
        load_export(tmp_path)
