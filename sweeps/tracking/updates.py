"""What MLflow's runs ought to say, made of the records: plain values, and their way to MLflow's own.

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
    from mlflow.entities import Metric, Param

STATE, REASON, WRITTEN = "carsweep.state", "carsweep.reason", "carsweep.written"
_TAG_LENGTH, _PARAM_LENGTH = 4000, 1000
Points = tuple[tuple[int, Mapping[str, float]], ...]

# Few on purpose: comparing a hundred runs in MLflow's UI is slow in the number of metric names.
LOGGED_METRICS = (
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_top5",
    "val_precision",
    "val_recall",
    "val_f1",
    "val_f1_macro",
    "val_classifier_accuracy",
    "val_recall_at_1",
    "val_recall_at_5",
    "val_map_at_r",
    "val_r_precision",
    "predict_seconds",
    "ms_per_query",
    "predict_ms",
    "parameters",
    "seconds",
)
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
INTERRUPTED = "the sweep stopped first; it goes on when the sweep is run again"


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
    numbers = {"carsweep.confirms": record.confirms, "carsweep.sibling_of": record.sibling_of}
    said = {
        STATE: state,
        REASON: reason,
        "carsweep.experiment": record.experiment or "",
        "carsweep.precision": record.precision,
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
    }
    return Update(
        record.experiment or f"trial-{record.number:04d}",
        tags={name: text for name, text in said.items() if text or name in (STATE, REASON)},
        params=record.config,
        status="RUNNING" if state == "running" else STATUS.get(state, "KILLED"),
        seconds=record.seconds,
        mark="" if state == "running" else _mark([parent, said, record.epochs, _logged(record.metrics)]),
    )


def _mark(said: list[Any]) -> str:
    """Return a digest of all that a run says of a trial that nothing runs, by which one in line is known."""
    return hashlib.blake2s(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def points_of(record: TrialRecord, after: int) -> Points:
    """Return the epochs later than ``after``, and what the end of the trial adds to the last one."""
    told = {measurement.epoch: _logged(measurement.metrics) for measurement in record.history}
    last = told.get(record.epochs, {})
    added = {name: value for name, value in _logged(record.metrics).items() if last.get(name) != value}
    fresh = [(epoch, metrics) for epoch, metrics in told.items() if epoch > after]
    return (*fresh, *([(record.epochs, added)] if added else []))


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in LOGGED_METRICS if name in metrics}


def as_metrics(points: Points, start: int) -> list[Metric]:
    """Convert points to MLflow's metrics, leaving out what is not finite.

    The timestamp is a function of the step: a point that is reported again has the same one, and is stored once.
    """
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), start + 1000 * step, step)
        for step, metrics in points
        for name, value in metrics.items()
        if math.isfinite(value)
    ]


def as_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as MLflow takes them, with passwords masked."""
    return {name: mask_secrets(str(value))[:_TAG_LENGTH] for name, value in tags.items()}


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Convert settings to MLflow's parameters, with passwords masked."""
    from mlflow.entities import Param

    return [Param(name, mask_secrets(str(value))[:_PARAM_LENGTH]) for name, value in params.items()]
