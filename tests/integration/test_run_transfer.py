"""`carsweep run transfer` from the command line to the registered model: real Ray, Optuna and MLflow, tiny pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from carcls.stages_disk import list_store
from sweeps.study.records import read_history

SETTINGS = ["backbone=efficientnet_lite0", "image_size=64", "batch_size=8"]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> dict[str, Any]:
        """The one object on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value


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


def arguments(folder: Path, *more: str) -> list[str]:
    """Return the command line of the sweep in ``folder``."""
    words = ["run", "transfer", "--data", str(folder / "shapes"), "--out", str(folder / "runs"), "--name", "mine"]
    return [sys.executable, "-m", "sweeps.cli", *words, "--json", *more]


def run(folder: Path, *more: str) -> Done:
    """Run the sweep in ``folder`` to its end."""
    done = subprocess.run(arguments(folder, *more), capture_output=True, text=True, cwd=folder, timeout=400)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set."""
    folder = tmp_path_factory.mktemp("sweep")
    draw_shapes(folder / "shapes")
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> Done:
    """Run a sweep of two trials: one documented experiment and one that is searched."""
    return run(folder, "--trials", "2", "--set", *SETTINGS, "epochs=1", "experiments=[transfer/frozen]")


def test_sweep_succeeds_and_answers_with_one_object(first: Done) -> None:
    """The command exits with 0, and stdout is the documented object and nothing else."""
    assert first.code == 0, first.err
    assert {"sweep", "family", "out", "data", "trials", "best", "test", "registered", "tracking_uri", "seconds"} <= set(
        first.value
    )


def test_documented_experiment_is_the_first_trial(first: Done) -> None:
    """The search comes after the documented experiment."""
    assert [trial["experiment"] for trial in first.value["trials"]] == ["transfer/frozen", None]


def test_data_is_counted(first: Done) -> None:
    """Images, classes and splits are those of the folder."""
    data = first.value["data"]
    assert (data["name"], data["classes"], data["splits"]["test"]) == ("shapes", 2, 12)
    assert data["images"] == sum(data["splits"].values()) == 44


def test_winner_has_the_best_validation_accuracy_and_one_test_reading(first: Done) -> None:
    """The test split is read once, for the trial that validation chose."""
    value = first.value
    complete = [trial for trial in value["trials"] if trial["status"] == "complete"]
    assert value["best"]["metrics"]["val_accuracy"] == max(trial["metrics"]["val_accuracy"] for trial in complete)
    low, high = value["test"]["interval"]
    assert 0 <= low <= value["test"]["metrics"]["test_accuracy"] <= high <= 1
    assert (value["test"]["images"], value["test"]["readings"]) == (12, 1)


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
    log = folder / "runs" / "stages" / "log.jsonl"
    made = log.read_text().count('"made"')
    again = run(folder, "--trials", "2", "--set", *SETTINGS, "epochs=1", "experiments=[transfer/frozen]")
    assert again.code == 0, again.err
    assert again.value == first.value
    assert log.read_text().count('"made"') == made


def test_the_folder_keeps_the_result(first: Done, folder: Path) -> None:
    """The object and the leaderboard are on disk, for whoever comes later."""
    sweep = folder / "runs" / "mine"
    assert json.loads((sweep / "result.json").read_text()) == first.value
    assert len(json.loads((sweep / "leaderboard.json").read_text())["rows"]) == 2


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
    settings = ["--trials", "3", "--set", *SETTINGS, "epochs=12", "search=null", "unfreezing=full"]
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            arguments(tmp_path, *settings), stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, text=True
        )
        _wait_for("epoch 2/", errors, process)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, errors.read_text()
    assert json.loads(out)["interrupted"] is True
    assert "resume mine" in errors.read_text()
    finished = run(tmp_path, *settings)
    assert finished.code == 0, finished.err
    assert finished.value["test"]["readings"] == 1


def _wait_for(words: str, file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while words not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.2)


@pytest.mark.slow
def test_after_gc_a_finished_sweep_is_finished_and_can_be_extended(first: Done, folder: Path) -> None:
    """With room for nothing, the same command trains nothing again; one more trial runs on stages made anew."""
    runs, settings = folder / "runs", [*SETTINGS, "epochs=1", "experiments=[transfer/frozen]"]
    command = [sys.executable, "-m", "sweeps.cli", "gc", "--out", str(runs), "--disk", "1kB", "--keep", "1", "--json"]
    cleared = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)
    assert cleared["removed"]["unused"]["count"] >= 2  # images and features
    assert not list((runs / "stages").glob("pack/*/key.json"))
    assert run(folder, "--trials", "2", "--set", *settings).value == first.value
    more = run(folder, "--trials", "3", "--price", "1/cpu-hour", "--set", *settings)
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

    command = ["--trials", "2", "--set", *SETTINGS, "epochs=1", "experiments=[transfer/frozen]"]
    readings = run(folder, *command).value["test"]["readings"]
    mlflow.set_tracking_uri(first.value["tracking_uri"])
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
    assert told.value["registered"] == {
        **again.value["registered"],
        "alias": "",
        "uri": f"models:/{name}/{held.version}",
    }
    assert "alias challenger" not in told.err
