"""The servable folder: written, loaded, asked."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.export import Predictor, load_export, write_export
from carcls.models.classifier import Classifier, build_classifier

SIZE = 64
CLASSES = ("Aero Coupe 2001", "Boxer Van 2007", "Corsa Wagon 2012")


def _export(folder: Path, classifier: Classifier) -> None:
    write_export(
        folder,
        classifier,
        classes=CLASSES,
        image_size=SIZE,
        backbone=classifier.backbone.name,
        margin=0.1,
        details={"seed": 3},
    )


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A small random classifier whose answers depend on the image."""
    config = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, dropout=0.5, seed=3)
    classifier = build_classifier(config, len(CLASSES)).to(memory_format=torch.channels_last)
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


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Five images uint8 [5, 80, 100, 3], each a coarse pattern of its own."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 4, 5, 3), dtype=np.uint8)
    return coarse.repeat(20, axis=1).repeat(20, axis=2)


def test_a_loaded_export_computes_what_was_exported(
    classifier: Classifier, predictor: Predictor, pixels: np.ndarray
) -> None:
    """Probabilities of a loaded export are those of the classifier, normalised its backbone's way, without dropout."""
    squares = np.stack([np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.BICUBIC)) for image in pixels])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (classifier.backbone.mean, classifier.backbone.std))
    classifier.eval()
    with torch.no_grad():
        expected = classifier((images - mean) / std).softmax(dim=1).numpy()
    given = predictor.probabilities(pixels)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert given.std(axis=0).max() > 0.01


def test_predictions_are_sorted_and_name_classes(predictor: Predictor, pixels: np.ndarray) -> None:
    """A prediction names the likeliest classes, best first, with their probabilities."""
    rows = predictor.probabilities(pixels)
    for row, prediction in zip(rows, predictor.predict(pixels, top=2), strict=True):
        assert prediction.label == CLASSES[row.argmax()]
        assert prediction.probability == pytest.approx(row.max())
        assert prediction.top == tuple((CLASSES[i], pytest.approx(row[i])) for i in np.argsort(-row)[:2])
    assert len(predictor.predict(pixels[0], top=50)[0].top) == len(CLASSES)


def test_every_kind_of_input_gives_the_same_answer(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    """One image as path, text, PIL image, uint8 and float array, alone or in a list or batch, is one answer."""
    image, path = pixels[0], tmp_path / "car.png"
    Image.fromarray(image).save(path)
    expected = predictor.probabilities([image])
    for given in (
        path,
        str(path),
        [path],
        Image.fromarray(image),
        image,
        image / 255,
        image[None],
        (image / 255)[None],
    ):
        np.testing.assert_allclose(predictor.probabilities(given), expected, atol=1e-6)


def test_gray_images_are_gray_in_every_form(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    """A gray array is its three equal channels, as a gray file is."""
    gray, path = pixels[0, :, :, 0], tmp_path / "gray.png"
    Image.fromarray(gray).save(path)
    expected = predictor.probabilities(np.repeat(gray[:, :, None], 3, axis=2))
    for given in (gray, gray / 255, path, Image.fromarray(gray)):
        np.testing.assert_allclose(predictor.probabilities(given), expected, atol=1e-6)


def test_rotated_photographs_are_turned_upright(predictor: Predictor, pixels: np.ndarray, tmp_path: Path) -> None:
    """The EXIF orientation is followed in files and in PIL images."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels[0]))).save(path, exif=exif)
    expected = predictor.probabilities(pixels[0])
    np.testing.assert_allclose(predictor.probabilities(path), expected, atol=1e-3)
    with Image.open(path) as image:
        np.testing.assert_allclose(predictor.probabilities(image), expected, atol=1e-3)


def test_the_batch_size_does_not_matter(predictor: Predictor, pixels: np.ndarray) -> None:
    """Images taken two at a time get the answers they get together; no image gets none."""
    together = predictor.probabilities(list(pixels))
    np.testing.assert_allclose(predictor.probabilities(list(pixels), batch_size=2), together, atol=1e-5)
    assert predictor.probabilities([]).shape == (0, len(CLASSES))
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("missing.jpg", "missing.jpg.*missing"),
        (np.zeros((4, 4, 4), np.uint8), r"image 1 must be an array .* got shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "image 1 must be an array"),
        (np.zeros((4, 4, 3), np.int64), "image 1 must be uint8 or floating, got int64"),
        (np.full((4, 4, 3), 255.0), r"image 1 must hold floating numbers in 0\.\.1"),
        (np.full((4, 4, 3), np.nan), r"image 1 must hold floating numbers in 0\.\.1"),
        (7, "image 1 must be a path, a PIL image or an array, got int"),
    ],
    ids=["missing", "four-channels", "empty", "integers", "out-of-range", "nan", "no-image"],
)
def test_an_unusable_image_is_named(predictor: Predictor, pixels: np.ndarray, image: object, message: str) -> None:
    """An image that cannot be used is refused by its path or its position."""
    with pytest.raises(InputError, match=message):
        predictor.predict([pixels[0], image])  # type: ignore[list-item]


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
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
        (lambda path: Image.new("RGB", (9, 9)).save(path, format="EPS"), "not an image of a known format"),
    ],
)
def test_what_is_no_picture_file_is_named_and_not_waited_for(
    predictor: Predictor, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """A pipe, a device, a looping link and a format that is not ours are refused in one line."""
    make(tmp_path / "car.jpg")
    with pytest.raises(InputError, match=rf"got '.*car\.jpg': .*{reason}"):
        predictor.predict([tmp_path / "car.jpg"])


@pytest.mark.parametrize("arguments", [{"top": 0}, {"batch_size": 0}])
def test_nonsense_numbers_are_refused(predictor: Predictor, pixels: np.ndarray, arguments: dict[str, int]) -> None:
    """No classes to name, or no images at a time, is a mistake."""
    with pytest.raises(InputError, match=f"{next(iter(arguments))} must be at least 1, got 0"):
        predictor.predict(pixels, **arguments)


def test_the_folder_says_what_it_is(folder: Path, classifier: Classifier) -> None:
    """The description holds what serving needs, in plain JSON, and nothing else lies in the folder."""
    description = json.loads((folder / "model.json").read_text())
    assert description["classes"] == list(CLASSES)
    assert description["backbone"] == "timm:resnet10t"
    assert (description["image_size"], description["margin"], description["details"]) == (SIZE, 0.1, {"seed": 3})
    assert description["mean"] == list(classifier.backbone.mean)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_an_export_replaces_an_older_one(tmp_path: Path, classifier: Classifier) -> None:
    """Exporting into the same folder again serves the newer classifier."""
    _export(tmp_path, classifier)
    newer = build_classifier(TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, seed=4), 3)
    _export(tmp_path, newer)
    loaded = load_export(tmp_path).classifier.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in newer.state_dict().items())


def test_loading_needs_neither_pretrained_weights_nor_internet(folder: Path, tmp_path: Path) -> None:
    """Another process with empty caches and no way out loads the export."""
    nowhere = {"TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    code = "import sys; from carcls.export import load_export; print(load_export(sys.argv[1]).classes)"
    answer = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == str(CLASSES)


def test_an_older_classifier_is_served(
    tmp_path: Path, classifier: Classifier, predictor: Predictor, pixels: np.ndarray
) -> None:
    """A folder from before there were other networks and galleries, which names no kind, is answered alike."""
    _export(tmp_path, classifier)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in description.items() if k not in ("kind", "architecture", "files")}))
    older = load_export(tmp_path)
    assert isinstance(older, Predictor)
    assert np.array_equal(older.probabilities(pixels), predictor.probabilities(pixels))


def _describe(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"head.weight": 1}))


def _age(folder: Path) -> None:
    (folder / "model.json").write_text(json.dumps({"format": 99}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "folder must hold model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "folder must hold model.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "must hold the classifier's tensors"),
        (_cut, "must hold the classifier's tensors"),
        (_pickle, "must hold the classifier's tensors"),
        (_flip, "model.safetensors must be as it was exported, but it has another content than was written, in "),
        (lambda folder: _describe(folder, files=["model.safetensors"]), "model.json in .* must describe the whole"),
        (_age, "format in model.json must be 1, got 99"),
        (lambda folder: _describe(folder, classes=None), "model.json in .* must describe the whole model"),
        (lambda folder: _describe(folder, mean=[0.5]), "model.json in .* must describe the whole model"),
        (lambda folder: _describe(folder, image_size="big"), "model.json in .* must describe the whole model"),
        (lambda folder: _describe(folder, backbone="none"), "model.json in .* must describe the whole model"),
        (lambda folder: _describe(folder, architecture={"wide": 1}), "model.json in .* must describe the whole model"),
        (lambda folder: _describe(folder, classes=["one"]), "must hold the classifier's tensors"),
    ],
    ids=[
        "no-description",
        "torn-description",
        "no-tensors",
        "torn-tensors",
        "a-pickle",
        "flipped-bit",
        "list-of-files",
        "another-format",
        "no-classes",
        "short-mean",
        "size-of-letters",
        "unknown-backbone",
        "unknown-architecture",
        "fewer-classes",
    ],
)
def test_a_damaged_export_is_refused(
    tmp_path: Path, classifier: Classifier, spoil: Callable[[Path], object], message: str
) -> None:
    """A folder that is no whole export is refused in one line."""
    _export(tmp_path, classifier)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_export(tmp_path)
    assert "\n" not in str(caught.value)
