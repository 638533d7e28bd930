"""How far a measured accuracy can be believed, and whether two of them differ.

Letters: n images; first_only of them only the first classifier has right, second_only only the second. These are the
discordant pairs: what both have right, or both wrong, says nothing about which one is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
LEVEL = 0.05
# What a test that does not reject says; it never says that two are equal.
NO_DIFFERENCE = "no difference shown"
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two classifiers on the same images.

    Attributes:
        images: n, at least 1.
        first_accuracy, second_accuracy: in [0, 1].
        first_only, second_only: images that only the one, or only the other, has right.
        difference: first_accuracy - second_accuracy, in [-1, 1].
        interval: of the difference, 95%, both ends in [-1, 1] (``difference_interval``).
        p_value: of the exact McNemar test, in [0, 1] (``mcnemar_exact``).
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    first_only: int
    second_only: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def compare_hits(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedComparison:
    """Compare two classifiers by what they have right.

    Args:
        first, second: bool [n], n at least 1, of the same images in the same order.

    >>> c = compare_hits(np.array([True, True, True, False]), np.array([True, False, False, False]))
    >>> c.first_only, c.second_only, c.difference, c.p_value
    (2, 0, 0.5, 0.5)
    """
    assert first.shape == second.shape
    assert len(first) > 0
    images = len(first)
    hits, other_hits = int(first.sum()), int(second.sum())
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    return PairedComparison(
        images=images,
        first_accuracy=hits / images,
        second_accuracy=other_hits / images,
        first_only=first_only,
        second_only=second_only,
        difference=(first_only - second_only) / images,
        interval=difference_interval(first_only, second_only, images),
        p_value=mcnemar_exact(first_only, second_only),
    )


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    If neither classifier is better, each discordant image is one side's with probability 1/2, so first_only follows
    Binomial(m, 1/2) with m = first_only + second_only, and

        p = min(1, 2 · P[Binomial(m, 1/2) ≤ min(first_only, second_only)]).

    Exact in whole numbers, for any m. No discordant image: p = 1. Source: McNemar 1947 (Psychometrika 12); the exact
    conditional form as in Fay 2010 (Biostatistics 11). It is cautious: it rejects a true null in at most 5% of cases.

    >>> mcnemar_exact(0, 6), mcnemar_exact(3, 3), mcnemar_exact(0, 0)
    (0.03125, 1.0, 1.0)
    """
    pairs = first_only + second_only
    ways, total = 1, 0
    for hits in range(min(first_only, second_only) + 1):
        total += ways
        ways = ways * (pairs - hits) // (hits + 1)
    share: float = 2 * total / 2**pairs
    return min(1.0, share)


def difference_interval(first_only: int, second_only: int, images: int, z: float = Z95) -> tuple[float, float]:
    """Return Tango's score interval of the difference of two accuracies on the same images, both ends in [-1, 1].

    It holds every difference d that the score test does not reject, |Z(d)| ≤ z, with

        Z(d) = (first_only - second_only - n d) / √(n (2 q + d (1 - d))),

    where q is the likeliest share of images that only the second has right if the true difference is d: the larger
    root of 2n q² + (d (2n - first_only + second_only) - first_only - second_only) q - second_only · d (1 - d) = 0.

    Source: Tango 1998 (Statistics in Medicine 17); recommended for paired shares by Newcombe 1998 and by Fagerland,
    Lydersen and Laake 2014. No bootstrap, because this one needs no seed and holds its level for a handful of
    discordant images too; with none it is ±z² / (n + z²). No images: (-1, 1). It and the exact test are two
    methods, and near 5% it may leave out 0 where the test, which is the more cautious one, does not reject.

    >>> [round(end, 3) for end in difference_interval(1, 7, 21)]
    [-0.517, -0.026]
    """
    if images == 0:
        return -1.0, 1.0
    estimate = (first_only - second_only) / images

    def is_rejected(difference: float) -> bool:
        return abs(_score(first_only, second_only, images, difference)) > z

    return _last_accepted(estimate, -1.0, is_rejected), _last_accepted(estimate, 1.0, is_rejected)


def _score(first_only: int, second_only: int, images: int, difference: float) -> float:
    a = 2 * images
    b = difference * (2 * images - first_only + second_only) - first_only - second_only
    c = -second_only * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = images * (2 * share + difference * (1 - difference))
    distance = first_only - second_only - images * difference
    if variance <= 0.0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _last_accepted(inside: float, outside: float, is_rejected: Callable[[float], bool]) -> float:
    """Return the end of the accepted values between an accepted one and the end of the range."""
    if not is_rejected(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_rejected(middle) else (middle, outside)
    return inside


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: those at most 5% are rejected, with 5% for all together.

    The i-th smallest of m (i from 0) becomes max over j ≤ i of min(1, (m - j) · p_j). Source: Holm 1979
    (Scandinavian Journal of Statistics 6). Equal p-values stay equal; no p-values give no p-values.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def wilson_interval(hits: int, images: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, both ends in [0, 1].

    Source: Wilson 1927; recommended over the normal approximation by Brown, Cai and DasGupta 2001. No images: (0, 1).

    >>> [round(end, 4) for end in wilson_interval(5933, 8041)]
    [0.7281, 0.7473]
    """
    if images == 0:
        return 0.0, 1.0
    share, spread = hits / images, z * z / images
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / images + spread / (4 * images)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
