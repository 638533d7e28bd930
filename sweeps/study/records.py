"""The trials of a study as records: read from its journal, looked up, added and closed.

A journal has a line for each trial that was asked, for each of its epochs and for its end. What can be computed of them
is in no line: the records of derived trials, which stand as a list in the end of the trial that answered them (older
versions wrote each down as a trial of its own), and what became of a trial that another one answers.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.failures import NO_FAULT
from sweeps.interrupts import uninterrupted
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.study.derived import derived_record
from sweeps.study.journal import JOURNAL, EpochHistory, Journal, measurement_in
from sweeps.study.older import read_older_spending
from sweeps.study.rungs import Curve, kind_of
from sweeps.trial import OBJECTIVE, Spent, Status, TrialRecord, Twin, record_from_notes, whole_outcome

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# In older versions, the line of a trial that began; its driver may have died before it said what was asked.
_BEGAN = 4
# What is free of the budget of trials.
_FREE = ("duplicate_of", "sibling_of", "confirms", "refused")


class Asked(NamedTuple):
    """A trial to run; ``retry`` is what ``Study.hand_back`` was given of it."""

    number: int
    experiment: str | None
    settings: Mapping[str, Any]
    config: TrialConfig
    retry: Mapping[str, Any] = {}


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


class Trials:
    """All trials of one journal; one driver may write to it, anybody may read.

    Args:
        folder: of the sweep, with its journal.
        goals: of the sweep; what limits refused that have been loosened since may be asked again.

    Attributes:
        journal: the file.
        attributes: what was noted of the study itself.
        next_number: of the next trial, derived ones included.
        counted: trials that the budget counts.
        confirming: runs that repeat others with fresh seeds.
        begun: names of documented experiments and starts that were asked.
        digests: by digest, the trial that answers it: the first that was asked for it.
        spending: tells by number what a trial has taken so far, or None; its lines then say so.

    Raises:
        InputError: the journal is damaged.
    """

    def __init__(self, folder: Path, goals: Goals = ACCURACY_ALONE) -> None:
        self.journal = Journal(folder / JOURNAL)
        self._older_spending = read_older_spending(folder)
        self.spending: Callable[[int], Spent | None] = lambda _: None
        self._goals = goals
        self.attributes: dict[str, Any] = {}
        self.next_number = self.counted = self.confirming = 0
        self.begun: set[str] = set()
        self.digests: dict[str, int] = {}
        self._lines: list[_Lines] = []  # by the trial's id in the journal
        self._ids: dict[int, int] = {}  # by number; of trials that have a result of their own
        self._ended: dict[int, TrialRecord] = {}
        self._twins: defaultdict[int, list[Twin]] = defaultdict(list)
        self._catch_up()

    # Reading

    def records(self) -> list[TrialRecord]:
        """Return every trial that has a result of its own, with its twins, in the order of their numbers."""
        return [self.record(number) for number in sorted(self._ids.keys() | self._ended.keys())]

    def record(self, number: int) -> TrialRecord:
        """Return what is known of one trial that has a result of its own."""
        record = self._ended.get(number)
        if record is None:
            lines = self._lines[self._ids[number]]
            record = record_from_notes(number, lines.noted, EpochHistory(self.journal.path, lines.places))
            if record.status != "running":
                self._ended[number] = record
        return replace(record, twins=tuple(self._twins[number])) if number in self._twins else record

    def notes(self, number: int) -> Mapping[str, Any]:
        """Return what was noted of one of the trials that have lines of their own."""
        return self._lines[self._ids[number]].noted

    def asked(self, number: int) -> Asked:
        """Return a trial as it is to be run."""
        noted = self.notes(number)
        asked, config = noted["asked"], TrialConfig.model_validate(noted["asked"]["config"])
        return Asked(number, asked["experiment"], asked["settings"], config, noted.get("retry", {}))

    def curves(self) -> dict[int, Curve]:
        """Return what trials of the search have measured, by number; not failed ones, which came to nothing."""
        found = {}
        for number, place in self._ids.items():
            asked, outcome = self._lines[place].noted["asked"], self._lines[place].noted.get("outcome") or {}
            if outcome.get("status") != "failed" and "confirms" not in asked:
                found[number] = Curve(kind_of(asked["config"]), self._lines[place].accuracies)
        return found

    # Writing

    def add(self, asked: Mapping[str, Any], reason: str = "") -> int:
        """Write a new trial down and return its number.

        Args:
            asked: ``experiment``, ``settings``, ``config``, ``digest``; perhaps ``start``, ``confirms``,
                ``duplicate_of`` and ``near``; ``refused``, what is known of the metrics of one that is not to be run.
            reason: why it is not.
        """
        number = self.next_number
        noted: dict[str, Any] = {"asked": {"number": number, **asked}, "began": time.time()}
        if "refused" in asked:
            noted["outcome"] = whole_outcome("pruned", {"metrics": asked["refused"], "reason": reason})
        self._write({"study_id": 0, "user_attrs": noted})
        return number

    def note(self, number: int, **attributes: Any) -> None:
        """Write attributes of a trial down."""
        self._write({"trial_id": self._ids[number], "user_attr": attributes}, self.spending(number))

    def note_study(self, **attributes: Any) -> None:
        """Write attributes of the study down."""
        self._write({"study_id": 0, "user_attr": attributes})

    def report(self, number: int, measurement: Measurement) -> bool:
        """Write an epoch down, and tell whether that is news; one that is there is not written again."""
        place, epoch = self._ids[number], measurement.epoch
        if epoch in self._lines[place].accuracies:
            return False
        stages = {"stages": dict(measurement.stages)} if measurement.stages else {}
        measured = {"metrics": dict(measurement.metrics), "trained": measurement.trained, **stages}
        self._write({"trial_id": place, "step": epoch, "measured": measured}, self.spending(number))
        return True

    def finish(
        self, number: int, status: Status, outcome: Mapping[str, Any], derived: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Close a trial.

        Args:
            number: of the trial.
            status: not ``running``.
            outcome: of the attributes of its record, those that are told by its end.
            derived: trials that it answered besides: ``digest``, ``settings`` and ``metrics`` of each.
        """
        whole = whole_outcome(status, outcome)
        if derived:
            whole["derived"] = [{"number": self.next_number + place, **one} for place, one in enumerate(derived)]
        self.note(number, outcome=whole)

    def reopen(self) -> tuple[int, ...]:
        """Make trials unfinished again that failed through no fault of their own; return their numbers.

        They keep their numbers and their checkpoints, and have all attempts. How they had failed stays in the journal.
        """
        failed = tuple(record.number for record in self.records() if record.failure in NO_FAULT)
        for number in failed:
            self.note(number, outcome=None, attempts=0)
        return failed

    def _write(self, log: dict[str, Any], spent: Spent | None = None) -> None:
        with uninterrupted():  # a line that is written and not read would spoil the sum of the next one
            self.journal.append(log if spent is None else {**log, "spent": spent.as_dict()})
            self._catch_up()

    def _catch_up(self) -> None:
        for place, log in self.journal.read():
            self._take(log, place)

    def _take(self, log: Mapping[str, Any], place: int) -> None:
        """Take in a line; some of older versions tell nothing."""
        if "spent" in log:
            self._lines[log["trial_id"]].noted["spent"] = log["spent"]
        if "user_attrs" in log or log.get("op_code") == _BEGAN:
            self._lines.append(_Lines(log.get("user_attrs", {})))
            if "asked" in self._lines[-1].noted:
                self._enter(len(self._lines) - 1)
        elif "trial_id" not in log:
            self.attributes |= log.get("user_attr", {})
        elif "user_attr" in log:
            self._lines[log["trial_id"]].noted |= log["user_attr"]
            if "outcome" in log["user_attr"]:
                self._enter_end(log["trial_id"])
        elif "step" in log:
            lines, measurement = self._lines[log["trial_id"]], measurement_in(log)
            lines.accuracies[measurement.epoch] = measurement.metrics[OBJECTIVE]
            lines.places.append(place)

    def _enter(self, place: int) -> None:
        """Take in a trial that was asked."""
        asked: Mapping[str, Any] = self._lines[place].noted["asked"]
        number = asked.get("number", place)  # older journals have no others
        if number in self._older_spending:
            self._lines[place].noted["spent"] = self._older_spending[number].as_dict()
        self.next_number = max(self.next_number, number + 1)
        self.counted += not any(key in asked for key in _FREE)
        self.confirming += "confirms" in asked
        if "duplicate_of" in asked:
            self._twins[asked["duplicate_of"]].append(Twin(number, asked.get("near", False), asked["settings"]))
        else:
            self._ids[number] = place
        if "refused" not in asked or self._goals.broken_by(asked["refused"]):
            self.begun |= {name for name in (asked.get("start") or asked["experiment"],) if name}
            if "duplicate_of" not in asked:
                self.digests.setdefault(asked["digest"], number)

    def _enter_end(self, place: int) -> None:
        """Take in the end of a trial, or that it has none any more; and the trials that were derived from it."""
        noted = self._lines[place].noted
        number = noted["asked"].get("number", place)
        self._ended.pop(number, None)
        for derived in (noted["outcome"] or {}).get("derived", ()):
            self._ended[derived["number"]] = derived_record(self.record(number), derived)
            self.digests.setdefault(derived["digest"], derived["number"])
            self.next_number = max(self.next_number, derived["number"] + 1)


def note_spec(trials: Trials, spec: SweepSpec, name: str, edits: Sequence[str] | None) -> None:
    """Note which spec the study of the sweep ``name`` is of, and how it was changed.

    Raises:
        InputError: it is of another spec, and ``edits`` is None.
    """
    known = trials.attributes.get("spec")
    is_another = known not in (None, spec.digest)
    if is_another and edits is None:
        raise InputError(
            f"name must be of a sweep with the same spec, got {name!r}: it was begun with other settings "
            "(only trials, hours and resources may change). Give another --name, or the settings it was begun with; "
            f"carsweep resume {name} --set … changes a sweep."
        )
    if edits or is_another:
        now, changes = datetime.now().astimezone().isoformat(timespec="seconds"), list(edits or ("sweep.json",))
        edit = {"at": now, "changes": changes, "after": trials.next_number}
        trials.note_study(edits=[*trials.attributes.get("edits", []), edit])
    if known != spec.digest:
        trials.note_study(spec=spec.digest, exhausted_at=0)  # what held nothing new may hold it now


class History(NamedTuple):
    """What a journal tells to whoever only reads it.

    Attributes:
        records: every trial with its twins, in the order of asking; a twin has no record of its own.
        edits: changes of the spec, oldest first: ``at`` (ISO time), ``changes`` (texts), ``after`` (trials asked).
        spec: digest of the spec by which trials were asked last; empty before the first.
    """

    records: tuple[TrialRecord, ...]
    edits: tuple[dict[str, Any], ...]
    spec: str = ""


def read_history(folder: Path) -> History:
    """Return what the journal in ``folder`` tells, at any time, also while its driver writes; changes nothing.

    Raises:
        InputError: the journal is damaged.
    """
    if not (folder / JOURNAL).is_file():
        return History((), ())
    trials = Trials(folder)
    noted = trials.attributes
    return History(tuple(trials.records()), tuple(noted.get("edits", ())), noted.get("spec", ""))
