"""`carsweep run transfer` from the command line to the registered model: real Ray, Optuna and MLflow, tiny pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Done, run_carsweep, stages_made
from PIL import Image, ImageDraw

from carcls.stages_disk import list_store
from sweeps.study.records import read_history

SETTINGS = ["--set", "backbone=efficientnet_lite0", "image_size=64", "batch_size=8"]
SHORT = [*SETTINGS, "epochs=1", "experiments=[transfer/frozen]"]


def draw_shapes(root: Path, *, train: int = 16, test: int = 6) -> Path:
    """Draw discs and boxes on noise, as class folders with a test split."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, shape in (("disc", "ellipse"), ("box", "rectangle")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(random.integers(0, 255, (72, 72, 3), dtype=np.uint8))
                x, y, side = (int(v) for v in random.integers((5, 5, 30), (30, 30, 40)))
                colour = tuple(int(v) for v in random.integers(0, 255, 3))
                getattr(ImageDraw.Draw(picture), shape)([x, y, x + side, y + side], fill=colour)
                picture.save(folder / f"{number}.png")
    return root


def run(folder: Path, *more: str, stop_at: str | None = None) -> Done:
    """Run the sweep in ``folder``."""
    words = ["run", "transfer", "--data", str(folder / "shapes"), "--out", str(folder / "runs"), "--name", "mine"]
    return run_carsweep(folder, [*words, "--json", *more], stop_at=stop_at)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set."""
    folder = tmp_path_factory.mktemp("sweep")
    draw_shapes(folder / "shapes")
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> Done:
    """Run a sweep of two trials: one documented experiment and one that is searched."""
    return run(folder, "--trials", "2", *SHORT)


def test_sweep_answers_with_one_object_which_its_folder_keeps(first: Done, folder: Path) -> None:
    """Exit code 0, the documented experiment first, images counted; test read once, for whom validation chose."""
    assert first.code == 0, first.err
    value, data, test = first.value, first.value["data"], first.value["test"]
    assert {"sweep", "family", "out", "registered", "tracking_uri", "seconds"} <= set(value)
    assert [trial["experiment"] for trial in value["trials"]] == ["transfer/frozen", None]
    assert (data["name"], data["classes"], data["splits"]["test"]) == ("shapes", 2, 12)
    assert data["images"] == sum(data["splits"].values()) == 44
    complete = [trial for trial in value["trials"] if trial["status"] == "complete"]
    assert value["best"]["metrics"]["val_accuracy"] == max(trial["metrics"]["val_accuracy"] for trial in complete)
    assert 0 <= test["interval"][0] <= test["metrics"]["test_accuracy"] <= test["interval"][1] <= 1
    assert (test["images"], test["readings"]) == (12, 1)
    assert json.loads((folder / "runs" / "mine" / "result.json").read_text()) == value
    assert len(json.loads((folder / "runs" / "mine" / "leaderboard.json").read_text())["rows"]) == 2


def test_registered_model_predicts_class_names(first: Done, folder: Path) -> None:
    """What the object names is loaded by MLflow and answers with the data set's class names."""
    script = (
        "import json, mlflow, sys\n"
        "value = json.loads(sys.argv[1])\n"
        "mlflow.set_tracking_uri(value['tracking_uri'])\n"
        "model = mlflow.pyfunc.load_model(value['registered']['uri'])\n"
        "print(json.dumps(model.predict([sys.argv[2]])['label'].tolist()))\n"
    )
    picture = folder / "shapes" / "test" / "disc" / "0.png"
    command = [sys.executable, "-c", script, json.dumps(first.value), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    (label,) = json.loads(done.stdout.splitlines()[-1])
    assert label in {"disc", "box"}
    assert first.value["registered"]["name"] == "carsweep-transfer"
    assert first.value["registered"]["alias"] == "challenger"


def test_the_same_command_again_computes_nothing(first: Done, folder: Path) -> None:
    """A sweep that is done answers with the same object, and makes no stage and no new version."""
    made = stages_made(folder / "runs")
    again = run(folder, "--trials", "2", *SHORT)
    assert again.code == 0, again.err
    assert again.value == first.value
    assert stages_made(folder / "runs") == made


def test_trials_name_every_stage_that_they_left(first: Done, folder: Path) -> None:
    """Their processes say it, the journal has it: nothing in the store is without a name but what is kept for all."""
    records = read_history(folder / "runs" / "mine").records
    assert first.value["saved_seconds"] == round(sum(record.saved for record in records), 3)
    named = {name for record in records for name in record.stages}
    stored = [stage for stage in list_store(folder / "runs" / "stages") if stage.kind not in ("index", "network")]
    assert {stage.kind for stage in stored} >= {"pack", "features", "training"}
    assert {stage.name for stage in stored} <= named


@pytest.mark.slow
def test_interrupted_sweep_keeps_its_state_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C while trials run exits with 130, prints the command that goes on, and that command finishes the sweep."""
    draw_shapes(tmp_path / "shapes")
    settings = ["--trials", "3", *SETTINGS, "epochs=12", "search=null", "unfreezing=full"]
    stopped = run(tmp_path, *settings, stop_at="epoch 2/")
    assert (stopped.code, stopped.value["interrupted"]) == (130, True), stopped.err
    assert "resume mine" in stopped.err
    finished = run(tmp_path, *settings)
    assert finished.code == 0, finished.err
    assert finished.value["test"]["readings"] == 1


@pytest.mark.slow
def test_after_gc_a_finished_sweep_is_finished_and_can_be_extended(first: Done, folder: Path) -> None:
    """With room for nothing, the same command trains nothing again; one more trial runs on stages made anew."""
    runs = folder / "runs"
    cleared = run_carsweep(folder, ["gc", "--out", str(runs), "--disk", "1kB", "--keep", "1", "--json"]).value
    assert cleared["removed"]["unused"]["count"] >= 2  # images and features
    assert not list((runs / "stages").glob("pack/*/key.json"))
    assert run(folder, "--trials", "2", *SHORT).value == first.value
    more = run(folder, "--trials", "3", "--price", "1/cpu-hour", *SHORT)
    assert more.code == 0, more.err
    assert [trial["status"] for trial in more.value["trials"]].count("complete") >= 2
    assert more.value["trials"][:2] == first.value["trials"]
    assert more.value["spent"]["cost"] > 0
    trained = [json.loads(line) for line in (runs / "stages" / "log.jsonl").read_text().splitlines()]
    made = [line["digest"] for line in trained if (line["kind"], line["event"]) == ("training", "made")]
    assert len(made) == len(set(made))


@pytest.mark.slow
def test_a_finished_sweep_registers_what_the_registry_lost(first: Done, folder: Path) -> None:
    """The alias is told only of the version that has it; what somebody deleted is there again, read on test once."""
    import mlflow

    command = ["--trials", "2", *SHORT]
    readings = run(folder, *command).value["test"]["readings"]
    mlflow.set_tracking_uri(first.value["tracking_uri"])
    mlflow.set_registry_uri(first.value["tracking_uri"])
    client = mlflow.MlflowClient()
    name = first.value["registered"]["name"]
    client.delete_registered_model(name)
    again = run(folder, *command)
    assert again.code == 0, again.err
    assert again.value["registered"]["alias"] == "challenger"
    assert "it is registered again" in again.err
    held = client.get_model_version_by_alias(name, "challenger")
    assert str(held.version) == again.value["registered"]["version"]
    assert again.value["test"]["readings"] == readings
    other = client.create_model_version(name, source=held.source)
    client.set_registered_model_alias(name, "challenger", other.version)
    told = run(folder, *command)
    expected = {"alias": "", "uri": f"models:/{name}/{held.version}"}
    assert told.value["registered"] == {**again.value["registered"], **expected}
    assert "alias challenger" not in told.err
