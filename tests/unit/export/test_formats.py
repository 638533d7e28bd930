"""Models in other runtimes' formats: the same answers, whatever the model is and whatever its network did before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.evaluation.confidence import Confidence
from carcls.export import Predictor, load_export, write_export
from carcls.export.engines import TorchEngine
from carcls.export.formats import compare_answers, count_hits, onnx_runtime, write_format, write_int8, write_preprocess
from carcls.export.onnx_engine import OnnxEngine
from carcls.models.classifier import build_classifier
from carcls.neighbours.gallery import Gallery

pytest.importorskip("onnxscript", reason="needs the extra onnx, which the extra test has")
pytest.importorskip("onnxruntime", reason="needs the extra onnx, which the extra test has")

SIZE, CLASSES = 64, ("Aero Coupe 2001", "Boxer Van 2007", "Corsa Wagon 2012")
CONFIG = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=SIZE, dropout=0.5, seed=3)
LABELS = np.arange(60) % 3
KINDS: dict[str, dict[str, Any]] = {
    "classifier": {},
    "uniform": {"k": 4},
    "distance": {"k": 5, "vote": "distance", "pooling": "gem", "whitening": "pca", "whitening_dim": 12},
    "softmax": {"k": 7, "vote": "softmax", "distance": "cosine", "pooling": "max", "l2_normalize": True},
}


def _pictures(seed: int, count: int) -> np.ndarray:
    """Return coarse patterns uint8 [count, s, s, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def _exported(folder: Path, kind: str) -> Predictor:
    """Export a model with a temperature, whose gallery has each picture, the first one twice; load it."""
    classifier, gallery = build_classifier(CONFIG, 3).eval(), None
    with torch.no_grad():
        classifier.head.weight *= 40
    if kind != "classifier":
        settings = TrialConfig.model_validate({"family": "retrieval", **KINDS[kind]})
        shown = _pictures(7, 60)
        shown[59] = shown[0]
        embeddings = TorchEngine(classifier, SIZE, settings.pooling)(shown)
        images = tuple(f"train/{place}.jpg" for place in range(60))
        gallery = replace(Gallery.fitted(settings, embeddings, LABELS), images=images)
    confidence = Confidence(1.7, 0.01 if gallery else 0.0, images=9, curve=((0.2, 0.5), (0.6, 0.9)))
    more = {"thumbnails": [bytes([place]) * 9 for place in range(60)]} if gallery else {}
    asked = {"margin": 0.0, "gallery": gallery, "confidence": confidence, **more}
    write_export(folder, classifier, CONFIG, classes=CLASSES, **asked)
    return load_export(folder)


@pytest.fixture(scope="module", params=KINDS)
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A loaded model of each kind."""
    return _exported(tmp_path_factory.mktemp("exported"), request.param)


@pytest.fixture(scope="module")
def onnx(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as ONNX; its folder."""
    folder = tmp_path_factory.mktemp("onnx")
    write_format(predictor, "onnx", folder)
    write_preprocess(folder, predictor, {})
    return folder


@pytest.mark.parametrize("kind", ["onnx", "pt2", "safetensors"])
def test_a_written_file_answers_as_the_model_does(predictor: Predictor, kind: str, tmp_path: Path) -> None:
    """Same classes and probabilities for any number of images, though the network was left in training mode."""
    assert isinstance(predictor.engine, TorchEngine)
    predictor.engine.network.train()
    try:
        runtime = write_format(predictor, kind, tmp_path)
    finally:
        predictor.engine.network.eval()
    for count in (1, 2, 45):
        found = compare_answers(predictor, runtime, _pictures(1, count))
        assert (found.images, found.same) == (count, count)
        assert found.difference < 1e-4
    assert compare_answers(predictor, runtime, None).same == 64
    said, labels = runtime(_pictures(1, 9))
    assert said.std(axis=0).max() > 0.01
    assert count_hits(predictor, runtime, _pictures(1, 9), labels) == (9, 9)


def test_another_model_is_told_apart(tmp_path: Path) -> None:
    """The comparison sees a temperature that is another one, which no class shows."""
    predictor = _exported(tmp_path / "model", "classifier")
    runtime = write_format(predictor, "onnx", tmp_path)
    found = compare_answers(replace(predictor, confidence=Confidence(1.6)), runtime, _pictures(1, 9))
    assert found.same == 9
    assert found.difference > 1e-3


def test_neighbours_are_in_the_graph(predictor: Predictor, onnx: Path) -> None:
    """ONNX names the places in the gallery and their distances, of equally near ones the first one first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    assert list(json.loads((onnx / "preprocess.json").read_text())["outputs"]) == names
    if predictor.gallery is None:
        return
    images = (_pictures(7, 1).transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    backbone = predictor.engine.network.backbone  # type: ignore[attr-defined]
    images = (images - np.float32(backbone.mean)[:, None, None]) / np.float32(backbone.std)[:, None, None]
    places, distances = session.run(["neighbours", "distances"], {"images": images})
    near = predictor.predict(_pictures(7, 1))[0].neighbours
    assert places[0].tolist() == [one.place for one in near]
    assert places[0, :2].tolist() == [0, 59]
    assert distances[0] == pytest.approx([one.distance for one in near], rel=1e-3, abs=2e-3)


def test_the_example_needs_neither_torch_nor_carcls(predictor: Predictor, onnx: Path, tmp_path: Path) -> None:
    """In a process that can import neither it says what the model does of files of all kinds, in few lines."""
    images = [tmp_path / name for name in ("large.jpg", "turned.jpg", "gray.png", "clear.png", "cmyk.jpg")]
    pictures = [Image.fromarray(one) for one in _pictures(2, 5)]
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[0].resize((2000, 1500)).save(images[0])
    pictures[1].resize((120, 80)).save(images[1], exif=exif)
    pictures[2].convert("L").save(images[2])
    pictures[3].putalpha(100)
    pictures[3].save(images[3])
    pictures[4].convert("CMYK").save(images[4])
    blocked = "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'carcls', 'sweeps')))\n"
    code = f"{blocked}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, onnx / "example.py", *images]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = predictor.predict(images)
    assert [row[:2] for row in said] == [[str(path), one.label] for path, one in zip(images, wanted, strict=True)]
    assert [float(row[2]) for row in said] == pytest.approx([one.probability for one in wanted], abs=5e-3)
    assert len((onnx / "example.py").read_text().splitlines()) < 35


def test_eight_bits_are_smaller_and_answer_much_alike(tmp_path: Path) -> None:
    """Ranges come from the images that are given; the file needs no other one."""
    predictor = _exported(tmp_path / "model", "classifier")
    write_format(predictor, "onnx", tmp_path)
    runtime = write_int8(tmp_path, predictor, _pictures(3, 64))
    full, small = ((tmp_path / name).stat().st_size for name in ("model.onnx", "model-int8.onnx"))
    assert small < full / 3
    assert compare_answers(predictor, runtime, _pictures(1, 60)).same > 45
    (tmp_path / "model.onnx").unlink()
    assert compare_answers(predictor, onnx_runtime(predictor, tmp_path / "model-int8.onnx"), None).images == 64
    assert not list(tmp_path.glob("*prepared*"))


def test_an_onnx_export_is_loaded_and_answers_as_its_model(predictor: Predictor, onnx: Path) -> None:
    """Same classes, probabilities, neighbours with thumbnails, and unknowns, by any k and distance."""
    loaded = load_export(onnx)
    assert isinstance(loaded.engine, OnnxEngine)
    assert (loaded.classes, loaded.confidence) == (predictor.classes, predictor.confidence)
    pairs = [(loaded, predictor)]
    if predictor.gallery is not None:
        pairs += [(loaded.asking(2, "cosine"), predictor.asking(2, "cosine"))]
        assert [loaded.thumbnail(place) for place in (0, 59, 60)] == [bytes(9), bytes([59]) * 9, None]
    for ours, theirs in pairs:
        for count in (0, 1, 45):
            pictures = list(_pictures(1, count))
            for said, wanted in zip(ours.predict(pictures), theirs.predict(pictures), strict=True):
                assert said.label == wanted.label
                assert dict(said.top) == pytest.approx(dict(wanted.top), abs=1e-4)
                assert [one.place for one in said.neighbours] == [one.place for one in wanted.neighbours]
                near = [one.distance for one in wanted.neighbours]
                assert [one.distance for one in said.neighbours] == pytest.approx(near, rel=1e-3)
    most = max(one.probability for one in predictor.predict(list(_pictures(1, 9))))
    unsure = [replace(each, confidence=replace(each.confidence, curve=((most + 0.01, 0.9),))) for each in pairs[0]]
    for each in unsure:
        assert {one.label for one in each.answers(_pictures(1, 9), abstain=0.9)} == {"unknown"}


BLOCKED = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "ray", "sklearn", "optuna", "scipy", "mlflow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from carcls.errors import InputError
from carcls.export import load_export
loaded = load_export(sys.argv[1])
(said,) = loaded.predict(sys.argv[2])
near = [[one.image, one.label] for one in said.neighbours]
shown = bool(near) and loaded.thumbnail(said.neighbours[0].place) is not None
try:
    load_export(sys.argv[3])
except InputError as error:
    print(json.dumps([said.label, said.probability, near, shown, str(error)]))
"""


def test_an_onnx_export_needs_no_pytorch(predictor: Predictor, onnx: Path, tmp_path: Path) -> None:
    """A process in which nothing of it can be imported gives the model's answers, and says what others need."""
    Image.fromarray(_pictures(1, 1)[0]).save(tmp_path / "car.png")
    command = [sys.executable, "-c", BLOCKED, str(onnx), str(tmp_path / "car.png"), str(predictor.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label, probability, near, shown, refused = json.loads(done.stdout)
    (wanted,) = predictor.predict(tmp_path / "car.png")
    assert (label, near) == (wanted.label, [[one.image, one.label] for one in wanted.neighbours])
    assert probability == pytest.approx(wanted.probability, abs=1e-4)
    assert shown == (predictor.gallery is not None)
    assert "needs torch, which is not installed. Install it, or ask an export to ONNX" in refused


def test_a_damaged_onnx_export_is_refused(onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte, a graph of another size or with other outputs, a missing file, a missing onnxruntime."""
    folder = shutil.copytree(onnx, tmp_path / "copy")
    file, described = folder / "model.onnx", json.loads((folder / "model.json").read_text())
    whole = file.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_export(folder)

    file.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    refused(r"model\.onnx must be as it was exported, but it has another content")
    file.unlink()
    refused(r"model\.onnx must be as it was exported, but it is missing")
    file.write_bytes(whole)
    for change in ({"image_size": 96}, {"mean": [0.5]}, {"classes": ["one"]}, {"kind": "other"}):
        (folder / "model.json").write_text(json.dumps(described | change))
        if change != {"kind": "other"} or "gallery" in described:
            refused("must hold the whole model that its model.json describes")
    (folder / "model.json").write_text(json.dumps(described))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused("model.onnx needs onnxruntime. Run: pip install onnxruntime")
