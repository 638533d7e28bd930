"""Sweeps from Python: what is imported, what a sweep looks like as frames, and how mistakes are answered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import asked_of

from carcls.errors import InputError, SpecError
from carcls.outcome import Measurement
from sweeps import Sweep, load_sweep, run_all, run_sweep
from sweeps.run.command import Command, specs_of_all
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import write_file
from sweeps.study.study import Study

HEAVY = {"torch", "ray", "mlflow", "optuna", "pandas", "rich"}


def loaded_by(statement: str) -> set[str]:
    """Return the top names of what a statement imports in a fresh interpreter, beyond what that has anyway."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_imports_nothing_else() -> None:
    """`import sweeps` costs nothing; what it has is loaded when it is asked for."""
    assert loaded_by("import sweeps") == {"sweeps"}


def test_importing_run_sweep_loads_nothing_heavy() -> None:
    """A mistake in a notebook is answered before PyTorch, Ray and MLflow load."""
    assert not loaded_by("from sweeps import run_all, run_sweep, load_sweep") & HEAVY - {"rich"}


def test_what_is_not_there_is_no_attribute() -> None:
    """A misspelt name is Python's own mistake."""
    with pytest.raises(ImportError, match="run_sweeps"):
        from sweeps import run_sweeps  # type: ignore[attr-defined] # noqa: F401


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep of four trials without images: one documented, two searched, one that failed."""
    search = {"head_lr": [0.001, 0.002], "unfreezing": ["full"], "backbone_lr": {"low": 1e-4, "high": 1e-3}}
    given = {"trials": 4, "epochs": 2, "experiments": ["transfer/frozen"], "search": search}
    spec = load_spec("transfer", overrides={**given, "early_stopping": {"enabled": False}, "name": "mine"})
    folder = tmp_path / "mine"
    write_file(folder, "sweep", None, [spec])
    with Study.open(folder, spec) as study:
        for asked in asked_of(study):
            scores = [0.25 + asked.number / 10, 0.5 + asked.number / 10]
            for epoch, score in enumerate(scores, 1):
                study.report(asked.number, Measurement(epoch, {"val_accuracy": score, "seconds": 3.0}))
            if asked.number == 3:
                study.tell_failed(asked.number, "<b>broken</b>", "bug")
            else:
                metrics = {"val_accuracy": scores[-1], "parameters": 3_404_314.0}
                study.tell_complete(asked.number, {"metrics": metrics, "epochs": 2, "model": "m", "seconds": 7.0})
    return load_sweep("mine", out=tmp_path)


def test_frame_has_a_row_for_each_trial_and_typed_columns(sweep: Sweep) -> None:
    """Best first, by number; numbers are numbers, and what cannot matter in a trial is missing there."""
    frame = sweep.frame()
    assert [*frame.index] == [2, 1, 0, 3]
    assert [*frame["rank"].dropna()] == [1, 2, 3]
    assert [*frame["status"]] == ["complete", "complete", "complete", "failed"]
    assert frame.loc[[0, 1, 2], "val_accuracy"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert frame.loc[3, "reason"] == "<b>broken</b>"
    assert set(frame["head_lr"]) == {trial.config["head_lr"] for trial in sweep.facts.board.trials}
    assert pd.isna(frame.loc[0, "backbone_lr"])  # the backbone of the documented one is frozen
    assert frame.loc[1, "backbone_lr"] > 0
    assert (frame["val_accuracy"].dtype, frame["head_lr"].dtype) == (np.float64, np.float64)
    assert {str(frame[name].dtype) for name in ("rank", "epochs_done", "derived_from", "confirms")} == {"Int64"}
    assert str(frame["unfreezing"].dtype) == "string"


def test_epochs_are_the_learning_curves(sweep: Sweep) -> None:
    """A row for each epoch of each trial, those that failed too."""
    epochs = sweep.epochs()
    assert len(epochs) == 8
    curves = epochs.pivot(index="epoch", columns="number", values="val_accuracy")
    assert curves[1].tolist() == pytest.approx([0.35, 0.6])


def test_sweep_shows_its_leaderboard(sweep: Sweep) -> None:
    """Its text and its HTML say what it is, its best trial and its rows."""
    assert (sweep.name, sweep.result, sweep.best and sweep.best.number) == ("mine", None, 2)
    assert repr(sweep).startswith("mine (transfer): unfinished\n  4 of 4 trials ended (3 complete, 1 failed)\n")
    assert "transfer/frozen" in repr(sweep)
    html = sweep._repr_html_()
    assert html.startswith("<pre>mine (transfer): unfinished")
    assert html.count("<tr") == 1 + len(sweep.facts.board.shown)


def test_figures_and_report_are_drawn(sweep: Sweep, tmp_path: Path) -> None:
    """A figure is an SVG that a notebook shows; the report goes into the sweep's folder, or where it is asked for."""
    curves = sweep.figures["curves"]
    assert curves._repr_svg_().startswith("<svg")
    assert repr(curves) == "SweepFigure(title='Learning curves')"
    assert sweep.report() == tmp_path / "mine" / "report.html"
    page = sweep.report(tmp_path / "page.html")
    assert "<b>broken</b>" not in page.read_text()


def test_sweep_without_a_model_says_so(sweep: Sweep) -> None:
    """There is no model before a winner is registered."""
    with pytest.raises(InputError, match="must have a registered model, got 'mine', which is unfinished"):
        sweep.model()


def test_unknown_sweep_and_job_are_answered(sweep: Sweep, tmp_path: Path) -> None:
    """An unknown name is refused; a job's name tells those of its sweeps."""
    with pytest.raises(InputError, match=r"must be of a sweep in .*, got 'mien'. Did you mean mine?"):
        load_sweep("mien", out=tmp_path)
    write_file(tmp_path / "job", "all", None, [sweep.facts.spec])
    (tmp_path / "mine").rename(tmp_path / "job-transfer")
    with pytest.raises(InputError, match=r"got 'job', a job of several: 'job-transfer'. Load these one by one"):
        load_sweep("job", out=tmp_path)


def test_a_path_is_no_name(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it leads there from the folder of runs or from here, what to give in its place is told."""
    told = f"Give mine with --out {tmp_path}."
    inside = tmp_path / "runs"
    inside.mkdir()
    monkeypatch.chdir(tmp_path)
    for name, out in [("../mine", inside), (str(sweep.facts.folder), tmp_path), ("mine", inside), ("./mine/", "runs")]:
        with pytest.raises(InputError) as error:
            load_sweep(name, out=out)
        assert str(error.value) == f"NAME must be no path, got {name!r}. {told}"
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(InputError, match=re.escape(told)):
        load_sweep(".", out="runs")


def test_settings_of_a_job_reach_the_families_that_they_mean_something_in(tmp_path: Path) -> None:
    """As ``carsweep run all`` has it, also inside a search; a mistake of one family is told before anything starts."""
    search = {"k": [1, 3], "width": [8, 16], "head_lr": {"low": 1e-3, "high": 1e-2}, "backbone_lr": None}
    given = {"search": search, "backbone": "efficientnet_lite0", "data": str(tmp_path), "epochs": 3}
    specs = {spec.family: spec for spec in specs_of_all(name="job", sets=(), overrides=given, trials=None)}
    assert {family: [name for name in search if name in spec.search] for family, spec in specs.items()} == {
        "transfer": ["head_lr"],
        "retrieval": ["k", "head_lr"],
        "scratch": ["width", "head_lr"],
    }
    assert [spec.fixed.get("backbone") for spec in specs.values()] == ["efficientnet_lite0", "efficientnet_lite0", None]
    for words, mistake in [({"trials": 1}, "--trials: must be at least"), ({"epoch": 3}, "Did you mean epochs?")]:
        with pytest.raises(SpecError, match=re.escape(mistake)):
            run_all(**words, out=tmp_path / "runs")  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    """Misspelt and wrong keywords are told at once, as on the command line, and nothing is made."""
    with pytest.raises(SpecError) as error:
        run_sweep("transfer", out=tmp_path / "runs", trials=0, trails=3, dropuot=0.1, epochs=2.5, search={"k": [1]})
    said = "\n".join(error.value.mistakes)
    assert len(error.value.mistakes) >= 5
    for part in ("trials: must be", "Did you mean trials?", "Did you mean dropout?", "epochs", "k: must be left out"):
        assert part in said
    assert not (tmp_path / "runs").exists()


def test_mistakes_of_other_arguments_are_told_before_anything_starts(tmp_path: Path) -> None:
    """A family, images and an address that cannot be are refused in a sentence."""
    for words, reason in [
        ({"family": "transfre"}, "family: must be a known one, got 'transfre'. Did you mean transfer?"),
        ({"family": None}, "family must be text, got None."),
        ({"family": "transfer", "notify": 3}, "notify must be text, got 3."),
        ({"family": "transfer", "data": tmp_path / "nowhere"}, "nowhere"),
        ({"family": "transfer", "notify": "ftp://x"}, "--notify must be an address"),
    ]:
        with pytest.raises(InputError, match=reason):
            run_sweep(**words, out=tmp_path / "runs", quiet=True)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_numpy_values_paths_and_tuples_are_plain_values(tmp_path: Path) -> None:
    """What a notebook has at hand is taken for what it means: the mistake is that the folder is missing."""
    search = {"dropout": (0.1, np.float32(0.5)), "batch_size": np.array([8, 16])}
    with pytest.raises(InputError, match="nowhere"):
        run_sweep("transfer", data=tmp_path / "nowhere", trials=np.int64(3), search=search, out=tmp_path)


def test_a_set_of_choices_is_the_same_search_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a set of words changes with each Python; the sweep that goes on must be the one that was begun."""
    seen: list[Command] = []
    monkeypatch.setattr("sweeps.api._run", lambda command, _quiet: seen.append(command))
    for choices in ({"step", "cosine", "onecycle"}, ["cosine", "onecycle", "step"]):
        with pytest.raises(InputError):  # nothing was run, so there is nothing to load
            run_sweep("transfer", name="mine", search={"lr_schedule": choices}, out=tmp_path)
    assert seen[0].specs == seen[1].specs
