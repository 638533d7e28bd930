"""A trial as its sweep remembers it: plain values, no optuna, so that tables and trackers need none.

The journal makes records, everything else reads them; ``to_json`` and ``record_from_json`` are their way to
``result.json`` and ``--json`` (docs/json.md), and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from carcls.config import TrialConfig
from carcls.outcome import Measurement

Status = Literal["running", "complete", "pruned", "failed"]
# The metric that trials are stopped early by, and that every measurement has.
OBJECTIVE = "val_accuracy"
# Attributes of a record that both the line of a trial's end and ``result.json`` have, and what else each of them has.
_IN_BOTH = ("status", "metrics", "epochs", "seconds", "reason", "failure")
_IN_JOURNAL = (*_IN_BOTH, "reused", "model", "predictions", "late_stages", "precision")
_IN_JSON = ("number", "experiment", *_IN_BOTH, "confirms")


@dataclass(frozen=True, slots=True)
class Spent:
    """What trials took, over all sessions of their sweep.

    Attributes:
        seconds: wall time in their processes.
        epochs: really trained; what came from the store or from a checkpoint is free.
        cpu_seconds, gpu_seconds: wall time times the trial's share.
        wall: for how many seconds the sweep itself had run, in all its sessions, when this was read from the clock.
    """

    seconds: float = 0.0
    epochs: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    wall: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """Add what other trials of the sweep took; its own time is the later one."""
        return Spent(
            self.seconds + other.seconds,
            self.epochs + other.epochs,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            max(self.wall, other.wall),
        )

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values, to a thousandth of a second; ``Spent(**values)`` reads them back."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


NOTHING = Spent()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A trial that was drawn and not run, since another one answers it.

    Attributes:
        number: its own, of which there is no record.
        near: whether the two are not quite equal (see ``near`` in a spec); False for equal ones.
        settings: the values that were drawn.
    """

    number: int
    near: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as the journal knows it.

    Attributes:
        number: from 0, in the order of asking; unique in a sweep, perhaps with gaps.
        experiment: name of the documented experiment, or None.
        settings: values of the searched settings.
        config: every setting of the trial.
        status: ``running`` also means unfinished, when no driver is at work.
        metrics: the last measurement; finite values only.
        epochs: epochs finished.
        seconds: wall time of the trial in its process; of the last attempt when there were several. As long as it has
            not told any, as in ``spent``.
        reason: why it failed, was stopped or was not run; empty otherwise.
        reused: whether the result was answered from the stage store.
        model, predictions: paths relative to the stage store, as in ``Outcome``; empty unless complete.
        derived_from: number of the trial whose network answered this one, a derived trial, too; None for any other.
        confirms: number of the trial whose settings it repeats with a fresh seed; None for a trial of the search.
        failure: kind of the failure (see sweeps.failures); empty for a trial that did not fail, and in old journals.
        late_stages: as ``Measurement.stages``, of the stages that it used after its last measurement; ask ``stages``.
        duplicates: trials that took over this one's result; told by lists of all trials, not of a single one.
        precision: of the backbone's arithmetic, as in ``Outcome``; empty unless complete, and in old journals.
        history: its measurements, each epoch once, in order; none in old journals.
        spent: what it took, by the driver's clock, over all attempts and sessions.
        began: when it was handed out last, in seconds since 1970; 0 where that is not known.
        worker: the process that ran it last: machine, GPUs and process id, such as ``node1 GPU 0 pid 4711``; empty
            where that is not known.
    """

    number: int
    experiment: str | None
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    status: Status
    metrics: Mapping[str, float]
    epochs: int
    seconds: float
    reason: str = ""
    reused: bool = False
    model: str = ""
    predictions: str = ""
    derived_from: int | None = None
    confirms: int | None = None
    failure: str = ""
    late_stages: Mapping[str, float | None] = field(default_factory=dict)
    duplicates: Sequence[Duplicate] = ()
    precision: str = ""
    history: Sequence[Measurement] = ()
    spent: Spent = NOTHING
    began: float = 0.0
    worker: str = ""

    @property
    def name(self) -> str:
        """What people call it: its documented experiment, the search, or the trial that it confirms."""
        if self.confirms is not None:
            return f"confirms trial {self.confirms}"
        by = "" if self.derived_from is None else f", by trial {self.derived_from}"
        return self.experiment or f"search{by}"

    @property
    def trial_config(self) -> TrialConfig:
        """Its settings, checked."""
        return TrialConfig.model_validate(dict(self.config))

    @property
    def refused(self) -> bool:
        """Whether it was not run, since what is known of it before breaks a constraint; then it is ``pruned``."""
        return self.status == "pruned" and not self.epochs

    @property
    def network(self) -> int:
        """Number of the trial that made its network: its own, or the one that answered it on its way."""
        return self.number if self.derived_from is None else self.derived_from

    def measured(self, metric: str) -> float | None:
        """Return a metric, or None where it was never measured."""
        value = self.metrics.get(metric, math.nan)
        return float(value) if math.isfinite(value) else None

    @property
    def stages(self) -> dict[str, float | None]:
        """The cached stages that it used, by name, as in ``Measurement.stages``; read from the journal each time."""
        found: dict[str, float | None] = {}
        for said in (*(measurement.stages for measurement in self.history), self.late_stages):
            found = {**said, **found}  # what it made and found again later, in another attempt, it made
        return found

    @property
    def saved(self) -> float:
        """Seconds that the stages took to make which it found made."""
        return sum(seconds for seconds in self.stages.values() if seconds)


def stage_use(records: Iterable[TrialRecord]) -> dict[str, Any]:
    """Return ``stage_hits``, how often trials found a cached stage made, and ``saved_seconds`` that its making took."""
    found = [seconds for record in records for seconds in record.stages.values() if seconds is not None]
    return {"stage_hits": len(found), "saved_seconds": round(sum(found), 3)}


def what_is_broken(metrics: Mapping[str, float]) -> str:
    """Return what is wrong with a measurement, or nothing."""
    if OBJECTIVE not in metrics:
        return f"{OBJECTIVE} was not measured"
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    return f"{' and '.join(broken)} became NaN or infinite" if broken else ""


def whole_outcome(status: Status, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a journal notes of a trial's end; of its metrics those that are numbers."""
    metrics = {name: float(value) for name, value in outcome.get("metrics", {}).items() if math.isfinite(value)}
    return {"epochs": 0, "seconds": 0.0, "reason": "", **outcome, "metrics": metrics, "status": status}


def record_from_notes(number: int, noted: Mapping[str, Any], history: Sequence[Measurement]) -> TrialRecord:
    """Return what a journal tells of a trial.

    Args:
        number: of the trial.
        noted: ``asked``, what it was to be; ``outcome``, once it has ended; ``retry``, what it is given
            after it failed; ``processes``, in which it trains by the GPUs that it has; ``spent``, ``began`` and
            ``worker``; ``late_stages`` that came with no new epoch.
        history: its measurements.
    """
    asked, outcome = noted["asked"], noted.get("outcome") or {}
    given = {"micro_batch": noted.get("retry", {}).get("micro_batch"), "processes": noted.get("processes")}
    spent = _spent(noted)
    last = history[-1] if history and not outcome else Measurement(0, {})
    now: dict[str, Any] = {"status": "running", "metrics": last.metrics, "epochs": last.epoch, "seconds": 0.0}
    now |= {"late_stages": noted.get("late_stages", {})}
    now |= {name: outcome[name] for name in _IN_JOURNAL if name in outcome}
    now |= {"reason": ""} if "sibling_of" in asked else {}
    return TrialRecord(
        number=number,
        experiment=asked["experiment"],
        settings=asked["settings"],
        config={**asked["config"], **{name: value for name, value in given.items() if value}},
        derived_from=asked.get("sibling_of"),
        confirms=asked.get("confirms"),
        history=history,
        spent=spent,
        began=noted.get("began", 0.0),
        worker=noted.get("worker", ""),
        **{**now, "seconds": now["seconds"] or spent.seconds},
    )


def _spent(noted: Mapping[str, Any]) -> Spent:
    """Return what a trial took; the oldest journals have no more of it than what its last attempt said."""
    asked, outcome = noted["asked"], noted.get("outcome") or {}
    if "spent" in noted:
        return Spent(**noted["spent"])
    if "sibling_of" in asked or "duplicate_of" in asked:
        return NOTHING
    return Spent(outcome.get("seconds", 0.0), 0 if outcome.get("reused") else outcome.get("epochs", 0))


def to_json(record: TrialRecord) -> dict[str, Any]:
    """Return what ``result.json`` tells of a trial; numbers that JSON has no word for are still in it."""
    own = {name: getattr(record, name) for name in _IN_JSON} | {"metrics": dict(record.metrics)}
    own |= {"seconds": round(record.seconds, 3)}
    duplicates = [asdict(one) for one in record.duplicates]
    old = {"sibling_of": record.derived_from, "twins": duplicates}  # keys of version 0.1, beside those in their place
    return own | {"params": dict(record.config), "derived_from": record.derived_from, "duplicates": duplicates, **old}


def record_from_json(value: Mapping[str, Any]) -> TrialRecord:
    """Return what an object of ``to_json`` tells, also one of an older version, which had fewer keys.

    Metrics that are null are NaN. What only the journal knows (``settings``, ``history``, ``spent``, names of stages)
    is empty.
    """
    read = {name: value[name] for name in _IN_JSON if name in value}
    read["metrics"] = {name: math.nan if number is None else number for name, number in value["metrics"].items()}
    read["derived_from"] = value.get("derived_from", value.get("sibling_of"))
    read["duplicates"] = tuple(Duplicate(**one) for one in value.get("duplicates", value.get("twins", ())))
    return TrialRecord(settings={}, config=value["params"], **read)
