"""MLflow brought in line with a sweep by hand, and a sweep removed with what MLflow has of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import draw_pictures, study_spec
from mlflow.entities import ViewType
from tracked import all_runs_of, history

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.lock import locked
from sweeps.results.result import Registered
from sweeps.spec.sweep_file import read_file, write_file
from sweeps.study.study import Study
from sweeps.tracking.mirror import mirror_of
from sweeps.tracking.names import CHALLENGER
from sweeps.tracking.registry import TrialModel
from sweeps.tracking.store import Tracking, check_tracking

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two classes of noise."""
    folder = draw_pictures(tmp_path_factory.mktemp("data") / "pictures", classes=2, train=8, test=2)
    return prepare_dataset(DataConfig(path=str(folder)), StageStore(folder.parent / "stages"), 32)


def make_sweep(out: Path, name: str, dataset: Dataset) -> Path:
    """Write the folder of a sweep with a complete, a failed and an unfinished trial, which MLflow knows nothing of."""
    spec = study_spec(name=name, trials=3, experiments=(), near=0.0)
    folder = out / name
    write_file(folder, "sweep", None, [spec])
    dataset.save(folder / "dataset.json")
    with locked(folder), Study.open(folder, spec) as study:
        asked = [study.ask() for _ in range(3)]
        for place, trial in enumerate(asked):
            assert trial is not None
            for epoch in range(1, 4 - place):
                study.report(trial.number, Measurement(epoch, {"val_accuracy": epoch / 10, "val_loss": 1.0}))
        study.tell_complete(0, {"metrics": {"val_accuracy": 0.3, "val_loss": 1.0, "predict_ms": 2.0}, "epochs": 3})
        study.tell_failed(1, "for a test", "bug")
        study.release()
    return folder


def runs_in(tracking: Tracking, folder: Path) -> dict[str, tuple[str, list[tuple[int, float]]]]:
    """Return status and (epoch, accuracy) of all runs of a sweep by name; each name is there once."""
    found = all_runs_of(tracking, read_file(folder).id)
    said = {one.info.run_name: (one.info.status, history(tracking, one)) for one in found}
    assert len(said) == len(found)
    return said


WHOLE = {
    "trial 0 · search": ("FINISHED", [(1, 0.1), (2, 0.2), (3, 0.3)]),
    "trial 1 · search": ("FAILED", [(1, 0.1), (2, 0.2)]),
    "trial 2 · search": ("KILLED", [(1, 0.1)]),
    "mine": ("KILLED", []),
}


def test_mlflow_is_made_again_from_the_journal_whatever_was_lost(tmp_path: Path, dataset: Dataset, run: Run) -> None:
    """Every epoch is there once: after a run and the parent, the sweep's own file, or the database were lost."""
    folder = make_sweep(tmp_path, "mine", dataset)
    code, out, err = run("tracking", "repair", "mine", "--out", str(tmp_path))
    assert (code, out, err) == (0, "mine: MLflow has 3 trials with 6 epochs.\n", "")
    tracking, known = check_tracking(None, tmp_path), read_file(folder).id
    assert runs_in(tracking, folder) == WHOLE
    client = tracking.client()
    runs = {one.info.run_name: one.info.run_id for one in client.search_runs([tracking.experiment("transfer")])}
    for name in ("mine", "trial 1 · search"):
        client.delete_run(runs[name])
    assert run("tracking", "repair", "mine", "--out", str(tmp_path))[0] == 0
    assert runs_in(tracking, folder) == WHOLE

    (parent,) = [one for one in all_runs_of(tracking, known) if one.info.run_name == "mine"]
    (folder / "sweep.json").unlink()
    client.download_artifacts(parent.info.run_id, "spec.yaml", str(folder))  # its first line has the sweep's id
    assert read_file(folder).id == known
    assert run("tracking", "repair", "mine", "--out", str(tmp_path))[0] == 0
    assert runs_in(tracking, folder) == WHOLE

    other = tmp_path / "other"  # MLflow keeps what it once opened, so a lost database is another one here
    folder.rename(other.mkdir() or other / "mine")
    code, out, _ = run("tracking", "repair", "mine", "--out", str(other), "--json")
    assert (code, json.loads(out)["sweeps"][0]["epochs"]) == (0, 6)
    assert runs_in(check_tracking(None, other), other / "mine") == WHOLE


def test_a_sweep_that_runs_is_neither_repaired_nor_removed(tmp_path: Path, dataset: Dataset, run: Run) -> None:
    """One line that names who runs it, and nothing is written."""
    folder = make_sweep(tmp_path, "mine", dataset)
    with locked(folder):
        before = {path.name for path in folder.iterdir()}
        for words in (["tracking", "repair", "mine"], ["delete", "mine", "--yes"]):
            code, out, err = run(*words, "--out", str(tmp_path))
            assert (code, out, err.count("\n")) == (2, "", 1)
        assert {path.name for path in folder.iterdir()} == before
    assert not (tmp_path / "mlflow.db").exists()


def register(tracking: Tracking, folder: Path, dataset: Dataset, export: Path) -> Registered:
    """Put the sweep's runs into MLflow, and register its best trial."""
    from sweeps.spec.sweep_file import read_spec
    from sweeps.study.records import read_history

    mirror = mirror_of(read_spec(folder), folder, tracking, dataset.summary, print)
    mirror.bring_in_line(read_history(folder).records)
    assert mirror.close("complete")
    model, predictions = TrialModel(tracking, "transfer", read_file(folder).id, 0), folder / "test-predictions.npz"
    return model.register(export, metrics={}, test={}, details={}, predictions=predictions)


def test_a_sweep_goes_with_its_runs_and_models_but_for_those_in_use(
    tmp_path: Path, dataset: Dataset, export: Path, run: Run
) -> None:
    """Folder, runs and versions go; a version that an alias holds stays with the run it came from, and says so."""
    old, new = make_sweep(tmp_path, "old", dataset), make_sweep(tmp_path, "new", dataset)
    tracking = check_tracking(None, tmp_path)
    first, second = register(tracking, old, dataset, export), register(tracking, new, dataset, export)
    client, files = tracking.client(), tmp_path / "artifacts" / "carsweep-transfer"

    code, out, err = run("delete", "old", "--out", str(tmp_path), "--dry-run")
    assert (code, out) == (0, "old would be removed.\n")
    assert "4 runs, 1 model version, 1 uploaded model" in err
    code, _, err = run("delete", "old", "--out", str(tmp_path))
    assert code == 2
    assert "--yes" in err
    assert old.is_dir()
    assert len(runs_in(tracking, old)) == 4

    assert run("delete", "old", "--out", str(tmp_path), "--yes")[0] == 0
    assert not old.exists()
    shown = client.get_experiment(tracking.experiment("transfer")).tags
    assert [name for name in shown if name.startswith("mlflow.sharedViewState.old-")] == []
    assert "`new`" in shown["mlflow.note.content"]
    assert "`old`" not in shown["mlflow.note.content"]
    assert [str(v.version) for v in client.search_model_versions(f"name = '{first.name}'")] == [second.version]
    assert len(list(files.rglob("MLmodel"))) == 1
    assert set(runs_in(tracking, new)) == {"new", *WHOLE} - {"mine"}

    code, out, err = run("delete", "new", "--out", str(tmp_path), "--yes", "--json")
    assert code == 0
    (said,) = json.loads(out)["sweeps"]
    assert said["kept"] == [{"name": second.name, "version": second.version, "aliases": [CHALLENGER]}]
    left = client.search_runs([tracking.experiment("transfer")], run_view_type=ViewType.ACTIVE_ONLY)
    assert [one.info.run_name for one in left] == ["trial 0 · search"]
    assert client.get_model_version_by_alias(second.name, CHALLENGER).source is not None
    assert run("delete", "new", "--out", str(tmp_path), "--yes")[0] == 2
