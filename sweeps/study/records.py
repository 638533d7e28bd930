"""What the journal of a study tells: its trials as records, and what was noted of the study itself.

A journal has a line for each trial that was asked, for each of its epochs and for its end. What can be computed of them
is in no line: the records of derived trials, which stand as a list in the end of the trial that answered them (older
versions wrote each down as a trial of its own), what became of a trial that another one answers, and who is stopped
early: a driver that dies between a measurement and its verdict changes nothing, for the next one comes to the same.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import SCRATCH
from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.interrupts import uninterrupted
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.study.journal import JOURNAL, EpochHistory, Journal, measurement_in
from sweeps.trial import OBJECTIVE, Duplicate, Spent, TrialRecord, record_from_notes

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# In older versions, the line of a trial that began; its driver may have died before it said what was asked.
_BEGAN = 4
# What is free of the budget of trials.
_FREE = ("duplicate_of", "sibling_of", "confirms", "refused")


@dataclass(slots=True)
class _Lines:
    """What the lines of one trial say.

    Attributes:
        noted: ``asked``, ``outcome``, ``spent`` and others, as in ``record_from_notes``.
        accuracies: by epoch.
        places: where the lines of the epochs begin, in bytes.
    """

    noted: dict[str, Any]
    accuracies: dict[int, float] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        """What decides how fast it starts: its unfreezing schedule; None for what is trained from scratch."""
        config = self.noted["asked"]["config"]
        from_scratch = config["family"] == "scratch" or config["backbone"] == SCRATCH
        return None if from_scratch else str(config["unfreezing"])

    @property
    def is_compared(self) -> bool:
        """Whether others are stopped by it: not a failed one, which came to nothing, nor a confirming run."""
        failed = (self.noted.get("outcome") or {}).get("status") == "failed"
        return not failed and "confirms" not in self.noted["asked"]


class History:
    """All trials of one journal; one driver may write to it, anybody may read, also while it writes.

    Args:
        folder: of the sweep; without a journal it has no trials.
        goals: of the sweep; what limits refused that have been loosened since may be asked again.

    Attributes:
        journal: the file.
        noted: what was noted of the study itself.
        next_number: of the next trial, derived ones included.
        counted: trials that the budget counts.
        confirming: runs that repeat others with fresh seeds.
        unfinished: numbers of trials that have not ended, those that run among them.
        begun: names of documented experiments and starts that were asked.
        digests: by digest, the trial that answers it: the first that was asked for it.
        spending: tells by number what a trial has taken so far, or None; its lines then say so.

    Raises:
        InputError: the journal is damaged.
    """

    def __init__(self, folder: Path, goals: Goals = ACCURACY_ALONE) -> None:
        self.journal = Journal(folder / JOURNAL)
        self.spending: Callable[[int], Spent | None] = lambda _: None
        self.noted: dict[str, Any] = {}
        self.next_number = self.counted = self.confirming = 0
        self.unfinished: set[int] = set()
        self.begun: set[str] = set()
        self.digests: dict[str, int] = {}
        self._goals, self._older_spending = goals, read_older_spending(folder)
        self._lines: list[_Lines] = []  # by the trial's id in the journal
        self._ids: dict[int, int] = {}  # by number; of trials that have a result of their own
        self._ended: dict[int, TrialRecord] = {}
        self._duplicates: defaultdict[int, list[Duplicate]] = defaultdict(list)
        self._catch_up()

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Every trial that has a result of its own, with its duplicates, in the order of their numbers."""
        return tuple(self.record(number) for number in sorted(self._ids.keys() | self._ended.keys()))

    def record(self, number: int) -> TrialRecord:
        """Return what is known of one trial that has a result of its own."""
        record = self._ended.get(number)
        if record is None:
            lines = self._lines[self._ids[number]]
            record = record_from_notes(number, lines.noted, EpochHistory(self.journal.path, tuple(lines.places)))
            if record.status != "running":
                self._ended[number] = record
        return replace(record, duplicates=tuple(self._duplicates[number])) if number in self._duplicates else record

    def notes(self, number: int) -> Mapping[str, Any]:
        """Return what was noted of one of the trials that have lines of their own."""
        return self._lines[self._ids[number]].noted

    @property
    def edits(self) -> tuple[Mapping[str, Any], ...]:
        """Changes of the spec, oldest first: ``at`` (ISO time), ``changes`` (texts), ``after`` (trials asked)."""
        return tuple(self.noted.get("edits", ()))

    @property
    def spec(self) -> str:
        """Digest of the spec by which trials were asked last; empty before the first."""
        return str(self.noted.get("spec", ""))

    def is_beaten(self, number: int, epoch: int, stopping: EarlyStopping) -> bool:
        """Tell whether a trial should stop after ``epoch``, from 1, which it has reported.

        By asynchronous successive halving: at a rung it goes on when it is among the best one in ``reduction`` of all
        that have come so far, itself included, and the best always does (Li et al., A System for Massively Parallel
        Hyperparameter Tuning, 2020). One thing is ours: in the first part of a training a trial is compared with its
        own kind only. A head on frozen features leads for some epochs whatever comes later, and would stop whatever is
        opened. What that is worth is measured in benchmarks/early_stopping.md.
        """
        own = self._lines[self._ids[number]]
        asked = own.noted["asked"]
        epochs, is_searched = asked["config"]["epochs"], asked["experiment"] is None and "confirms" not in asked
        # Where it has come further already it was allowed to, and is not judged again.
        if not is_searched or epoch not in stopping.rungs(epochs) or max(own.accuracies) > epoch:
            return False
        any_kind, others = epoch >= stopping.within_kind * epochs, (self._lines[place] for place in self._ids.values())
        came = [one for one in others if epoch in one.accuracies and one.is_compared]
        values = sorted((one.accuracies[epoch] for one in came if any_kind or one.kind == own.kind), reverse=True)
        return own.accuracies[epoch] < values[max(1, len(values) // stopping.reduction) - 1]

    def write(self, log: Mapping[str, Any], number: int | None = None) -> None:
        """Write a line, of the study or of a trial that has lines already, and take it in."""
        of = {"study_id": 0} if number is None else {"trial_id": self._ids[number]}
        spent = None if number is None else self.spending(number)
        with uninterrupted():  # a line that is written and not read would spoil the sum of the next one
            self.journal.append({**of, **log} if spent is None else {**of, **log, "spent": spent.as_dict()})
            self._catch_up()

    def note(self, number: int | None, **attributes: Any) -> None:
        """Write attributes of a trial down, or of the study."""
        self.write({"user_attr": attributes}, number)

    def report(self, number: int, measurement: Measurement) -> None:
        """Write an epoch down; of one that is there already only the stages that it names."""
        stages = dict(measurement.stages)
        if measurement.epoch not in self._lines[self._ids[number]].accuracies:
            measured = {"metrics": dict(measurement.metrics), "trained": measurement.trained}
            measured |= {"stages": stages} if stages else {}
            self.write({"step": measurement.epoch, "measured": measured}, number)
        elif stages:
            self.note(number, late_stages={**stages, **self.notes(number).get("late_stages", {})})

    def begin_session(self, spec: SweepSpec, name: str, edits: Sequence[str] | None) -> None:
        """Note by which spec trials of the sweep ``name`` are asked from now on, and how it was changed.

        Raises:
            InputError: it is another spec, and ``edits`` is None.
        """
        self.journal.cut()
        is_another = self.spec not in ("", spec.digest)
        if is_another and edits is None:
            raise InputError(
                f"name must be of a sweep with the same spec, got {name!r}: it was begun with other settings "
                "(only trials, hours and resources may change). Give another --name, or the settings it was begun "
                f"with; carsweep resume {name} --set … changes a sweep."
            )
        if edits or is_another:
            now, changes = datetime.now().astimezone().isoformat(timespec="seconds"), list(edits or ("sweep.json",))
            self.note(None, edits=[*self.edits, {"at": now, "changes": changes, "after": self.next_number}])
        if self.spec != spec.digest:
            self.note(None, spec=spec.digest, exhausted_at=0)  # what held nothing new may hold it now

    def _catch_up(self) -> None:
        for place, log in self.journal.read():
            self._take(log, place)

    def _take(self, log: Mapping[str, Any], place: int) -> None:
        """Take in a line; some of older versions tell nothing."""
        if "user_attrs" in log or log.get("op_code") == _BEGAN:
            self._lines.append(_Lines(log.get("user_attrs", {})))
            if "asked" in self._lines[-1].noted:
                self._enter(len(self._lines) - 1)
        elif "trial_id" not in log:
            self.noted |= log.get("user_attr", {})
        else:
            lines = self._lines[log["trial_id"]]
            lines.noted |= {"spent": log["spent"]} if "spent" in log else {}
            lines.noted |= log.get("user_attr", {})
            if "outcome" in log.get("user_attr", {}):
                self._enter_end(log["trial_id"])
            elif "step" in log:
                measurement = measurement_in(log)
                lines.accuracies[measurement.epoch] = measurement.metrics[OBJECTIVE]
                lines.places.append(place)

    def _enter(self, place: int) -> None:
        """Take in a trial that was asked."""
        noted = self._lines[place].noted
        asked = noted["asked"]
        number = asked.get("number", place)  # older journals have no others
        if number in self._older_spending:
            noted["spent"] = self._older_spending[number].as_dict()
        self.next_number = max(self.next_number, number + 1)
        self.counted += not any(key in asked for key in _FREE)
        self.confirming += "confirms" in asked
        if "duplicate_of" in asked:
            self._duplicates[asked["duplicate_of"]].append(
                Duplicate(number, asked.get("near", False), asked["settings"])
            )
        else:
            self._ids[number] = place
            self.unfinished |= set() if noted.get("outcome") else {number}
        if "refused" not in asked or self._goals.broken_by(asked["refused"]):
            self.begun |= {name for name in (asked.get("start") or asked["experiment"],) if name}
            if "duplicate_of" not in asked:
                self.digests.setdefault(asked["digest"], number)

    def _enter_end(self, place: int) -> None:
        """Take in the end of a trial, or that it has none any more; and the trials that were derived from it."""
        noted = self._lines[place].noted
        number = noted["asked"].get("number", place)
        self._ended.pop(number, None)
        self.unfinished = self.unfinished - {number} if noted["outcome"] else self.unfinished | {number}
        for derived in (noted["outcome"] or {}).get("derived", ()):
            self._ended[derived["number"]] = _derived_record(self.record(number), derived)
            self.digests.setdefault(derived["digest"], derived["number"])
            self.next_number = max(self.next_number, derived["number"] + 1)


def read_history(folder: Path) -> History:
    """Return what the journal in ``folder`` tells, at any time; changes nothing.

    Raises:
        InputError: the journal is damaged.
    """
    return History(folder)


def _derived_record(parent: TrialRecord, derived: Mapping[str, Any]) -> TrialRecord:
    """Return the record of what ``derived_of`` yielded of a complete trial: its own settings, its parent's model."""
    return TrialRecord(
        number=derived["number"],
        experiment=None,
        settings=derived["settings"],
        config={**parent.config, **derived["settings"]},
        status="complete",
        metrics=derived["metrics"],
        epochs=parent.epochs,
        seconds=0.0,
        reused=True,
        model=parent.model,
        derived_from=parent.number,
    )


def read_older_spending(folder: Path) -> dict[int, Spent]:
    """Return what trials took by the file of older versions, whose journals did not have it; by number.

    Each line says what a trial has taken in one session so far, and replaces the one before. Lines that a dying machine
    left torn do not count.
    """
    path, last = folder / "spending.jsonl", dict[tuple[int, int], Spent]()
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            last[line["trial"], line["sitting"]] = Spent(**{part.name: line[part.name] for part in fields(Spent)})
    walls = {session: max(spent.wall for (_, s), spent in last.items() if s == session) for _, session in last}
    trials: dict[int, Spent] = {}
    for (number, _), spent in last.items():
        trials[number] = trials.get(number, Spent(wall=sum(walls.values()))) + spent
    return trials
