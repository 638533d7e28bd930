"""Unfreezing schedules: which parts of the backbone train at which epoch. Plain values, no torch.

A schedule counts the stages of a backbone that are open, from the head's side. Three have names:

- ``frozen``: none, ever; only the head trains.
- ``full``: all, from the first epoch.
- ``progressive``: none in the first fifth of the epochs (at least one), then one more at equal distances, all by half.

Any other is written out: ``2:1,4:3,6:all`` opens the last stage at epoch 2, three at epoch 4, all at epoch 6. Epochs
count from 0; one that is not named keeps what the one before had; before the first named one only the head trains.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Literal

from carcls.errors import shown

OpenStages = int | Literal["all"]
# An epoch, and how many stages are open from it on.
_PAIR = re.compile(r"\s*([0-9]{1,9})\s*:\s*(all|0*[1-9][0-9]{0,8})\s*", re.ASCII)
NAMED = ("frozen", "full", "progressive")
ONE_IMAGE_REFUSED = (
    "batches must hold at least 2 images for {backbone} at {side} pixels, got 1: where its maps have shrunk to one "
    "place, BatchNorm cannot take the variance of one value. Raise batch_size or image_size."
)


def parse_unfreezing(text: str) -> tuple[tuple[int, OpenStages], ...] | str:
    """Return the name as it is, or the written-out schedule as (epoch, open stages) pairs.

    Raises:
        ValueError: the text is neither, or its epochs or stages do not rise.
    """
    if text in NAMED:
        return text
    try:
        pairs = tuple(_parse_pair(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"unfreezing must be frozen, full, progressive or like '2:1,4:all' (epoch:open stages), got {shown(text)}."
        ) from None
    epochs = [epoch for epoch, _ in pairs]
    counts = [math.inf if count == "all" else count for _, count in pairs]
    rising = all(a < b for a, b in pairwise(epochs)) and all(a < b for a, b in pairwise(counts))
    if not rising:
        raise ValueError(f"unfreezing must name rising epochs and rising numbers of open stages, got {shown(text)}.")
    return pairs


def _parse_pair(part: str) -> tuple[int, OpenStages]:
    found = _PAIR.fullmatch(part)
    if found is None:
        raise ValueError(part)
    epoch, count = found.groups()
    return int(epoch), "all" if count == "all" else int(count)


def stays_frozen(text: str, epochs: int) -> bool:
    """Tell whether no stage of a backbone opens in so many epochs.

    >>> stays_frozen("frozen", 3), stays_frozen("5:all", 3), stays_frozen("2:1", 3)
    (True, True, False)
    """
    return open_stages(text, epochs - 1, epochs, 1) == 0


def open_stages(text: str, epoch: int, epochs: int, stages: int) -> int:
    """Return how many stages are open at ``epoch`` (from 0) of ``epochs``, of a backbone with ``stages`` stages.

    >>> [open_stages("progressive", e, 10, 5) for e in range(10)]
    [0, 0, 1, 2, 3, 5, 5, 5, 5, 5]
    >>> [open_stages("2:1,3:all", e, 5, 5) for e in range(5)]
    [0, 0, 1, 5, 5]
    """
    schedule = parse_unfreezing(text)
    if schedule == "frozen":
        return 0
    if schedule == "full":
        return stages
    if schedule == "progressive":
        return _progressive(epoch, epochs, stages)
    assert not isinstance(schedule, str)
    reached: list[OpenStages] = [0, *(count for start, count in schedule if epoch >= start)]
    return stages if reached[-1] == "all" else min(reached[-1], stages)


def _progressive(epoch: int, epochs: int, stages: int) -> int:
    first = max(1, epochs // 5)
    last = max(first, epochs // 2)
    if epoch < first:
        return 0
    if epoch >= last:
        return stages
    return 1 + (epoch - first) * (stages - 1) // max(1, last - first)
