"""Which stages may go, and in which order: mark what the records of all sweeps name, and sweep the rest. No torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from carcls.errors import InputError
from carcls.stages_disk import Stored
from sweeps.lock import holder_of
from sweeps.stored_models import parts_of, ranked_models, wanted_models
from sweeps.sweep_file import read_file, sweeps_of

if TYPE_CHECKING:
    from sweeps.record import TrialRecord

# Why something may go, the readiest first. What is ``kept`` never goes.
Reason = Literal["leftover", "stopped", "unclaimed", "model", "unused", "kept"]
_ORDER = {reason: place for place, reason in enumerate(get_args(Reason))}
# Of no use to anybody; the others only go for the sake of a budget.
USELESS: tuple[Reason, ...] = ("leftover", "stopped", "unclaimed")
# What decides the splits of a data set, the number format, and what is known of networks: small, and asked for by all.
_NEVER = ("index", "precision", "network")
# How exactly clocks of machines that share a folder agree, in seconds.
SLACK = 60.0


@dataclass(frozen=True, slots=True)
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

    kept: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    models: Mapping[str, int] = field(default_factory=dict)
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
    sweeps = [_read_sweep(folder, out / "stages") for folder in sweeps_of(out)]
    uses = [use for sweep in sweeps for use in sweep.uses]
    unnamed = [record for record, names in uses if not names and _has_run(record)]
    return Marks(
        kept=frozenset().union(*(_kept_by(sweep, keep) for sweep in sweeps)),
        named=frozenset().union(*(names for _, names in uses), *map(_claimed_by, sweeps)),
        models=_ranks_in(sweeps),
        in_use_since=min((_in_use_since(sweep) for sweep in sweeps), default=math.inf),
        has_unnamed=bool(unnamed),
        has_unnamed_checkpoints=any(record.status == "running" for record in unnamed),
    )


@dataclass(frozen=True, slots=True)
class _Sweep:
    """A sweep: its trials, each with the stages that it names; what its models consist of; what its images became."""

    folder: Path
    uses: tuple[tuple[TrialRecord, frozenset[str]], ...]
    parts: Mapping[str, Sequence[str]]
    prepared: Sequence[str]

    @property
    def records(self) -> list[TrialRecord]:
        return [record for record, _ in self.uses]


def _read_sweep(folder: Path, stages: Path) -> _Sweep:
    from sweeps.study_records import read_history

    try:
        records = read_history(folder).records
        parts = {model: parts_of(stages, model) for model in {record.model for record in records if record.model}}
        uses = tuple((record, frozenset(record.stages)) for record in records)
        return _Sweep(folder, uses, parts, read_file(folder).stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"--out must be a folder whose sweeps can be read, got {str(folder)!r} ({type(error).__name__}: {said}), "
            "so that nobody knows which stages it needs. Repair it, or move it away."
        ) from error


def _answers_of(record: TrialRecord) -> list[str]:
    """Return the stage with the trial's validation answers, if it has one."""
    return [Path(record.predictions).parent.as_posix()] if record.predictions else []


def _claimed_by(sweep: _Sweep) -> set[str]:
    """Return what the sweep names besides the stages that its trials used; for those that name none it is all."""
    answers = (name for record in sweep.records for name in _answers_of(record))
    return {*sweep.prepared, *answers, *(part for parts in sweep.parts.values() for part in parts)}


def _kept_by(sweep: _Sweep, keep: int) -> set[str]:
    """Return the stages of the models that the sweep keeps, with their answers, and what unfinished trials train on."""
    wanted = wanted_models(sweep.records, keep)
    kept = {part for model in wanted for part in sweep.parts[model]}
    kept |= {name for record in sweep.records if record.model in wanted for name in _answers_of(record)}
    going_on = (names for record, names in sweep.uses if record.status == "running")
    return kept | {name for names in going_on for name in names if name.startswith("training/")}


def _ranks_in(sweeps: Iterable[_Sweep]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for sweep in sweeps:
        for rank, model in enumerate(ranked_models(sweep.records), start=1):
            for name in sweep.parts[model]:
                ranks[name] = min(rank, ranks.get(name, rank))
    return ranks


def _has_run(record: TrialRecord) -> bool:
    """Tell whether the trial must have used stages."""
    return bool(record.epochs or record.model) and record.sibling_of is None


def _in_use_since(sweep: _Sweep) -> float:
    """Return when the oldest of the trials that run began; now, where a sweep runs but no trial of it.

    A trial that began before the sweep's process has not been taken up again.
    """
    holder = holder_of(sweep.folder)
    if holder is None:
        return math.inf
    since = datetime.fromisoformat(holder.since).timestamp() if holder.since else 0.0
    running = (record.began for record in sweep.records if record.status == "running")
    return min((began for began in running if began >= since), default=time.time())
