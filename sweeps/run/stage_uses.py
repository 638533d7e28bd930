"""What stages are worth: how long each took to make, how often a trial found one, and what that saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carcls.stages import seconds_of
from carcls.stages_disk import Stored, list_store
from sweeps.spec.sweep_file import sweeps_of
from sweeps.study.records import read_history


@dataclass(frozen=True, slots=True)
class KindUse:
    """The stages of one kind in a store.

    Attributes:
        kind: of stage.
        stages: whole ones.
        unfinished: those that go on some day, or are being made.
        bytes: that all of them take on disk.
        seconds: that the whole ones took to make.
        hits: how often a trial of any sweep found one that it had not made.
        saved: seconds of making that the hits took nobody.
    """

    kind: str
    stages: int
    unfinished: int
    bytes: int
    seconds: float
    hits: int
    saved: float


def use_by_kind(out: Path) -> list[KindUse]:
    """Return what the stages in ``out/stages`` are worth to the sweeps under ``out``, by kind in alphabetical order.

    Raises:
        InputError: the journal of a sweep is damaged.
    """
    kinds: defaultdict[str, list[Stored]] = defaultdict(list)
    for stored in list_store(out / "stages"):
        if stored.state != "trash":
            kinds[stored.kind].append(stored)
    saved: defaultdict[str, list[float]] = defaultdict(list)
    for record in (record for folder in sweeps_of(out) for record in read_history(folder).records):
        for name, seconds in record.stages.items():
            if seconds is not None:
                saved[name.partition("/")[0]].append(seconds)
    return [_use_of(kind, stages, saved[kind]) for kind, stages in sorted(kinds.items())]


def _use_of(kind: str, stages: Sequence[Stored], saved: Sequence[float]) -> KindUse:
    whole = [stored.path for stored in stages if stored.state == "made"]
    return KindUse(
        kind=kind,
        stages=len(whole),
        unfinished=len(stages) - len(whole),
        bytes=sum(stored.size for stored in stages),
        seconds=round(sum(map(seconds_of, whole)), 3),
        hits=len(saved),
        saved=round(sum(saved), 3),
    )
