"""What a sweep leaves in MLflow for its pages: once, whatever is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracked import mirrored_sweep

from sweeps.run.tracked import page_of
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import read_file, write_file
from sweeps.tracking.store import check_tracking
from sweeps.tracking.views import view_of


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep whose mirror was closed twice."""
    out = tmp_path_factory.mktemp("runs")
    mirrored_sweep(out, "transfer", "mine", 4)
    mirrored_sweep(out, "transfer", "mine", 4)
    return out


def test_a_sweep_has_its_images_its_code_and_its_packages_once(out: Path) -> None:
    """The parent's input has the digest of the images; its artifacts are spec and packages."""
    client = check_tracking(None, out).client()
    (parent,) = client.search_runs(["1"], "tags.`carsweep.role` = 'sweep'")
    (used,) = parent.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("pictures", "0123456789abcdef")
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"spec.yaml", "packages.txt"}
    assert "wins" in parent.data.tags["mlflow.note.content"].splitlines()[0]
    assert len(parent.data.tags["carsweep.lock"]) == 16


def test_the_experiment_is_of_models_and_says_what_came_of_its_sweeps(out: Path) -> None:
    """Its kind, a headline and a view of the sweep; the address opens the view, and asking for it changes nothing."""
    client, known = check_tracking(None, out).client(), read_file(out / "mine").id
    tags = client.get_experiment("1").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"].startswith("**`mine`**: complete, best ")
    address = page_of(out, "mine", None)
    assert address == f"#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey={known}"
    assert client.get_experiment("1").tags == tags


def test_a_job_is_found_by_its_id_alone(tmp_path: Path) -> None:
    """Its view has the trials of its sweeps, also of those that ran before it, and of none whose name begins alike."""
    specs = [load_spec(family, demo=True) for family in ("transfer", "retrieval")]
    mirrored_sweep(tmp_path, "transfer", "demo-transfer", 2)
    write_file(tmp_path / "demo", "all", None, specs)
    for family, name in (("transfer", "demo-transfer"), ("retrieval", "demo-retrieval"), ("transfer", "demo-other")):
        mirrored_sweep(tmp_path, family, name, 2)
    client = check_tracking(None, tmp_path).client()
    query = view_of(specs, "demo", read_file(tmp_path / "demo").id, is_job=True).query
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], query)
    names = sorted(run.data.tags["carsweep.sweep_id"].rpartition("-")[0] for run in found)
    assert names == ["demo-retrieval"] * 2 + ["demo-transfer"] * 2


def test_a_sweep_without_a_saved_view_is_listed_with_the_address_of_its_runs(out: Path) -> None:
    """One that an older version ran: a key that nobody saved would open an error."""
    client, known = check_tracking(None, out).client(), read_file(out / "mine").id
    client.delete_experiment_tag("1", f"mlflow.sharedViewState.{known}")
    mirrored_sweep(out, "transfer", "other", 1)
    note = client.get_experiment("1").tags["mlflow.note.content"]
    assert f"[`other`](#/experiments/1/runs?viewStateShareKey={read_file(out / 'other').id})" in note
    assert f"[`mine`](#/experiments/1/runs?searchFilter=tags.%60carsweep.sweep_id%60%20%3D%20%27{known}%27)" in note


def test_a_store_that_refuses_what_its_pages_show_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An MLflow with room for less in a tag has all runs, and the sweep is told once."""
    monkeypatch.setattr("mlflow.utils.validation.MAX_EXPERIMENT_TAG_VAL_LENGTH", 100)
    mirrored_sweep(tmp_path, "transfer", "mine", 2)
    client = check_tracking(None, tmp_path).client()
    assert {run.info.status for run in client.search_runs(["1"])} == {"FINISHED"}
    assert capsys.readouterr().out.count("MLflow refused what was logged of the sweep") == 1


def test_pages_of_another_version_are_asked_in_the_address(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether they read the view; filter and order are in the address."""
    monkeypatch.setattr("sweeps.tracking.compat.version", lambda _: "4.0.0")
    assert "viewStateShareKey" not in page_of(out, "mine", None)
    assert "orderByKey=metrics.%60val_accuracy%60" in page_of(out, "mine", None)


def test_the_dashboard_is_asked_for_one_sweep_that_has_begun(out: Path, run: Any, monkeypatch: Any) -> None:
    """What is missing is told in a line with its remedy."""
    code, _, err = run("ui", "mine", "--optuna", "--out", str(out))
    assert (code, err.count("\n"), "it has no trials yet" in err) == (2, 1, True)
    monkeypatch.setattr("sweeps.cli.ui.find_spec", lambda _: None)
    code, _, err = run("ui", "mine", "--optuna", "--out", str(out))
    assert (code, "pip install optuna-dashboard" in err) == (2, True)
