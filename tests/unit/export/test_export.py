"""The servable folder, with and without a gallery: written, loaded, asked."""

from __future__ import annotations

import base64
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
from carcls.export import Predictor, load_export, write_export
from carcls.models.classifier import Classifier, build_classifier
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.whitening import Projection

SIZE = 64
CONFIG = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, dropout=0.5, seed=3)
CLASSES = ("Aero Coupe 2001", "Boxer Van 2007", "Corsa Wagon 2012")
# Of the gallery's images; the last one is the first one again, under another class.
LABELS = np.array([0, 1, 2, 0, 1, 2, 1], np.int64)


def _patterns(seed: int, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return images uint8 [count, height, width, 3], each a coarse pattern of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(height // 4, axis=1).repeat(width // 4, axis=2)


PIXELS = _patterns(0, 5, 80, 100)
# The gallery's seven images uint8 [7, s, s, 3], the last one that of the first, and four that are not in it.
SHOWN = _patterns(0, 6, SIZE, SIZE)[[0, 1, 2, 3, 4, 5, 0]]
QUERIES = _patterns(1, 4, SIZE, SIZE)


def _export(folder: Path, classifier: Classifier, gallery: Gallery | None = None) -> None:
    write_export(folder, classifier, CONFIG, classes=CLASSES, margin=0.1, details={"seed": 3}, gallery=gallery)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A small random classifier whose answers depend on the image."""
    classifier = build_classifier(CONFIG, len(CLASSES)).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        classifier.head.weight *= 40
    return classifier


@pytest.fixture(scope="module")
def folder(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the classifier."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    _export(folder, classifier)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    """The export, loaded."""
    return load_export(folder)


def _normalised(classifier: Classifier, squares: NDArray[np.uint8]) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (classifier.backbone.mean, classifier.backbone.std))
    return (torch.from_numpy(squares).permute(0, 3, 1, 2) / 255 - mean) / std


def test_a_loaded_export_computes_what_was_exported(classifier: Classifier, predictor: Predictor) -> None:
    """Probabilities of a loaded export are those of the classifier, normalised its backbone's way, without dropout.

    A prediction names the likeliest classes, best first.
    """
    squares = np.stack([np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.BICUBIC)) for image in PIXELS])
    with torch.no_grad():
        expected = classifier(_normalised(classifier, squares)).softmax(dim=1).numpy()
    given = predictor.probabilities(PIXELS)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert given.std(axis=0).max() > 0.01
    for row, prediction in zip(given, predictor.predict(PIXELS), strict=True):
        assert prediction.top == tuple((CLASSES[i], pytest.approx(row[i])) for i in np.argsort(-row))
        assert (prediction.label, prediction.probability, prediction.neighbours) == (*prediction.top[0], ())


@pytest.mark.parametrize("gray", [False, True])
def test_every_kind_of_input_gives_the_same_answer(predictor: Predictor, tmp_path: Path, gray: bool) -> None:
    """One image as path, text, PIL image, uint8 and float array, alone or in a list or batch, is one answer.

    A gray array is its three equal channels, as a gray file is. So are the file's bytes, base64 of them in both
    alphabets, with line ends or without its end, a data URL, nested lists, and whole numbers of any type.
    """
    image, path = PIXELS[0, :, :, 0] if gray else PIXELS[0], tmp_path / "car.png"
    colour = np.repeat(image[:, :, None], 3, axis=2) if gray else image
    Image.fromarray(image).save(path)
    expected = predictor.probabilities([colour])
    packed = base64.b64encode(path.read_bytes()).decode()
    for given in (
        path,
        str(path),
        [path],
        Image.fromarray(image),
        image,
        image / 255,
        colour[None],
        colour[None] / 255,
        path.read_bytes(),
        [bytearray(path.read_bytes())],
        [packed],
        [packed.rstrip("=")],
        [base64.encodebytes(path.read_bytes()).decode()],
        [base64.urlsafe_b64encode(path.read_bytes()).decode()],
        [f"data:image/png;base64,{packed}"],
        [image.tolist()],
        [(image / 255).tolist()],
        image.astype(np.int64),
        image.astype(np.float32),
        [np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])],
        *([image[:, :, None]] if gray else []),
    ):
        np.testing.assert_allclose(predictor.probabilities(given), expected, atol=1e-6)


def test_rotated_photographs_are_turned_upright(predictor: Predictor, tmp_path: Path) -> None:
    """The EXIF orientation is followed in files and in PIL images."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS[0]))).save(path, exif=exif)
    expected = predictor.probabilities(PIXELS[0])
    np.testing.assert_allclose(predictor.probabilities(path), expected, atol=1e-3)
    with Image.open(path) as image:
        np.testing.assert_allclose(predictor.probabilities(image), expected, atol=1e-3)


def test_many_images_are_taken_a_batch_at_a_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images taken two at a time get the answers they get together; no image gets none."""
    together = predictor.probabilities(list(PIXELS))
    monkeypatch.setattr("carcls.export.engines.answering_batch", lambda *_: 2)
    np.testing.assert_allclose(predictor.probabilities(list(PIXELS)), together, atol=1e-5)
    assert predictor.probabilities([]).shape == (0, len(CLASSES))
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("missing.jpg", "got 'missing.jpg': the file is missing"),
        (np.zeros((4, 4, 5), np.uint8), r"image 1 must be readable: an array must be .* got shape \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), "image 1 must be .* an array must be"),
        (np.full((4, 4, 3), 256, np.int64), r"image 1 must be .* whole numbers in 0\.\.255 or others in 0\.\.1"),
        (np.full((4, 4, 3), 2.5), r"image 1 must be .* whole numbers in 0\.\.255 or others in 0\.\.1"),
        (np.full((4, 4, 3), -1), r"image 1 must be .* whole numbers in 0\.\.255"),
        (np.full((4, 4, 3), np.nan), r"image 1 must be .* whole numbers in 0\.\.255"),
        ([[1, 2], [3]], "image 1 must be .* its rows must be equally long"),
        ("data:text/plain,hello", "got 'data:text/plain,hello': a data URL must be"),
        ("/9j/4AAQSkZJRgAB" + "?" * 80, "its base64 is damaged"),
        (7, "image 1 must be .* it must be a path, bytes, text, a PIL image or an array, got int"),
    ],
)
def test_an_unusable_image_is_named(predictor: Predictor, image: object, message: str) -> None:
    """An image that cannot be used is refused by its path or its position."""
    with pytest.raises(InputError, match=message):
        predictor.predict([PIXELS[0], image])  # type: ignore[list-item]


def test_a_broken_file_is_named(predictor: Predictor, tmp_path: Path) -> None:
    """A file that is no image is refused by its path, whether named or opened."""
    path = tmp_path / "broken.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"broken\.jpg"):
        predictor.predict([path])
    with Image.open(path) as image, pytest.raises(InputError, match="image 0 must be readable"):
        predictor.predict([image])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is a pipe, not a file"),
        (lambda path: Image.new("RGB", (9, 9)).save(path, format="EPS"), "not an image of a known format"),
    ],
)
def test_what_is_no_picture_file_is_named_and_not_waited_for(
    predictor: Predictor, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """What decoding refuses is refused in one line: a pipe, a format that is not ours."""
    make(tmp_path / "car.jpg")
    with pytest.raises(InputError, match=rf"got '.*car\.jpg': .*{reason}"):
        predictor.predict([tmp_path / "car.jpg"])


def _embed(extractor: Classifier, squares: NDArray[np.uint8], pooling: str) -> NDArray[np.float32]:
    with torch.inference_mode():
        return extractor.backbone.every_pooling(_normalised(extractor, squares))[pooling].numpy()


@pytest.fixture(scope="module")
def gallery(classifier: Classifier) -> Gallery:
    """The gallery by generalized means, projected at random to eight numbers of length 1."""
    # One by one: on some processors the last bits of an embedding depend on its place in a batch.
    embeddings = np.concatenate([_embed(classifier, SHOWN[place : place + 1], "gem") for place in range(len(SHOWN))])
    matrix = np.random.default_rng(2).normal(size=(embeddings.shape[1], 8)).astype(np.float32)
    projection = Projection(embeddings.mean(axis=0), matrix, l2_normalize=True)
    images = tuple(f"train/{label}/{place}.jpg" for place, label in enumerate(LABELS))
    whitened = np.concatenate([projection.apply(embeddings[place : place + 1]) for place in range(len(SHOWN))])
    settings = TrialConfig(family="retrieval", pooling="gem", k=3, vote="distance")
    return Gallery(whitened, LABELS, projection, settings, images)


@pytest.fixture(scope="module")
def gallery_folder(classifier: Classifier, gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with the gallery."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    _export(folder, classifier, gallery)
    return folder


@pytest.fixture(scope="module")
def searcher(gallery_folder: Path) -> Predictor:
    """The export with the gallery, loaded."""
    return load_export(gallery_folder)


def _with_k(searcher: Predictor, k: int) -> Predictor:
    assert searcher.gallery is not None
    config = searcher.gallery.config.model_copy(update={"k": k})
    return replace(searcher, gallery=replace(searcher.gallery, config=config))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_neighbours_are_the_nearest_of_the_gallery(
    searcher: Predictor, classifier: Classifier, gallery: Gallery, k: int
) -> None:
    """Each answer names the k nearest images with class and distance, and shares of votes by 1 / distance."""
    embeddings = gallery.projection.apply(_embed(classifier, QUERIES, "gem")).astype(np.float64)
    for embedding, answer in zip(embeddings, _with_k(searcher, k).predict(QUERIES), strict=True):
        distances = np.linalg.norm(gallery.embeddings.astype(np.float64) - embedding, axis=1)
        nearest = np.argsort(distances, kind="stable")[:k]
        assert [n.image for n in answer.neighbours] == [gallery.images[place] for place in nearest]
        assert [n.label for n in answer.neighbours] == [CLASSES[LABELS[place]] for place in nearest]
        assert [n.distance for n in answer.neighbours] == pytest.approx(distances[nearest], rel=1e-3)
        weights = 1 / distances[nearest]
        shares = np.array([weights[LABELS[nearest] == label].sum() for label in range(3)]) / weights.sum()
        assert dict(answer.top) == pytest.approx(dict(zip(CLASSES, shares, strict=True)), abs=1e-3)
        assert (answer.label, answer.probability) == answer.top[0]
        assert [share for _, share in answer.top] == sorted(dict(answer.top).values(), reverse=True)
    assert searcher.predict([]) == []


def test_of_equal_images_the_first_is_named_first(searcher: Predictor) -> None:
    """An image that lies in the gallery twice finds both, in the gallery's order, and itself before all others."""
    assert [n.image for n in searcher.predict(SHOWN[6])[0].neighbours][:2] == ["train/0/0.jpg", "train/1/6.jpg"]
    for place in range(6):
        nearest = searcher.predict(SHOWN[place])[0].neighbours[0]
        assert nearest.image == f"train/{LABELS[place]}/{place}.jpg"
        assert nearest.distance == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("parts", ["neither", "length", "centre"])
def test_every_projection_survives_the_folder(
    classifier: Classifier, gallery: Gallery, tmp_path: Path, parts: str
) -> None:
    """A projection without matrix, or that does nothing, is loaded as it was written."""
    centre = np.full(classifier.backbone.embedding, 0.25, np.float32)
    mean, length = {"neither": (None, False), "length": (None, True), "centre": (centre, False)}[parts]
    projection = Projection(mean, None, length)
    embeddings = projection.apply(_embed(classifier, QUERIES, "average"))
    settings = TrialConfig(family="retrieval", k=1, distance="cosine", vote="softmax")
    _export(tmp_path, classifier, Gallery(embeddings, LABELS[:4], projection, settings, gallery.images[:4]))
    loaded = load_export(tmp_path)
    assert loaded.gallery is not None
    projected = loaded.gallery.projection.apply(loaded.compute(QUERIES))
    np.testing.assert_allclose(projected, embeddings, rtol=1e-3, atol=1e-5)
    assert [answer.neighbours[0].image for answer in loaded.predict(QUERIES)] == list(gallery.images[:4])


def test_the_folder_says_what_it_is(folder: Path, gallery_folder: Path, classifier: Classifier) -> None:
    """The description holds what serving needs, in plain JSON; beside it are plain tensors, readable to all alike."""
    description = json.loads((folder / "model.json").read_text())
    assert description["classes"] == list(CLASSES)
    assert description["backbone"] == "timm:resnet10t"
    assert (description["image_size"], description["margin"], description["details"]) == (SIZE, 0.1, {"seed": 3})
    assert description["mean"] == list(classifier.backbone.mean)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((gallery_folder / "model.json").read_text())["kind"] == "retrieval"
    modes = {file.name: file.stat().st_mode for file in gallery_folder.iterdir()}
    assert sorted(modes) == ["gallery.safetensors", "model.json", "model.safetensors"]
    assert len(set(modes.values())) == 1


def test_thumbnails_of_the_gallery_are_found_by_their_places(
    classifier: Classifier, gallery: Gallery, predictor: Predictor, tmp_path: Path
) -> None:
    """Each image of the gallery has its own bytes; one that could not be read, a place that is not there, have none.

    An export whose thumbnails were changed is not loaded, and one without galleries or thumbnails shows none.
    """
    pictures = (b"\xff\xd8 one", b"", *(bytes([place]) * 9 for place in range(2, 7)))
    write_export(tmp_path, classifier, CONFIG, classes=CLASSES, margin=0.0, gallery=gallery, thumbnails=pictures)
    loaded = load_export(tmp_path)
    assert [loaded.thumbnail(place) for place in range(-1, 8)] == [None, pictures[0], None, *pictures[2:], None]
    assert loaded.thumbnail(loaded.predict(SHOWN[3])[0].neighbours[0].place) == pictures[3]
    assert predictor.thumbnail(0) is None
    _export(tmp_path / "none", classifier, gallery)
    assert load_export(tmp_path / "none").thumbnail(0) is None
    file = tmp_path / "thumbnails.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"thumbnails\.safetensors must be as it was exported"):
        load_export(tmp_path)


def test_an_export_replaces_an_older_one_wholly(tmp_path: Path, classifier: Classifier, gallery: Gallery) -> None:
    """Exporting into the same folder again serves the newer model; a classifier leaves no gallery behind."""
    for carried in (gallery, None, gallery):
        _export(tmp_path, classifier, carried)
        assert (load_export(tmp_path).gallery is None) == (carried is None)
        assert (tmp_path / "gallery.safetensors").exists() == (carried is not None)
    newer = build_classifier(CONFIG.model_copy(update={"seed": 4}), 3)
    _export(tmp_path, newer)
    state = load_export(tmp_path).engine.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in newer.state_dict().items())


@pytest.mark.parametrize("kind", ["folder", "gallery_folder"])
def test_loading_needs_neither_data_nor_pretrained_weights_nor_internet(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Another process with empty caches and no way out loads the export and answers."""
    path = tmp_path / "car.png"
    Image.new("RGB", (80, 60), (120, 40, 40)).save(path)
    nowhere = {"TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    code = "import sys; from carcls.export import load_export; print(load_export(sys.argv[1]).predict(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(request.getfixturevalue(kind)), str(path)]
    answer = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("[Prediction(label=")


def test_an_older_classifier_is_served(tmp_path: Path, classifier: Classifier, predictor: Predictor) -> None:
    """A folder from before there were other networks and galleries, which names no kind, is answered alike."""
    _export(tmp_path, classifier)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in description.items() if k not in ("kind", "architecture", "files")}))
    older = load_export(tmp_path)
    assert older.gallery is None
    assert np.array_equal(older.probabilities(PIXELS), predictor.probabilities(PIXELS))


def _describe(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _describe_gallery(folder: Path, **changes: object) -> None:
    gallery = json.loads((folder / "model.json").read_text())["gallery"]
    _describe(folder, gallery={**gallery, **changes})


def _arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    path = folder / "gallery.safetensors"
    save_file({**load_file(path), **arrays}, path)


def _write(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Return what changes the bytes of a file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _flipped(content: bytes) -> bytes:
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


MODEL, GALLERY = "model.safetensors", "gallery.safetensors"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "no tensors": lambda folder: (folder / MODEL).unlink(),
    "torn tensors": _write(MODEL, lambda content: content[:1000]),
    "a pickle": _write(MODEL, lambda _: pickle.dumps({"head.weight": 1})),
    "list of files": lambda folder: _describe(folder, files=[MODEL]),
    "no classes": lambda folder: _describe(folder, classes=None),
    "fewer classes": lambda folder: _describe(folder, classes=["one"]),
    "short mean": lambda folder: _describe(folder, mean=[0.5]),
    "size of letters": lambda folder: _describe(folder, image_size="big"),
    "unknown backbone": lambda folder: _describe(folder, backbone="none"),
    "unknown architecture": lambda folder: _describe(folder, architecture={"wide": 1}),
    "no gallery": lambda folder: (folder / GALLERY).unlink(),
    "torn gallery": _write(GALLERY, lambda content: content[:60]),
    "no description of the gallery": lambda folder: _describe(folder, gallery=None),
    "other images": lambda folder: _describe_gallery(folder, images=["a.jpg"]),
    "large k": lambda folder: _describe_gallery(folder, k=8),
    "k of letters": lambda folder: _describe_gallery(folder, k="three"),
    "unknown distance": lambda folder: _describe_gallery(folder, distance="taxicab"),
    "no temperature": lambda folder: _describe_gallery(folder, temperature=0),
    "unknown labels": lambda folder: _arrays(folder, labels=LABELS + 1),
    "other embeddings": lambda folder: _arrays(folder, embeddings=np.zeros((7, 9), np.float32)),
    "other matrix": lambda folder: _arrays(folder, matrix=np.zeros((9, 8), np.float32)),
    "other mean": lambda folder: _arrays(folder, mean=np.zeros(9, np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_parts_that_make_no_model_are_refused(
    tmp_path: Path, classifier: Classifier, gallery: Gallery, damage: str
) -> None:
    """Without checksums too, tensors that are missing or not those that are described are refused in one line."""
    _export(tmp_path, classifier, gallery)
    _describe(tmp_path, files={})  # as before there were checksums
    DAMAGES[damage](tmp_path)
    with pytest.raises(InputError, match=r"must hold the whole model that its model\.json describes") as caught:
        load_export(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "folder must hold model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "folder must hold model.json"),
        (lambda folder: _describe(folder, format=99), "format in model.json must be 1, got 99"),
        (lambda folder: (folder / MODEL).unlink(), "model.safetensors must be as .* but it is missing"),
        (_write(MODEL, _flipped), "model.safetensors must be as .* but it has another content than was written, in"),
        (_write(GALLERY, _flipped), "gallery.safetensors must be as .* but it has another content"),
        (
            _write(GALLERY, lambda content: content[:60]),
            "gallery.safetensors must be as .* but it has 60 bytes instead",
        ),
    ],
    ids=["no description", "torn", "another format", "no tensors", "flipped bit", "flipped gallery", "torn gallery"],
)
def test_a_damaged_export_is_refused(
    tmp_path: Path, classifier: Classifier, gallery: Gallery, spoil: Callable[[Path], object], message: str
) -> None:
    """A folder whose files are not those that were exported is refused in one line."""
    _export(tmp_path, classifier, gallery)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_export(tmp_path)
    assert "\n" not in str(caught.value)
