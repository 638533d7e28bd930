"""A study between two drivers: its journal mended, its changes noted, and read by those who do not drive it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal._storage import JournalOperation

from carcls.disk import full_disk_named, replacing
from carcls.errors import InputError
from sweeps.failures import NO_FAULT
from sweeps.record import TrialRecord
from sweeps.study_lines import sealed
from sweeps.study_parts import STUDY, Journal, replayed
from sweeps.study_twins import records_with_twins

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

JOURNAL = "study.journal"


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
    path = folder / JOURNAL
    if not path.is_file():
        return History((), ())
    journal = Journal(path)
    storage = replayed(journal)
    if not storage.get_all_studies():  # its driver has written no whole line yet
        return History((), ())
    study = optuna.load_study(study_name=STUDY, storage=storage)
    trials = [trial for trial in study.get_trials(deepcopy=False) if "asked" in trial.user_attrs]
    records = tuple(records_with_twins(trials, journal))
    return History(records, tuple(study.user_attrs.get("edits", ())), study.user_attrs.get("spec", ""))


def reopen(journal: Path) -> tuple[int, ...]:
    """Make trials unfinished again that failed through no fault of their own; return their numbers.

    They keep their numbers and their checkpoints. The journal's lines about their end are replaced, all at once; how
    they had failed stays in it under another name. What had taken over such a result is among them.
    """
    if not journal.exists():
        return ()
    logs = list(Journal(journal).read_logs(0))
    failed = {log["trial_id"] for log in logs if _outcome_in(log).get("failure") in NO_FAULT}
    if not failed:
        return ()
    kept = [new for log in logs for new in (_reopened(log) if log.get("trial_id") in failed else [log])]
    with full_disk_named(journal.parent), replacing(journal) as temporary, temporary.open("wb") as file:
        file.write(sealed(kept)[0])
        file.flush()
        os.fsync(file.fileno())
    return tuple(sorted(failed))  # the journal has one study, so a trial's number is its id


def _outcome_in(log: Mapping[str, Any]) -> Mapping[str, Any]:
    outcome: Mapping[str, Any] = log.get("user_attr", {}).get("outcome", {})
    return outcome


def _reopened(log: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what stands in a journal instead of a line about a trial that is open again."""
    if log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES:
        return []
    if not _outcome_in(log):
        return [log]
    return [{**log, "user_attr": {"failed_before": _outcome_in(log)}}, {**log, "user_attr": {"attempts": 0}}]


def note_spec(study: optuna.Study, spec: SweepSpec, folder: Path, edits: Sequence[str] | None) -> None:
    """Note which spec the study is of, and how it was changed.

    Raises:
        InputError: it is of another spec, and ``edits`` is None.
    """
    known = study.user_attrs.get("spec")
    if known is not None and known != spec.digest and edits is None:
        raise InputError(
            f"name must be of a sweep with the same spec, got {folder.name!r}: it was begun with other settings "
            "(only trials, hours and resources may change). Give another --name, or the settings it was begun with; "
            f"carsweep resume {folder.name} --set … changes a sweep."
        )
    if edits or (known is not None and known != spec.digest):
        edit = {
            "at": datetime.now().astimezone().isoformat(timespec="seconds"),
            "changes": list(edits or ("sweep.json",)),
            "after": len(study.get_trials(deepcopy=False)),
        }
        study.set_user_attr("edits", [*study.user_attrs.get("edits", []), edit])
    if known != spec.digest:
        study.set_user_attr("spec", spec.digest)
        study.set_user_attr("exhausted_at", 0)  # what held nothing new may hold it now
