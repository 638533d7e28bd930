"""How sweeps stand, read from what they have written: at any time, from any terminal, without Ray or a GPU."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweeps.holding import Holder, asked_to_stop, holder_of
from sweeps.remembered import names_in, require_known
from sweeps.spec import SweepSpec
from sweeps.sweep_file import is_sweep, read_file, read_spec

if TYPE_CHECKING:
    from sweeps.record import TrialRecord

State = Literal["running", "stopping", "unfinished", "finished"]
JOBS = ("all", "reproduce")


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """How one sweep stands.

    Attributes:
        name, family: of the sweep.
        state: ``running``; ``stopping`` once somebody asked for it; ``unfinished`` when nothing runs it but trials, or
            the reading of the test images, are left; ``finished``.
        holder: who runs it; None when nobody does.
        trials: that it may run.
        counts: trials that were run by ``complete``, ``pruned``, ``failed`` and ``running``; without those that confirm
            others.
        siblings: settings answered on the way of those.
        twins: trials that were drawn and not run: ``number``, ``same_as`` which trial, and whether only ``near``ly.
        unfinished: trials that run, or that the next driver begins with.
        best: number of the complete trial that would win now; a sibling may be it.
        best_accuracy: of that trial, in [0, 1].
        test_accuracy: of the winner, once it was read.
        registered: ``NAME VERSION`` of the winner.
        edits: what was changed since the sweep was begun.
        changed: when the journal was last written to, an ISO time.
    """

    name: str
    family: str
    state: State
    holder: Holder | None
    trials: int
    counts: Mapping[str, int]
    siblings: int
    twins: tuple[Mapping[str, Any], ...]
    unfinished: tuple[TrialRecord, ...]
    best: int | None
    best_accuracy: float | None
    test_accuracy: float | None
    registered: str
    edits: tuple[Mapping[str, Any], ...]
    changed: str

    @property
    def ended(self) -> int:
        """Trials that ended, however."""
        return sum(count for status, count in self.counts.items() if status != "running")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(replace(self, unfinished=()))  # a record's history would be read for nothing
        return {**plain, "unfinished": [_told(record) for record in self.unfinished], "ended": self.ended}


def sweep_status(out: Path, name: str) -> SweepStatus:
    """Return how one sweep stands.

    Raises:
        InputError: there is none of that name, or its files are damaged.
    """
    from sweeps.leaderboard import find_best
    from sweeps.study_journal import JOURNAL
    from sweeps.study_records import read_history

    folder = require_known(out, name)
    spec = read_spec(folder)
    holder = holder_of(folder)
    history = read_history(folder)
    own = [record for record in history.records if record.sibling_of is None]
    search = [record for record in history.records if record.confirms is None]
    best = find_best(search, spec.goals)
    result = _read(folder / "result.json")
    test, registered = result.get("test") or {}, result.get("registered") or {}
    journal = folder / JOURNAL
    return SweepStatus(
        name=name,
        family=spec.family,
        state=_state(folder, holder, own, result),
        holder=holder,
        trials=spec.trials,
        counts=dict(Counter(record.status for record in search if record.sibling_of is None)),
        siblings=len(history.records) - len(own),
        twins=tuple(_twins(history.records)),
        unfinished=tuple(record for record in own if record.status == "running"),
        best=best.number if best else None,
        best_accuracy=best.metrics["val_accuracy"] if best else None,
        test_accuracy=test.get("metrics", {}).get("test_accuracy"),
        registered=f"{registered['name']} {registered['version']}" if registered else "",
        edits=history.edits,
        changed=_written(journal if journal.exists() else read_file(folder).path),
    )


def sweeps_in(out: Path, name: str | None = None) -> list[str]:
    """Return the sweeps in ``out``, the last written to first; those of one job when ``name`` is a job's.

    Raises:
        InputError: there is nothing called ``name``.
    """
    if name is not None:
        require_known(out, name)
        members = [f"{name}-{spec.family}" for spec in _specs_of_job(out / name)]
        return [member for member in members if is_sweep(out / member)] if members else [name]
    found = [known for known in names_in(out) if is_sweep(out / known)]
    return sorted(found, key=lambda known: _last_change(out / known), reverse=True)


def _specs_of_job(folder: Path) -> Sequence[SweepSpec]:
    file = read_file(folder)
    return file.read_specs() if file.kind in JOBS else ()


def _state(folder: Path, holder: Holder | None, records: Sequence[TrialRecord], result: Mapping[str, Any]) -> State:
    if holder is not None:
        return "running" if asked_to_stop(folder) is None else "stopping"
    told = {trial["number"]: trial["status"] for trial in result.get("trials", ())}
    concluded = result and not result.get("interrupted") and all(told.get(r.number) == r.status for r in records)
    return "finished" if concluded and "running" not in told.values() else "unfinished"


def _twins(records: Sequence[TrialRecord]) -> list[Mapping[str, Any]]:
    found = [{"number": t.number, "same_as": r.number, "near": t.near} for r in records for t in r.twins]
    return sorted(found, key=lambda twin: twin["number"])


def _told(record: TrialRecord) -> dict[str, Any]:
    """Return what is told of a trial that has begun and not ended."""
    return {
        "number": record.number,
        "experiment": record.experiment,
        "epoch": record.epochs,
        "epochs": record.config["epochs"],
        "accuracy": record.metrics.get("val_accuracy"),
        "confirms": record.confirms,
    }


def _read(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; empty when it is missing, or not one."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _last_change(folder: Path) -> float:
    names = ("sweep.json", "spec.yaml", "study.journal")
    return max(path.stat().st_mtime for name in names if (path := folder / name).exists())


def _written(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
