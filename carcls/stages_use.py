"""What stages are worth: how long each took to make, how often it was found, and what that saved.

Beside its files a stage has ``made.json`` with the seconds of its making, and ``hits`` with a byte for each time that
it was found instead of made: appending one is all that a finder does, so finders never wait for each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carcls.stages_disk import Stored, list_store

MADE, HITS = "made.json", "hits"


def note_made(folder: Path, seconds: float) -> None:
    """Write down how long the stage in ``folder`` took to make; before it is published."""
    (folder / MADE).write_text(json.dumps({"seconds": round(seconds, 3)}), encoding="utf-8")


def note_hit(folder: Path) -> float:
    """Count that the stage was found; return the seconds that its making took, 0 where nobody wrote them down."""
    with suppress(OSError):  # another user's store, or a full disk: nobody fails for the sake of a count
        descriptor = os.open(folder / HITS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)
    return seconds_of(folder)


def seconds_of(folder: Path) -> float:
    """Return how long the stage took to make; 0 for one that is older than these notes."""
    try:
        return float(json.loads((folder / MADE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def hits_of(folder: Path) -> int:
    """Return how often the stage was found."""
    try:
        return (folder / HITS).stat().st_size
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class KindUse:
    """The stages of one kind in a store.

    Attributes:
        kind: of stage.
        stages: whole ones.
        unfinished: those that go on some day, or are being made.
        bytes: that all of them take on disk.
        seconds: that the whole ones took to make.
        hits: how often one was found by a trial, or another user of the store, that had not made it.
        saved: seconds of making that the hits took nobody.
    """

    kind: str
    stages: int
    unfinished: int
    bytes: int
    seconds: float
    hits: int
    saved: float


def use_by_kind(root: Path) -> list[KindUse]:
    """Return what the stages in a store are worth, by kind in alphabetical order."""
    kinds: dict[str, list[Stored]] = {}
    for stored in list_store(root):
        if stored.state != "trash":
            kinds.setdefault(stored.kind, []).append(stored)
    return [_use_of(kind, stages) for kind, stages in sorted(kinds.items())]


def _use_of(kind: str, stages: Iterable[Stored]) -> KindUse:
    everything = list(stages)
    whole = [stored.path for stored in everything if stored.state == "made"]
    seconds, hits = [seconds_of(path) for path in whole], [hits_of(path) for path in whole]
    return KindUse(
        kind=kind,
        stages=len(whole),
        unfinished=len(everything) - len(whole),
        bytes=sum(stored.size for stored in everything),
        seconds=round(sum(seconds), 3),
        hits=sum(hits),
        saved=round(sum(one * count for one, count in zip(seconds, hits, strict=True)), 3),
    )
