"""What MLflow ought to say of a sweep, made of its records: plain values, and their way to MLflow's own."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carcls.errors import mask_secrets
from sweeps.tracking.names import BEST_DERIVED, JOB, NOTE, REASON, STATE, WRITTEN
from sweeps.tracking.words import best_derived, trial_text
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

# Of the validation and the test images: accuracy and time of an answer under other names, what hardly differs from
# ``f1``, and what few ask for. Comparing a hundred runs on MLflow's pages is slow in the number of metrics.
_OTHER_NAMES = ("precision", "precision_macro", "recall", "recall_macro", "recall_at_10", "f1_macro")
_NOT_LOGGED = {
    f"{of}{name}" for of in ("", "val_", "test_") for name in (*_OTHER_NAMES, "fit_seconds", "predict_seconds")
}
STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
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
        began: when it began, in seconds since 1970, for a run that has to be made afterwards; 0 is now.
        seconds: how long it took, once it has ended; 0 where only MLflow knows.
        mark: a digest of all this, written last; empty for a run that goes on.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    points: Points = ()
    files: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    began: float = 0.0
    seconds: float = 0.0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Ways:
    """By what the trials of a sweep differ, and of which job they are.

    Attributes:
        base: every setting of a trial that changes nothing.
        searched: names of the settings that are searched.
        job: id of the job that the sweep is of; empty where it is of none.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    searched: Sequence[str] = ()
    job: str = ""

    def params(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that tell a trial from others: the searched ones, and what it does differently."""
        own = (name for name, value in config.items() if name in self.searched or value != self.base.get(name, config))
        return {name: _short(config[name]) for name in own}


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def update_of(
    record: TrialRecord, parent: str, ways: Ways, *, runs_now: bool, derived: Sequence[TrialRecord] = ()
) -> Update:
    """Return what a trial's run ought to say, but for its epochs.

    Args:
        record: of the trial.
        parent: MLflow's id of the sweep's run.
        ways: of the sweep.
        runs_now: whether a driver runs the trial; one that it does not run and that has not ended is interrupted.
        derived: trials that its network answered, too.
    """
    state, reason = str(record.status), record.reason
    if state == "running" and not runs_now:
        state, reason = "interrupted", INTERRUPTED
    numbers = {"carsweep.confirms": record.confirms, "carsweep.derived_from": record.derived_from}
    said = {
        STATE: state,
        REASON: reason,
        JOB: ways.job,
        "carsweep.experiment": record.experiment or "",
        "carsweep.precision": record.precision,
        BEST_DERIVED: best_derived(record, derived),
        NOTE: trial_text(record, state, reason, ways.base, derived),
        **{name: "" if number is None else str(number) for name, number in numbers.items()},
    }
    name = f"trial {record.number} · {record.name}"
    whole = json.dumps([parent, name, said, record.epochs, logged(record.metrics)], sort_keys=True)
    return Update(
        name,
        tags={name: text for name, text in said.items() if text or name in (STATE, REASON)},
        params=ways.params(record.config),
        status="RUNNING" if state == "running" else STATUS.get(state, "KILLED"),
        began=record.began or time.time() - record.seconds,
        seconds=record.seconds,
        mark="" if state == "running" else hashlib.blake2s(whole.encode(), digest_size=8).hexdigest(),
    )


def points_of(record: TrialRecord, after: int) -> Points:
    """Return the epochs later than ``after``, and what the end of the trial adds to the last one."""
    epochs = {measurement.epoch: logged(measurement.metrics) for measurement in record.history}
    last = epochs.get(record.epochs, {})
    added = {name: value for name, value in logged(record.metrics).items() if last.get(name) != value}
    fresh = [(epoch, metrics) for epoch, metrics in epochs.items() if epoch > after]
    return (*fresh, *([(record.epochs, added)] if added else []))


def logged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what is logged of metrics of the validation or the test images."""
    return {name: value for name, value in metrics.items() if name not in _NOT_LOGGED}


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
