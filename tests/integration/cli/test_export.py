"""``carsweep export`` on real files: checked on the test images where they are, refused before anything expensive."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from helpers import draw_pictures, export_with_gallery
from mlflow.models import Model

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.export import load_export
from carcls.export.formats import compare_answers, onnx_runtime, write_format
from carcls.stages import StageStore

pytest.importorskip("onnxscript", reason="needs the extra onnx, which the extra test has")
pytest.importorskip("onnxruntime", reason="needs the extra onnx, which the extra test has")

Run = Callable[..., tuple[int, str, str]]
REAL = Path(os.environ.get("CARSWEEP_REAL_CARS", "shared/data/stanford_cars"))


@pytest.fixture
def model(model: Path, tmp_path: Path) -> Path:
    """The model whose gallery has the pictures of four classes, which it carries with it."""
    return export_with_gallery(model, tmp_path / "pictures", thumbnails=True)


def test_onnx_is_checked_on_the_test_images(run: Run, model: Path, tmp_path: Path) -> None:
    """The folder has the model, an example, and what both need to be told; 8 bits come with what they lose."""
    code, out, said = run("export", "given", "--to", "onnx", "--int8", "--model", model, "--json")
    assert code == 0, said
    value = json.loads(out)
    assert sorted(file.name for file in Path("given").iterdir()) == [
        *("MLmodel", "code", "conda.yaml", "example.py", "gallery.safetensors", "input_example.json"),
        *("model-int8.onnx", "model.json", "model.onnx", "model_code.py", "preprocess.json", "python_env.yaml"),
        *("requirements.txt", "serving_input_example.json", "thumbnails.safetensors"),
    ]
    assert {file.stat().st_mode & 0o777 for file in Path("given").iterdir() if file.is_file()} == {0o644}
    data = Dataset.load(tmp_path / "runs" / "mine" / "dataset.json")
    checked, tests = value["checked"], len(data.splits.test)
    assert (checked["on"], checked["images"], checked["same"]) == ("test images", tests, tests)
    assert checked["difference"] < 1e-3
    eight, rows = checked["int8"], data.splits.validation
    pixels = data.pixels(StageStore(tmp_path / "runs" / "stages"), 64)
    said_by = onnx_runtime(load_export(model), Path("given/model-int8.onnx"))(np.asarray(pixels[rows]))[1]
    assert eight["int8_accuracy"] == pytest.approx((said_by == data.labels[rows]).mean())
    assert eight["calibrated_on"] == len(data.splits.train)
    assert json.loads(Path("given/preprocess.json").read_text())["checked"] == checked
    assert run("export", "given", "--to", "pt2", "--model", model)[0] == 0  # an earlier export is written over


def test_an_onnx_export_answers_commands_and_mlflow(run: Run, model: Path, tmp_path: Path) -> None:
    """`--model FOLDER` takes it, and so does MLflow, wherever it was moved; a later export leaves nothing of it."""
    code, out, said = run("export", "first", "--to", "onnx", "--model", model)
    assert code == 0, said
    assert "It answers without PyTorch: mlflow models serve -m first --env-manager local" in out
    moved = Path("first").rename(tmp_path / "moved")
    tests = sorted((tmp_path / "pictures" / "test").rglob("*.jpg"))
    wanted = load_export(model).predict(tests)
    code, out, _ = run("predict", tmp_path / "pictures" / "test", "--model", moved, "--json")
    assert code == 0
    assert [one["label"] for one in json.loads(out)["images"]] == [one.label for one in wanted]
    code, out, _ = run("similar", tests[0], "--model", moved, "--k", "3", "--html", "near.html", "--json")
    assert code == 0
    near = [one["image"] for one in json.loads(out)["images"][0]["neighbours"]]
    assert near == [one.image for one in wanted[0].neighbours]
    assert "data:image/jpeg" in Path("near.html").read_text()
    pyfunc = mlflow.pyfunc.load_model(str(moved))
    assert pyfunc.predict([str(path) for path in tests])["label"].tolist() == [one.label for one in wanted]
    example = Model.load(moved).load_input_example(moved)
    assert pyfunc.predict(example)["error"].tolist() == [""]
    code, _, said = run("export", "second", "--to", "pt2", "--model", moved)
    assert (code, Path("second").exists()) == (2, False)
    assert "--model must be no ONNX export" in " ".join(said.split())
    bare = export_with_gallery(tmp_path / "bare", tmp_path / "pictures")
    assert run("export", moved, "--to", "safetensors", "--model", bare)[0] == 0
    assert (load_export(moved).thumbnail(0), (moved / "MLmodel").exists()) == (None, False)


def test_without_the_images_patterns_are_drawn(run: Run, model: Path, tmp_path: Path) -> None:
    """It is said so, and 8 bits, whose ranges need training images, are refused."""
    shutil.rmtree(tmp_path / "runs")
    code, out, _ = run("export", "given", "--to", "safetensors", "--model", model)
    assert code == 0
    assert "The test images are not here; patterns were drawn instead." in out
    assert load_export("given").gallery is not None
    code, _, said = run("export", "other", "--to", "onnx", "--int8", "--model", model)
    assert (code, Path("other").exists()) == (2, False)
    assert "--int8 needs the sweep's training images" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["given", "--to", "pt2", "--int8"], "--int8 must go with --to onnx, got --to pt2"),
        (["pictures", "--to", "pt2"], "FOLDER must be new, empty or an earlier export, got 'pictures'"),
        (["transfer", "--to", "pt2"], "Missing FOLDER after the family 'transfer'"),
        (["transfer", "given", "--to", "pt2"], "Give FAMILY or --model, not both"),
        (["--to", "pt2"], "Missing FOLDER"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(words: list[str], message: str, run: Run, tmp_path: Path) -> None:
    """One sentence, exit code 2, and no folder."""
    draw_pictures(tmp_path / "pictures", classes=1)
    code, _, said = run("export", *words, "--model", "nowhere")
    assert (code, Path("given").exists()) == (2, False)
    assert message in " ".join(said.split())


def test_a_missing_package_is_named_with_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for then, not even the model."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, said = run("export", "given", "--to", "onnx", "--model", "nowhere")
    assert code == 2
    assert "--to onnx needs onnxruntime. Run: pip install 'carsweep[onnx]'" in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs CARSWEEP_REAL_CARS, a folder of real cars")
def test_onnx_has_the_model_s_class_for_every_test_image_of_real_cars(tmp_path: Path) -> None:
    """With all training images as the gallery of a network that knows photographs."""
    from carcls.config import TrialConfig
    from carcls.families import export_trial
    from carcls.families.retrieval import RetrievalTrial

    stages = StageStore(tmp_path / "stages")
    data = prepare_dataset(DataConfig(path=str(REAL)), stages, 128)
    config = TrialConfig(family="retrieval", backbone="efficientnet_lite0", image_size=128, precision="fp32", epochs=1)
    export_trial(config, data, stages, RetrievalTrial(config, data, stages).run(lambda _: None).model, tmp_path / "m")
    predictor = load_export(tmp_path / "m")
    pixels = np.asarray(data.pixels(stages, 128)[data.splits.test])
    found = compare_answers(predictor, write_format(predictor, "onnx", tmp_path), pixels)
    assert found.same == found.images == len(data.splits.test)
    assert found.difference <= 1e-3
