"""What decoding finds of a data set besides pixels: images that cannot be read, and images that are one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Broken = tuple[int, str]

KINDS = ("equal", "same frame", "other frame", "mirrored")
"""How a copy differs: not at all on its thumbnail; in compression, size, light or contrast alone; cropped, turned or
with a border; mirrored, and perhaps more."""


@dataclass(frozen=True, eq=False)
class Copies:
    """Pairs of images that are one photograph, each once, sorted.

    Attributes:
        pairs: rows of images, int64 [p, 2], the lower first.
        kinds: positions in KINDS, int8 [p].
        scores: the least share of detail in common of all parts of the picture, float32 [p], in 0..1; 1 where equal.
    """

    pairs: NDArray[np.int64]
    kinds: NDArray[np.int8]
    scores: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write it as one .npy file, float64 [p, 4]."""
        np.save(path, np.column_stack([self.pairs, self.kinds, self.scores]).astype(np.float64))

    @classmethod
    def load(cls, path: Path) -> Copies:
        """Read what ``save`` wrote.

        Raises:
            OSError: it is missing.
            ValueError: it is something else.
        """
        table = np.load(path).reshape(-1, 4)
        return cls(table[:, :2].astype(np.int64), table[:, 2].astype(np.int8), table[:, 3].astype(np.float32))


@dataclass(frozen=True, eq=False)
class Index:
    """What decoding finds of n images besides their pixels; the same for every size.

    Attributes:
        copies: pairs of the readable images.
        broken: row and reason of every image that cannot be read, by row.
    """

    copies: Copies
    broken: tuple[Broken, ...]


def group_copies(copies: Copies, rows: NDArray[np.int64], *alike: Sequence[str]) -> NDArray[np.int64]:
    """Return a group number int64 [n] for each image; what chains of copies and equal names link shares one.

    Args:
        copies: pairs of images.
        rows: the images that count, int64; others are in groups of their own.
        alike: names [n] of each image that equal images have equal, such as digests of their files; an empty one says
            nothing.
    """
    total = len(alike[0])
    counts = np.zeros(total, bool)
    counts[rows] = True
    edges = [copies.pairs[counts[copies.pairs].all(axis=1)]]
    for names in map(np.asarray, alike):
        named = rows[names[rows] != ""]
        _, first, of_name = np.unique(names[named], return_index=True, return_inverse=True)
        edges.append(np.stack([named, named[first[of_name]]], axis=1))
    return components(total, *np.concatenate(edges).T)


def components(nodes: int, source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each node the least node that edges lead to; scipy's would take longer to import than a plan has.

    >>> components(5, np.array([0, 3]), np.array([4, 4])).tolist()
    [0, 1, 2, 0, 0]
    """
    least = np.arange(nodes)
    while True:
        lower = least.copy()
        both = np.minimum(least[source], least[target])
        np.minimum.at(lower, source, both)
        np.minimum.at(lower, target, both)
        lower = lower[lower]
        if np.array_equal(lower, least):
            return least
        least = lower
