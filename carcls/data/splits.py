"""Train, validation and test: stratified by class, near-duplicates on one side, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of ``Manifest.images`` per split, int64, sorted, disjoint; unreadable images are in none.

    Attributes:
        train, validation, test: the rows.
        unvalidated: labels that have no validation image, because their images are too few or near-duplicates.
    """

    train: Rows
    validation: Rows
    test: Rows
    unvalidated: tuple[int, ...] = ()


def quota(images: int, fraction: float) -> int:
    """Return how many of a class's images are cut off.

    The nearest whole number, but at least one from three images on, and never all.

    >>> [quota(n, 0.15) for n in (1, 2, 3, 10, 40)]
    [0, 0, 1, 2, 6]
    """
    least = 1 if images >= 3 else 0
    return min(max(least, round(images * fraction)), max(0, images - 1))


def cut_splits(
    labels: Rows,
    groups: Rows,
    train: Rows,
    test: Rows | None,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Splits:
    """Cut validation from ``train``, and before it test where the data set has none.

    Args:
        labels, groups: of all images, int64 [n]; images of one group are near-duplicates and stay on one side.
        train: rows to cut from, int64.
        test: rows of the data set's own test split; None cuts one from ``train``.
        validation_fraction, test_fraction: share of each class that is cut off, in (0, 0.9).
        seed: of the order in which groups are considered.
    """
    rest = np.sort(train)
    if test is None:
        rest, test = cut(labels, groups, rest, test_fraction, seed)
    kept, validation = cut(labels, groups, rest, validation_fraction, seed + 1)
    unvalidated = np.setdiff1d(labels[kept], labels[validation])
    return Splits(kept, validation, np.sort(test), tuple(int(label) for label in unvalidated))


def cut(labels: Rows, groups: Rows, rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Cut about ``fraction`` of each class off ``rows`` in whole groups; return what is kept and what is cut, sorted.

    Groups are taken in random order as long as no class gets more than its quota. A class that got nothing that way
    then takes its smallest group, if every class in that group keeps an image.
    """
    members = _members(groups, rows, seed)
    held = Counter(labels[rows].tolist())
    quotas = {label: quota(count, fraction) for label, count in held.items()}
    taken: Counter[int] = Counter()
    chosen: list[Rows] = []
    for group in members:
        counts = Counter(labels[group].tolist())
        if all(taken[label] + count <= quotas[label] for label, count in counts.items()):
            chosen.append(group)
            taken += counts
    chosen += _for_the_empty_handed(members, labels, quotas, held, taken)
    cut_off = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    return np.setdiff1d(rows, cut_off), cut_off


def _members(groups: Rows, rows: Rows, seed: int) -> list[Rows]:
    """Return the rows of each group, groups in random order."""
    order = rows[np.argsort(groups[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    members = np.split(order, starts)
    shuffled = np.random.default_rng(seed).permutation(len(members))
    return [members[position] for position in shuffled]


def _for_the_empty_handed(
    members: list[Rows], labels: Rows, quotas: dict[int, int], held: Counter[int], taken: Counter[int]
) -> list[Rows]:
    """Return one group for each class whose quota is not zero and that got none; updates ``taken``."""
    extra = []
    for label in sorted(label for label, wanted in quotas.items() if wanted and not taken[label]):
        if taken[label]:
            continue  # got one with an earlier class
        for group in sorted((group for group in members if label in labels[group]), key=len):
            counts = Counter(labels[group].tolist())
            if all(taken[other] + count < held[other] for other, count in counts.items()):
                extra.append(group)
                taken.update(counts)
                break
    return extra
