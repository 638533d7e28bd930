"""Which classes a classifier takes for which, counted from its answers; shares with intervals, for classes are small.

Letters: n images, c classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.evaluation.significance import Proportion

Cell = tuple[int, int, int]
"""True class, answered class, and how many images: an entry of the confusion matrix that is not 0."""


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two classes, and how many images of the one were taken for the other; more of the first than of the second."""

    first: int
    second: int
    first_as_second: int
    second_as_first: int

    @property
    def images(self) -> int:
        """Both together."""
        return self.first_as_second + self.second_as_first


@dataclass(frozen=True, slots=True)
class ClassScore:
    """What became of the images of one class.

    Attributes:
        label: the class.
        recall: of its images those that were recognised.
        precision: of the images that were taken for it those that are of it.
        taken_for: the class that its other images are taken for most often, of equals the lowest; None where none was.
        taken: how many of them.
    """

    label: int
    recall: Proportion
    precision: Proportion
    taken_for: int | None = None
    taken: int = 0


def count_answers(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[Cell, ...]:
    """Return the confusion matrix by true class, then by answered class; both arguments are int64 [n].

    >>> count_answers(np.array([0, 0, 1]), np.array([1, 1, 1]))
    ((0, 1, 2), (1, 1, 1))
    """
    counts = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    return tuple((*cell, count) for cell, count in sorted(counts.items()))


def confused_pairs(cells: Iterable[Cell], most: int) -> tuple[ConfusedPair, ...]:
    """Return the pairs of classes that are confused most often, both directions counted together.

    Of equals first the one that is confused more in one direction, then the one of lower classes.

    >>> confused_pairs([(0, 1, 1), (1, 0, 2), (1, 1, 9)], 10)
    (ConfusedPair(first=1, second=0, first_as_second=2, second_as_first=1),)
    """
    wrong = {(true, said): count for true, said, count in cells if true != said}
    pairs = [
        ConfusedPair(true, said, count, back)
        for (true, said), count in wrong.items()
        if (count, said) > ((back := wrong.get((said, true), 0)), true)  # each pair in one of its directions
    ]
    pairs.sort(key=lambda pair: (-pair.images, -pair.first_as_second, pair.first, pair.second))
    return tuple(pairs[:most])


def class_scores(cells: Iterable[Cell], classes: int) -> tuple[ClassScore, ...]:
    """Return the score of each of c classes, by its number."""
    images, answered, hits, taken = Counter[int](), Counter[int](), Counter[int](), dict[int, tuple[int, int]]()
    for true, said, count in sorted(cells):
        images[true] += count
        answered[said] += count
        if true == said:
            hits[true] = count
        elif count > taken.get(true, (0, 0))[1]:
            taken[true] = (said, count)
    return tuple(
        ClassScore(one, Proportion(hits[one], images[one]), Proportion(hits[one], answered[one]), *taken.get(one, ()))
        for one in range(classes)
    )
