"""The trials of a study as records: read from its journal, looked up, added and closed.

A journal has a line for each trial that was asked, for each of its epochs and for its end. What can be computed of them
is in no line: the records of derived trials, which stand as a list in the end of the trial that answered them (older
versions wrote each down as a trial of its own), and what became of a trial that another one answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.goals import ACCURACY_ALONE, Goals
from sweeps.record import OBJECTIVE, Status, TrialRecord, Twin, record_from_notes, whole_outcome
from sweeps.study_derived import derived_record
from sweeps.study_journal import JOURNAL, Journal, measured_in
from sweeps.study_rungs import Curve, kind_of

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

STUDY = "sweep"
STATES: Mapping[Status, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
# What is free of the budget of trials.
_FREE = ("duplicate_of", "sibling_of", "confirms", "refused")


class Asked(NamedTuple):
    """A trial to run; ``retry`` is what ``Study.hand_back`` was given of it."""

    number: int
    experiment: str | None
    settings: Mapping[str, Any]
    config: TrialConfig
    retry: Mapping[str, Any] = {}


class Trials:
    """All trials of one journal; one driver may write to it, anybody may read.

    Args:
        folder: of the sweep, with its journal.
        goals: of the sweep; what limits refused that have been loosened since may be asked again.
        reopen: make trials unfinished again that failed through no fault of their own; for a driver only.

    Attributes:
        next_number: of the next trial, derived ones included.
        counted: trials that the budget counts.
        confirming: runs that repeat others with fresh seeds.
        begun: names of documented experiments and starts that were asked.
        digests: by digest, the trial that answers it: the first that was asked for it.
        reopened: numbers of the trials that ``reopen`` made unfinished again.

    Raises:
        InputError: the journal is damaged.
    """

    def __init__(self, folder: Path, goals: Goals = ACCURACY_ALONE, *, reopen: bool = False) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._journal = Journal(folder / JOURNAL)
        self._goals = goals
        self.next_number = self.counted = self.confirming = 0
        self.begun: set[str] = set()
        self.digests: dict[str, int] = {}
        self._ids: dict[int, int] = {}  # in the journal, by number; of trials that have a result of their own
        self._ended: dict[int, TrialRecord] = {}
        self._twins: defaultdict[int, list[Twin]] = defaultdict(list)
        again = self._journal.reopen() if reopen else set()
        self._storage = JournalStorage(self._journal)
        for trial in self._told():
            self._enter(trial)
        self.reopened = tuple(number for number, place in self._ids.items() if place in again)

    def begin(self) -> None:
        """Make the journal one that can be written to; only its driver may."""
        self._journal.cut()
        if not self._storage.get_all_studies():
            self._storage.create_new_study([StudyDirection.MAXIMIZE], STUDY)
        for trial in self._told():  # a driver died before the last line of a trial
            if trial.state is TrialState.RUNNING and "outcome" in trial.user_attrs:
                self._close(trial.number, trial.user_attrs["outcome"])

    # Reading

    def _told(self) -> list[FrozenTrial]:
        """Return the trials as the journal's lines have them, derived ones in new journals not included."""
        if not self._storage.get_all_studies():  # its driver has written no whole line yet
            return []
        trials = self._storage.get_all_trials(self._study, deepcopy=False)
        return [trial for trial in trials if "asked" in trial.user_attrs]

    def records(self) -> list[TrialRecord]:
        """Return every trial that has a result of its own, with its twins, in the order of their numbers."""
        return [self.record(number) for number in sorted(self._ids.keys() | self._ended.keys())]

    def record(self, number: int) -> TrialRecord:
        """Return what is known of one trial that has a result of its own."""
        record = self._ended.get(number) or self._read(number)
        return replace(record, twins=tuple(self._twins[number])) if number in self._twins else record

    def notes(self, number: int) -> Mapping[str, Any]:
        """Return what was noted of one of the trials that have lines of their own."""
        return self._storage.get_trial(self._ids[number]).user_attrs

    def asked(self, number: int) -> Asked:
        """Return a trial as it is to be run."""
        noted = self.notes(number)
        asked, retry = noted["asked"], noted.get("retry", {})
        config = TrialConfig.model_validate(asked["config"])
        return Asked(number, asked["experiment"], asked["settings"], config, retry)

    def curves(self) -> dict[int, Curve]:
        """Return what trials of the search have measured, by number.

        Not of failed ones, which came to nothing however well they began.
        """
        found = {}
        for trial in self._told():
            asked = trial.user_attrs["asked"]
            if trial.state is not TrialState.FAIL and not {"duplicate_of", "confirms"} & asked.keys():
                curve = Curve(kind_of(asked["config"]), trial.intermediate_values)
                found[asked.get("number", trial.number)] = curve
        return found

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What was noted of the study itself."""
        return self._storage.get_study_user_attrs(self._study) if self._storage.get_all_studies() else {}

    # Writing

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        self._journal.sync()

    def add(self, asked: Mapping[str, Any], reason: str = "") -> int:
        """Write a new trial down and return its number.

        Args:
            asked: ``experiment``, ``settings``, ``config``, ``digest``; perhaps ``start``, ``confirms``,
                ``duplicate_of`` and ``near``; ``refused``, what is known of the metrics of one that is not to be run.
            reason: why it is not.
        """
        number, noted = self.next_number, {"asked": {"number": self.next_number, **asked}}
        state = TrialState.FAIL if "duplicate_of" in asked else TrialState.RUNNING
        if "refused" in asked:
            state = TrialState.PRUNED
            noted["outcome"] = whole_outcome("pruned", {"metrics": asked["refused"], "reason": reason})
        trial = create_trial(state=state, user_attrs=noted)
        self._enter(self._storage.get_trial(self._storage.create_new_trial(self._study, trial)))
        return number

    def note(self, number: int, **attributes: Any) -> None:
        """Write attributes of a trial down."""
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(self._ids[number], name, value)

    def note_study(self, **attributes: Any) -> None:
        """Write attributes of the study down."""
        for name, value in attributes.items():
            self._storage.set_study_user_attr(self._study, name, value)

    def report(self, number: int, measurement: Measurement) -> bool:
        """Write an epoch down, and tell whether that is news; one that is there is not written again."""
        place, epoch = self._ids[number], measurement.epoch
        if epoch in self._storage.get_trial(place).intermediate_values:
            return False
        with self._journal.adding(measured=measured_in(measurement)):
            self._storage.set_trial_intermediate_value(place, epoch, measurement.metrics[OBJECTIVE])
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
            whole["derived"] = [{"number": self.next_number + i, **one} for i, one in enumerate(derived)]
        self.note(number, outcome=whole)
        self._close(self._ids[number], whole)
        self._enter_derived(number, whole)

    def _close(self, place: int, outcome: Mapping[str, Any]) -> None:
        status: Status = outcome["status"]
        values = [outcome["metrics"][OBJECTIVE]] if status == "complete" else None
        self._storage.set_trial_state_values(place, STATES[status], values)

    @property
    def _study(self) -> int:
        return self._storage.get_study_id_from_name(STUDY)

    def _enter(self, trial: FrozenTrial) -> None:
        """Take a trial in that has just been read or written."""
        asked: Mapping[str, Any] = trial.user_attrs["asked"]
        number = asked.get("number", trial.number)  # older journals have no others
        self.next_number = max(self.next_number, number + 1)
        self.counted += not any(key in asked for key in _FREE)
        self.confirming += "confirms" in asked
        if "duplicate_of" in asked:
            self._twins[asked["duplicate_of"]].append(Twin(number, asked.get("near", False), asked["settings"]))
        else:
            self._ids[number] = trial.number  # there is one study, so Optuna's number is the id
        if "refused" not in asked or self._goals.broken_by(asked["refused"]):
            self.begun |= {name for name in (asked.get("start") or asked["experiment"],) if name}
            if "duplicate_of" not in asked:
                self.digests.setdefault(asked["digest"], number)
        self._enter_derived(number, trial.user_attrs.get("outcome", {}))

    def _enter_derived(self, parent: int, outcome: Mapping[str, Any]) -> None:
        for derived in outcome.get("derived", ()):
            record = derived_record(self.record(parent), derived)
            self._ended[record.number] = record
            self.digests.setdefault(derived["digest"], record.number)
            self.next_number = max(self.next_number, record.number + 1)

    def _read(self, number: int) -> TrialRecord:
        trial = self._storage.get_trial(self._ids[number])
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        record = record_from_notes(number, trial.user_attrs, self._journal.history(trial.number), began)
        if record.status != "running":
            self._ended[number] = record
        return record


def note_spec(trials: Trials, spec: SweepSpec, name: str, edits: Sequence[str] | None) -> None:
    """Note which spec the study of the sweep ``name`` is of, and how it was changed.

    Raises:
        InputError: it is of another spec, and ``edits`` is None.
    """
    noted = trials.attributes
    known = noted.get("spec")
    if known is not None and known != spec.digest and edits is None:
        raise InputError(
            f"name must be of a sweep with the same spec, got {name!r}: it was begun with other settings "
            "(only trials, hours and resources may change). Give another --name, or the settings it was begun with; "
            f"carsweep resume {name} --set … changes a sweep."
        )
    if edits or (known is not None and known != spec.digest):
        edit = {
            "at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "changes": list(edits or ("sweep.json",)),
            "after": trials.next_number,
        }
        trials.note_study(edits=[*noted.get("edits", []), edit])
    if known != spec.digest:
        trials.note_study(spec=spec.digest, exhausted_at=0)  # what held nothing new may hold it now


@dataclass(frozen=True, slots=True)
class History:
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
