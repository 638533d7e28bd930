"""Which stages may go, and in which order: mark what the records of all sweeps name, and sweep the rest. No torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from carcls.errors import InputError
from carcls.stages_disk import Stored
from sweeps.lock import holder_of
from sweeps.results.models import parts_of, ranked_models, wanted_models
from sweeps.spec.sweep_file import read_file, sweeps_of
from sweeps.study.records import read_history

if TYPE_CHECKING:
    from sweeps.trial import TrialRecord

# Why something may go, the readiest first. What is ``kept`` never goes.
Reason = Literal["leftover", "stopped", "unclaimed", "model", "unused", "kept"]
_ORDER = {reason: place for place, reason in enumerate(get_args(Reason))}
# Of no use to anybody; the others only go for the sake of a budget.
USELESS: tuple[Reason, ...] = ("leftover", "stopped", "unclaimed")
# What decides the splits of a data set, the number format, and what is known of networks: small, and asked for by all.
_NEVER = ("index", "precision", "network")
# How exactly clocks of machines that share a folder agree, in seconds.
SLACK = 60.0


@dataclass(slots=True)
class Marks:
    """What all the sweeps of a folder say of its stages, by their names (``kind/digest``); times are since 1970.

    Attributes:
        kept: what models worth keeping consist of, and what unfinished trials go on with.
        named: used by a trial of any sweep, whatever came of it, or while its images were read.
        models: of complete trials -> the best rank, from 1, of a trial that has it.
        in_use_since: what was used later may be open in a running trial.
        has_unnamed: whether a trial that ran names no stages, as older versions wrote them.
        has_unnamed_checkpoints: whether one of them is unfinished.
    """

    kept: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    models: dict[str, int] = field(default_factory=dict)
    in_use_since: float = math.inf
    has_unnamed: bool = False
    has_unnamed_checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """Something in the store, why it may go, and the rank of its model, if it is one."""

    stored: Stored
    reason: Reason
    rank: int = 0


def judge(stored: Stored, marks: Marks) -> Judged:
    """Say of something in a store whether it may go, and why."""
    return Judged(stored, _reason(stored, marks), marks.models.get(stored.name, 0))


def _reason(stored: Stored, marks: Marks) -> Reason:
    if stored.state in ("making", "trash"):
        return "leftover"
    if stored.kind in _NEVER or stored.name in marks.kept:
        return "kept"
    if stored.state == "unfinished":  # nobody but its maker, who holds its lock, has it open
        return "kept" if marks.has_unnamed_checkpoints else "stopped"
    if stored.used >= marks.in_use_since - SLACK:
        return "kept"
    if stored.name not in marks.named and not marks.has_unnamed:
        return "unclaimed"
    return "model" if stored.name in marks.models else "unused"


def choose(judged: Sequence[Judged], budget: int | None, *, useless_too: bool) -> list[Judged]:
    """Return what goes: what is of no use, if wanted, and then so much more that the rest fits the budget.

    Useless things go first, then models, the worst first, then what was not used for longest.

    Args:
        judged: everything in the store.
        budget: bytes; None is no limit.
        useless_too: whether what is of no use goes although the budget would hold it.
    """
    left = sum(one.stored.size for one in judged)
    chosen = []
    for one in sorted((one for one in judged if one.reason != "kept"), key=_readiness):
        over = budget is not None and left > budget
        if over or (useless_too and one.reason in USELESS):
            chosen.append(one)
            left -= one.stored.size
    return chosen


def _readiness(one: Judged) -> tuple[int, int, float, str]:
    return _ORDER[one.reason], -one.rank, one.stored.used, one.stored.name


def read_marks(out: Path, keep: int) -> Marks:
    """Return what the sweeps under ``out`` say of the stages in ``out/stages``, those that run included.

    Args:
        out: folder of all sweeps.
        keep: models to keep of each sweep, the best by validation accuracy; those of documented experiments are kept
            besides.

    Raises:
        InputError: a sweep cannot be read, so that nobody knows what it needs.
    """
    marks = Marks()
    for folder in sweeps_of(out):
        records, prepared = _read_sweep(folder)
        ranks = {model: rank for rank, model in enumerate(ranked_models(records), start=1)}
        parts = {model: parts_of(out / "stages", model) for model in {r.model for r in records if r.model}}
        wanted = wanted_models(records, keep)
        for record in records:
            _mark(marks, record, parts.get(record.model, ()), is_wanted=record.model in wanted)
        for model, rank in ranks.items():
            marks.models |= {part: min(rank, marks.models.get(part, rank)) for part in parts[model]}
        marks.named |= set(prepared)
        marks.in_use_since = min(marks.in_use_since, _in_use_since(folder, records))
    return marks


def _read_sweep(folder: Path) -> tuple[tuple[TrialRecord, ...], tuple[str, ...]]:
    """Return the sweep's trials, and the stages that its images were read with."""
    try:
        return read_history(folder).records, read_file(folder).stages
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"--out must be a folder whose sweeps can be read, got {str(folder)!r} ({type(error).__name__}: {said}), "
            "so that nobody knows which stages it needs. Repair it, or move it away."
        ) from error


def _mark(marks: Marks, record: TrialRecord, parts: Sequence[str], *, is_wanted: bool) -> None:
    """Mark what a trial names, and what its model consists of, which older versions name too; with its answers."""
    names = record.stages.keys()
    own = {*parts, *([Path(record.predictions).parent.as_posix()] if record.predictions else [])}
    marks.named |= names | own
    if is_wanted:
        marks.kept |= own
    if record.status == "running":
        marks.kept |= {name for name in names if name.startswith("training/")}
    if not names and (record.epochs or record.model) and record.sibling_of is None:
        marks.has_unnamed = True
        marks.has_unnamed_checkpoints |= record.status == "running"


def _in_use_since(folder: Path, records: Iterable[TrialRecord]) -> float:
    """Return when the oldest of the trials that run began; now, where a sweep runs but no trial of it.

    A trial that began before the sweep's process has not been taken up again.
    """
    holder = holder_of(folder)
    if holder is None:
        return math.inf
    since = datetime.fromisoformat(holder.since).timestamp() if holder.since else 0.0
    running = (record.began for record in records if record.status == "running")
    return min((began for began in running if began >= since), default=time.time())
