"""What MLflow ought to say of a sweep, made of its records: plain values, and their way to MLflow's own.

carsweep.sweep_id   which sweep; on the parent run, on every child run, on models and versions
carsweep.role       "sweep", "trial", or "refit" of a trial; "surplus" where MLflow made a second run when asked twice
carsweep.trial      the trial's number
carsweep.state      complete, pruned, failed or interrupted, because MLflow knows only FINISHED, KILLED and FAILED
carsweep.reason     why, when there is a reason
carsweep.written    a digest of all that the run says of a trial that has ended
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carcls.errors import mask_secrets
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

SWEEP_ID, ROLE, TRIAL = "carsweep.sweep_id", "carsweep.role", "carsweep.trial"
STATE, REASON, WRITTEN = "carsweep.state", "carsweep.reason", "carsweep.written"
CHALLENGER = "challenger"
# The winner's answers to the test images, in the artifacts of its run, and the tag of a version that says which images
# these were: what promotion compares.
PREDICTIONS, TEST_IMAGES = "test-predictions.npz", "test_images"
# Comparing a hundred runs in MLflow's UI is slow in the number of metric names.
NOT_LOGGED = ("val_precision_macro", "val_recall_macro", "val_recall_at_10", "fit_seconds")
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
INTERRUPTED = "the sweep stopped first; it goes on when the sweep is run again"
_TAG_LENGTH, _PARAM_LENGTH = 4000, 1000
Points = tuple[tuple[int, Mapping[str, float]], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """What a run ought to say.

    Attributes:
        name: shown in MLflow.
        tags, params: text by name; parameters are written only to a run that has none, for they cannot change.
        points: pairs of (step, metrics); writing the same point again changes nothing.
        files: text artifacts by name.
        status: MLflow's RUNNING, FINISHED, KILLED or FAILED; None leaves it.
        seconds: how long ago the run began, for a run that has to be made afterwards.
        mark: a digest of all this, written last; empty for a run that goes on.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    points: Points = ()
    files: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    seconds: float = 0.0
    mark: str = ""


def update_of(record: TrialRecord, parent: str, *, runs_now: bool) -> Update:
    """Return what a trial's run ought to say, but for its epochs.

    Args:
        record: of the trial.
        parent: MLflow's id of the sweep's run.
        runs_now: whether a driver runs the trial; one that it does not run and that has not ended is interrupted.
    """
    state, reason = str(record.status), record.reason
    if state == "running" and not runs_now:
        state, reason = "interrupted", INTERRUPTED
    numbers = {"carsweep.confirms": record.confirms, "carsweep.derived_from": record.derived_from}
    said = {
        STATE: state,
        REASON: reason,
        "carsweep.experiment": record.experiment or "",
        "carsweep.precision": record.precision,
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
    }
    whole = json.dumps([parent, said, record.epochs, _logged(record.metrics)], sort_keys=True)
    return Update(
        record.experiment or f"trial-{record.number:04d}",
        tags={name: text for name, text in said.items() if text or name in (STATE, REASON)},
        params=record.config,
        status="RUNNING" if state == "running" else STATUS.get(state, "KILLED"),
        seconds=record.seconds,
        mark="" if state == "running" else hashlib.blake2s(whole.encode(), digest_size=8).hexdigest(),
    )


def points_of(record: TrialRecord, after: int) -> Points:
    """Return the epochs later than ``after``, and what the end of the trial adds to the last one."""
    epochs = {measurement.epoch: _logged(measurement.metrics) for measurement in record.history}
    last = epochs.get(record.epochs, {})
    added = {name: value for name, value in _logged(record.metrics).items() if last.get(name) != value}
    fresh = [(epoch, metrics) for epoch, metrics in epochs.items() if epoch > after]
    return (*fresh, *([(record.epochs, added)] if added else []))


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in NOT_LOGGED}


def to_mlflow(update: Update, start: int) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """Convert an update to MLflow's words: passwords are masked, what is not finite is left out, the mark is a tag.

    The timestamp is a function of the step: a point that is reported again has the same one, and is stored once.

    Args:
        update: of a run.
        start: of the run, in milliseconds since 1970.
    """
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(name, float(value), start + 1000 * step, step)
        for step, points in update.points
        for name, value in points.items()
        if math.isfinite(value)
    ]
    params = [Param(name, mask_secrets(str(value))[:_PARAM_LENGTH]) for name, value in update.params.items()]
    tags = {**update.tags, **({WRITTEN: update.mark} if update.mark else {})}
    return metrics, params, [RunTag(name, mask_secrets(str(text))[:_TAG_LENGTH]) for name, text in tags.items()]


def model_name(family: str) -> str:
    """Return the name of the registered model that holds a family's winners; also of the experiment with its runs."""
    return f"carsweep-{family}"


def of_sweep(sweep_id: str) -> str:
    """Return the filter by which MLflow finds what it has of a sweep: runs, models and versions."""
    return f"tags.`{SWEEP_ID}` = '{sweep_id}'"
