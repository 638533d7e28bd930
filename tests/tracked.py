"""Small sweeps as MLflow has them, for the tests of tracking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from carcls.outcome import Measurement
from sweeps.tracking.mirror import Mirror
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.store import Tracking, check_tracking
from sweeps.tracking.updates import Update
from sweeps.trial import TrialRecord


def mirror_of(tracking: Tracking, sweep_id: str, warnings: list[str] | None = None) -> Mirror:
    """Return the mirror of a small sweep, which is warned by a line in ``warnings``."""
    sweep = Update(
        sweep_id,
        tags={"mlflow.note.content": "scaled down"},
        params={"data_digest": "abc", "seed": 0},
        files={"spec.yaml": "trials: 3\n"},
    )
    runs = SweepRuns(tracking, family="transfer", sweep_id=sweep_id, name=sweep_id)
    return Mirror(runs, sweep, (warnings if warnings is not None else []).append)


def record(
    number: int, status: Any = "running", *, accuracies: Sequence[float] = (0.25, 0.5), reason: str = ""
) -> TrialRecord:
    """Return what the study knows of a trial, with an accuracy for each epoch, and a metric that is not logged."""
    points = tuple(
        Measurement(epoch, {"val_accuracy": accuracy, "val_loss": 1.0, "val_recall_macro": 0.1, "seconds": 2.0})
        for epoch, accuracy in enumerate(accuracies, start=1)
    )
    return TrialRecord(
        number=number,
        experiment="transfer/frozen" if number == 0 else None,
        settings={"dropout": 0.1 * number},
        config={"epochs": 2, "dropout": 0.1 * number},
        status=status,
        metrics=points[-1].metrics if points else {},
        epochs=len(points),
        seconds=4.0,
        reason=reason,
        history=points,
    )


def all_runs_of(tracking: Tracking, sweep_id: str) -> list[Run]:
    """Return all runs that MLflow has of a sweep, whatever they are."""
    query = f"tags.`carsweep.sweep_id` = '{sweep_id}'"
    found: list[Run] = tracking.client().search_runs([tracking.experiment("transfer")], query, max_results=1000)
    return found


def runs_of(tracking: Tracking, sweep_id: str) -> tuple[Run, dict[int, Run]]:
    """Return the parent run and the child runs by number, and insist that none is there twice."""
    found = all_runs_of(tracking, sweep_id)
    (parent,) = [run for run in found if run.data.tags["carsweep.role"] == "sweep"]
    children = [run for run in found if run.data.tags["carsweep.role"] == "trial"]
    numbers = {int(run.data.tags["carsweep.trial"]): run for run in children}
    assert len(numbers) == len(children)
    return parent, numbers


def history(tracking: Tracking, run: Run, metric: str = "val_accuracy") -> list[tuple[int, float]]:
    """Return (step, value) of every stored point."""
    return [(m.step, m.value) for m in tracking.client().get_metric_history(run.info.run_id, metric)]


def tracked_sweep(folder: Path, trials: int) -> Tracking:
    """Make a database in a folder that has the interrupted trials of a sweep ``s1``; its runs are closed."""
    tracking = check_tracking(None, folder)
    mirror = mirror_of(tracking, "s1")
    for number in range(trials):
        mirror.trial_changed(record(number, accuracies=()))
    assert mirror.close("complete")
    return tracking
