"""Unfreezing schedules: which parts of the backbone train at which epoch. Plain values, no torch.

A schedule counts the stages of a backbone that are unfrozen, from the head's side. Three have names:

- ``frozen``: none, ever; only the head trains.
- ``full``: all, from the first epoch.
- ``progressive``: none in the first fifth of the epochs (at least one), then one more at equal distances, all by half.

Any other is written out: ``2:1,4:3,6:all`` unfreezes the last stage at epoch 2, three at 4, all at 6. Epochs count from
0; one that is not named keeps what the one before had; before the first named one only the head trains.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

from carcls.errors import shown

# Epochs, and how many stages are unfrozen from each on; infinitely many are all.
Schedule = tuple[tuple[int, float], ...]
_PAIR = re.compile(r"\s*([0-9]{1,9})\s*:\s*(all|0*[1-9][0-9]{0,8})\s*", re.ASCII)
# The third one depends on how many epochs there are.
NAMED: dict[str, Schedule | None] = {"frozen": (), "full": ((0, math.inf),), "progressive": None}


def parse_unfreezing(text: str) -> Schedule | None:
    """Return the schedule that a text names or writes out; None for ``progressive``.

    Raises:
        ValueError: the text is neither, or its epochs or stages do not rise.

    >>> parse_unfreezing("2:1,4:3,6:all")
    ((2, 1), (4, 3), (6, inf))
    """
    if text in NAMED:
        return NAMED[text]
    pairs = [_PAIR.fullmatch(part) for part in text.split(",")]
    schedule = tuple((int(pair[1]), math.inf if pair[2] == "all" else int(pair[2])) for pair in pairs if pair)
    if len(schedule) < len(pairs):
        raise ValueError(
            f"unfreezing must be frozen, full, progressive or like '2:1,4:all' (epoch:stages), got {shown(text)}."
        )
    if not all(epoch < later and count < more for (epoch, count), (later, more) in pairwise(schedule)):
        raise ValueError(f"unfreezing must name rising epochs and rising numbers of stages, got {shown(text)}.")
    return schedule


def stays_frozen(text: str, epochs: int) -> bool:
    """Tell whether no stage of a backbone is unfrozen in so many epochs.

    >>> stays_frozen("frozen", 3), stays_frozen("5:all", 3), stays_frozen("2:1", 3)
    (True, True, False)
    """
    return unfrozen_stages(text, epochs - 1, epochs, 1) == 0


def first_unfrozen(text: str, epochs: int) -> int:
    """Return the first epoch (from 0) in which any stage of a backbone is unfrozen; ``epochs`` where none ever is.

    >>> first_unfrozen("frozen", 3), first_unfrozen("full", 3), first_unfrozen("2:1", 3)
    (3, 0, 2)
    """
    return next((epoch for epoch in range(epochs) if unfrozen_stages(text, epoch, epochs, 1)), epochs)


def unfrozen_stages(text: str, epoch: int, epochs: int, stages: int) -> int:
    """Return how many stages are unfrozen at ``epoch`` (from 0) of ``epochs``, of a backbone with ``stages`` stages.

    >>> [unfrozen_stages("progressive", e, 10, 5) for e in range(10)]
    [0, 0, 1, 2, 3, 5, 5, 5, 5, 5]
    >>> [unfrozen_stages("2:1,3:all", e, 5, 5) for e in range(5)]
    [0, 0, 1, 5, 5]
    """
    schedule = parse_unfreezing(text)
    if schedule is None:
        return _progressive(epoch, epochs, stages)
    return int(min(stages, max((count for start, count in schedule if epoch >= start), default=0)))


def _progressive(epoch: int, epochs: int, stages: int) -> int:
    first = max(1, epochs // 5)
    last = max(first, epochs // 2)
    if epoch < first:
        return 0
    if epoch >= last:
        return stages
    return 1 + (epoch - first) * (stages - 1) // max(1, last - first)
