"""The status of sweeps, read from what they have written: at any time, from anywhere, without Ray or a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from carcls.errors import InputError, nearest
from sweeps.lock import Holder, asked_to_stop, holder_of
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult, find_result
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import is_known, is_sweep, read_file, sweeps_of
from sweeps.study.records import read_history
from sweeps.tables import Column, json_of
from sweeps.text import minute, percent
from sweeps.trial import TrialRecord

State = Literal["running", "stopping", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """The status of one sweep.

    Attributes:
        name: of the sweep.
        spec: that it was left with.
        state: ``running``; ``stopping`` once somebody asked for it; ``unfinished`` when nothing runs it but trials, or
            the test evaluation, are left; ``finished``.
        holder: who runs it; None when nobody does.
        board: the trials that its journal has now, in their order.
        result: what it left when it ended last; None before, or where that is damaged.
        edits: what was changed since the sweep was begun.
        changed: when its file or its journal was last written to, an ISO time.
    """

    name: str
    spec: SweepSpec
    state: State
    holder: Holder | None
    board: Leaderboard
    result: SweepResult | None
    edits: tuple[Mapping[str, Any], ...]
    changed: str

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials that were run, by how they ended; neither derived ones nor those that confirm others."""
        search = (t for t in self.board.trials if t.derived_from is None and t.confirms is None)
        return dict(Counter(trial.status for trial in search))

    @property
    def ended(self) -> int:
        """Trials that ended, however."""
        return sum(count for status, count in self.counts.items() if status != "running")

    @property
    def total(self) -> int:
        """Trials when the sweep is done; those that ended count, though fewer may be asked for by now."""
        return max(self.spec.trials, self.ended)

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that run, or that the next driver begins with."""
        return [trial for trial in self.board.trials if trial.status == "running" and trial.derived_from is None]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return json_of(COLUMNS, self)


def _duplicates(sweep: SweepStatus) -> list[dict[str, Any]]:
    told = [
        {"number": one.number, "same_as": trial.number, "near": one.near}
        for trial in sweep.board.trials
        for one in trial.duplicates
    ]
    return sorted(told, key=lambda one: one["number"])


# What is told of a trial that has not ended.
_UNFINISHED: tuple[Column[TrialRecord], ...] = (
    Column("number", lambda trial: trial.number),
    Column("experiment", lambda trial: trial.experiment),
    Column("epoch", lambda trial: trial.epochs),
    Column("epochs", lambda trial: trial.config["epochs"]),
    Column("accuracy", lambda trial: trial.measured("val_accuracy")),
    Column("confirms", lambda trial: trial.confirms),
)
# What is told of a sweep in JSON (docs/json.md), and, where there is a title, in the table of all sweeps.
COLUMNS: tuple[Column[SweepStatus], ...] = (
    Column("name", lambda s: s.name, "sweep", is_word=True),
    Column("family", lambda s: s.spec.family, "family", is_word=True, room="wide"),
    Column("state", lambda s: s.state, "state", is_word=True),
    Column("trials", lambda s: s.spec.trials, "trials", cell=lambda s: f"{s.ended}/{s.total}"),
    Column("best_accuracy", lambda s: s.board.best and s.board.best.measured("val_accuracy"), "best val", percent),
    Column("test_accuracy", lambda s: s.result.tested() if s.result else None, "test", percent),
    Column("registered", lambda s: str((s.result and s.result.registered) or ""), "registered as", is_word=True),
    Column("changed", lambda s: s.changed, "last written", minute, is_word=True, room="wide"),
    Column("ended", lambda s: s.ended),
    Column("holder", lambda s: asdict(s.holder) if s.holder else None),
    Column("counts", lambda s: s.counts),
    Column("derived", lambda s: sum(trial.derived_from is not None for trial in s.board.trials), was="siblings"),
    Column("duplicates", _duplicates, was="twins"),
    Column("unfinished", lambda s: [json_of(_UNFINISHED, trial) for trial in s.unfinished]),
    Column("best", lambda s: s.board.best.number if s.board.best else None),
    Column("edits", lambda s: list(s.edits)),
)


def require_known(out: Path, name: str) -> Path:
    """Return the folder of a sweep or a job.

    Raises:
        InputError: there is none of that name, or it is a path.
    """
    if name and (place := next(filter(is_known, (out / name, Path(name))), None)):
        if Path(name).name == name and place.parent == out:
            return place
        place = place.resolve()
        raise InputError(f"NAME must be no path, got {name!r}. Give {place.name} with --out {place.parent}.")
    there = sorted(entry.name for entry in out.iterdir() if is_known(entry)) if out.is_dir() else []
    known = nearest(name, there) if there else f" There is none in {out}: give --out."
    raise InputError(f"NAME must be of a sweep in {out}, got {name!r}.{known}")


def sweep_status(out: Path, name: str) -> SweepStatus:
    """Return the status of one sweep.

    Raises:
        InputError: there is none of that name, or its files are damaged.
    """
    folder = require_known(out, name)
    spec, history, result = read_file(folder).read_specs()[0], read_history(folder), find_result(folder)
    holder = holder_of(folder)
    if holder is not None:
        state: State = "running" if asked_to_stop(folder) is None else "stopping"
    else:
        state = "finished" if result is not None and result.has_all(history.records) else "unfinished"
    return SweepStatus(
        name=name,
        spec=spec,
        state=state,
        holder=holder,
        board=Leaderboard(history.records, goals=spec.goals, by_seeds=spec.confirm is not None),
        result=result,
        edits=history.edits,
        changed=datetime.fromtimestamp(_last_change(folder)).astimezone().isoformat(timespec="seconds"),
    )


def sweeps_in(out: Path, name: str | None = None) -> list[str]:
    """Return the sweeps in ``out``, the last written to first; those of one job when ``name`` is a job's.

    Raises:
        InputError: there is nothing called ``name``.
    """
    if name is None:
        return [folder.name for folder in sorted(sweeps_of(out), key=_last_change, reverse=True)]
    return [member for member in members_of(out, name) if is_sweep(out / member)]


def members_of(out: Path, name: str) -> list[str]:
    """Return the sweeps of a job, begun or not; of a sweep itself.

    Raises:
        InputError: there is nothing called ``name``.
    """
    file = read_file(require_known(out, name))
    return [name] if file.kind == "sweep" else [f"{name}-{spec.family}" for spec in file.read_specs()]


def _last_change(folder: Path) -> float:
    names = ("sweep.json", "spec.yaml", "study.journal")
    return max(path.stat().st_mtime for name in names if (path := folder / name).exists())
