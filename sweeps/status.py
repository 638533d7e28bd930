"""How sweeps stand, read from what they have written: at any time, from any terminal, without Ray or a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carcls.errors import InputError
from sweeps.holding import Holder, asked_to_stop, holder_of
from sweeps.remembered import names_in, require_known
from sweeps.spec import SweepSpec
from sweeps.sweep_file import is_sweep, read_file, read_spec

if TYPE_CHECKING:
    from sweeps.leaderboard import Leaderboard
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult

State = Literal["running", "stopping", "unfinished", "finished"]
JOBS = ("all", "reproduce")


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """How one sweep stands.

    Attributes:
        name: of the sweep.
        spec: that it was left with.
        state: ``running``; ``stopping`` once somebody asked for it; ``unfinished`` when nothing runs it but trials, or
            the reading of the test images, are left; ``finished``.
        holder: who runs it; None when nobody does.
        board: the trials that its journal has now, in their order.
        result: what it left when it ended last; None before, or where that is damaged.
        edits: what was changed since the sweep was begun.
        changed: when the journal was last written to, an ISO time.
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
        """Trials that were run, by how they ended; neither siblings nor those that confirm others."""
        search = (t for t in self.board.trials if t.sibling_of is None and t.confirms is None)
        return dict(Counter(trial.status for trial in search))

    @property
    def ended(self) -> int:
        """Trials that ended, however."""
        return sum(count for status, count in self.counts.items() if status != "running")

    @property
    def siblings(self) -> int:
        """Settings that were answered on the way of trials."""
        return sum(trial.sibling_of is not None for trial in self.board.trials)

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that run, or that the next driver begins with."""
        return [trial for trial in self.board.trials if trial.status == "running" and trial.sibling_of is None]

    @property
    def best_accuracy(self) -> float | None:
        """Validation accuracy of the trial that would win now, in [0, 1]."""
        return self.board.best.measured("val_accuracy") if self.board.best else None

    @property
    def test_accuracy(self) -> float | None:
        """Of the winner, once it was tested, in [0, 1]."""
        test = self.result.test if self.result else None
        return test.metrics.get("test_accuracy") if test else None

    @property
    def registered(self) -> str:
        """``NAME VERSION`` of the winner; empty without one."""
        model = self.result.registered if self.result else None
        return f"{model.name} {model.version}" if model else ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        twins = [{"number": t.number, "same_as": r.number, "near": t.near} for r in self.board.trials for t in r.twins]
        return {
            "name": self.name,
            "family": self.spec.family,
            "state": self.state,
            "holder": asdict(self.holder) if self.holder else None,
            "trials": self.spec.trials,
            "ended": self.ended,
            "counts": self.counts,
            "siblings": self.siblings,
            "twins": sorted(twins, key=lambda twin: twin["number"]),
            "unfinished": [_unfinished_json(record) for record in self.unfinished],
            "best": self.board.best.number if self.board.best else None,
            "best_accuracy": self.best_accuracy,
            "test_accuracy": self.test_accuracy,
            "registered": self.registered,
            "edits": list(self.edits),
            "changed": self.changed,
        }


def sweep_status(out: Path, name: str) -> SweepStatus:
    """Return how one sweep stands.

    Raises:
        InputError: there is none of that name, or its files are damaged.
    """
    from sweeps.leaderboard import Leaderboard
    from sweeps.study_journal import JOURNAL
    from sweeps.study_records import read_history

    folder = require_known(out, name)
    spec, holder, history, result = read_spec(folder), holder_of(folder), read_history(folder), _result_of(folder)
    journal = folder / JOURNAL
    written = (journal if journal.exists() else read_file(folder).path).stat().st_mtime
    return SweepStatus(
        name=name,
        spec=spec,
        state=_state(folder, holder, history.records, result),
        holder=holder,
        board=Leaderboard(history.records, goals=spec.goals),
        result=result,
        edits=history.edits,
        changed=datetime.fromtimestamp(written).astimezone().isoformat(timespec="seconds"),
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


def _state(folder: Path, holder: Holder | None, records: Sequence[TrialRecord], result: SweepResult | None) -> State:
    if holder is not None:
        return "running" if asked_to_stop(folder) is None else "stopping"
    if result is None or result.interrupted:
        return "unfinished"
    then = {trial.number: trial.status for trial in result.trials}
    same = all(then.get(record.number) == record.status for record in records if record.sibling_of is None)
    return "finished" if same and "running" not in then.values() else "unfinished"


def _unfinished_json(record: TrialRecord) -> dict[str, Any]:
    """Return what is told of a trial that has begun and not ended."""
    return {
        "number": record.number,
        "experiment": record.experiment,
        "epoch": record.epochs,
        "epochs": record.config["epochs"],
        "accuracy": record.measured("val_accuracy"),
        "confirms": record.confirms,
    }


def _result_of(folder: Path) -> SweepResult | None:
    """Return what the sweep left; a damaged file is none, for the next driver writes it anew."""
    from sweeps.result import read_result

    try:
        return read_result(folder)
    except InputError:
        return None


def _last_change(folder: Path) -> float:
    names = ("sweep.json", "spec.yaml", "study.journal")
    return max(path.stat().st_mtime for name in names if (path := folder / name).exists())
