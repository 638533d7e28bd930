"""`carsweep run transfer` from the command line to the registered model: real Ray, Optuna and MLflow, tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from helpers import Done, run_carsweep, stages_made

from carcls.stages_disk import list_store
from sweeps.study.records import read_history
from sweeps.trial import stage_use

SETTINGS = ["--set", "backbone=efficientnet_lite0", "image_size=64", "batch_size=8"]
SHORT = [*SETTINGS, "epochs=1", "experiments=[transfer/frozen]"]


def run(folder: Path, *more: str) -> Done:
    """Run the sweep in ``folder``."""
    return run_carsweep(folder, ["run", "transfer", "--data", "tints", "--name", "mine", "--json", *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Return a folder with a data set of three classes."""
    folder = tmp_path_factory.mktemp("sweep")
    draw_tints(folder / "tints", 12, 4)
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
    assert (data["name"], data["classes"], data["splits"]["test"]) == ("tints", 3, 12)
    assert data["images"] == sum(data["splits"].values()) == 48
    complete = [trial for trial in value["trials"] if trial["status"] == "complete"]
    assert value["best"]["metrics"]["val_accuracy"] == max(trial["metrics"]["val_accuracy"] for trial in complete)
    assert 0 <= test["interval"][0] <= test["metrics"]["test_accuracy"] <= test["interval"][1] <= 1
    assert (test["images"], test["readings"]) == (12, 1)
    assert json.loads((folder / "runs" / "mine" / "result.json").read_text()) == value
    assert len(json.loads((folder / "runs" / "mine" / "leaderboard.json").read_text())["rows"]) == 2
    report = (folder / "runs" / "mine" / "report.html").read_text()
    assert f"Trial {value['best']['number']} wins with {value['best']['metrics']['val_accuracy']:.1%}" in report
    assert f"{test['metrics']['test_accuracy']:.1%}" in report
    assert f"Report: {folder / 'runs' / 'mine' / 'report.html'}" in first.err


def test_registered_model_predicts_class_names(first: Done, folder: Path) -> None:
    """What the object names is loaded by MLflow and answers with the data set's class names."""
    mlflow.set_tracking_uri(first.value["tracking_uri"])
    mlflow.set_registry_uri(first.value["tracking_uri"])
    model = mlflow.pyfunc.load_model(first.value["registered"]["uri"])
    (label,) = model.predict([str(folder / "tints" / "test" / "tint 0" / "0.png")])["label"]
    assert label in {"tint 0", "tint 1", "tint 2"}
    assert (first.value["registered"]["name"], first.value["registered"]["alias"]) == (
        "carsweep-transfer",
        "challenger",
    )


def test_the_model_has_its_card(first: Done, folder: Path) -> None:
    """In the sweep's folder, the run, the registered model, and the version's description, with the test score."""
    value = first.value
    card = (Path(value["out"]) / value["sweep"] / "model-card.md").read_text(encoding="utf-8")
    assert f"{100 * value['test']['metrics']['test_accuracy']:.1f}%" in card
    assert folder.name in value["out"]
    client = mlflow.MlflowClient(value["tracking_uri"], value["tracking_uri"])
    version = client.get_model_version(value["registered"]["name"], value["registered"]["version"])
    assert version.description.startswith(card[:500])
    places = list((Path(value["out"]) / "artifacts").rglob("model-card.md"))
    assert {"export" in place.parts or "model" in place.parts for place in places} == {True, False}  # the run's, too
    assert {place.read_text(encoding="utf-8") for place in places} == {card}


def test_its_onnx_export_answers_as_the_registered_model_does(first: Done, folder: Path) -> None:
    """In MLflow, on every test image: same columns, classes and errors, and probabilities within 0.001."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx, which the extra test has")
    done = run_carsweep(folder, ["export", "transfer", "mobile", "--to", "onnx", "--json"])
    assert done.code == 0, done.err
    mlflow.set_tracking_uri(first.value["tracking_uri"])
    mlflow.set_registry_uri(first.value["tracking_uri"])
    registered = mlflow.pyfunc.load_model(first.value["registered"]["uri"])
    paths = [*map(str, sorted((folder / "tints" / "test").rglob("*.png"))), str(folder / "gone.png")]
    exported = mlflow.pyfunc.load_model(str(folder / "mobile"))
    assert exported.metadata.signature == registered.metadata.signature
    ours, theirs = registered.predict(paths), exported.predict(paths)
    assert len(ours) == first.value["test"]["images"] + 1
    for column in ("label", "top_labels", "error"):
        assert theirs[column].tolist() == ours[column].tolist()
    assert theirs["probability"].tolist() == pytest.approx(ours["probability"].tolist(), abs=1e-3)
    assert ours["error"].tolist()[-1] == "the file is missing"


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
    assert {name: first.value[name] for name in ("stage_hits", "saved_seconds")} == stage_use(records)
    named = {name for record in records for name in record.stages}
    for_all = ("index", "network", "nearest")  # the last is of the report, which says where it is gone
    stored = [stage for stage in list_store(folder / "runs" / "stages") if stage.kind not in for_all]
    assert {stage.kind for stage in stored} >= {"pack", "features", "training"}
    assert {stage.name for stage in stored} <= named


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
    expected = {"alias": "", "uri": f"models:/{name}/{held.version}", "challenger": str(other.version)}
    assert told.value["registered"] == {**again.value["registered"], **expected}
    assert "alias challenger" not in told.err
