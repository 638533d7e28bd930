"""How far a measured accuracy can be believed, and whether two classifiers differ, each trained once or several times.

Letters: n images; m runs of the first, k runs of the second: one, or one for each seed. Images that both sides have
right, or both wrong, say nothing about which one is better; first_only and second_only count the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
LEVEL = 0.05
# What a test that does not reject says; it never says that two are equal.
NO_DIFFERENCE = "no difference shown"
RESAMPLES = 9999
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many images of so many; ``value`` in [0, 1] is None, and ``interval`` (0, 1), where there are none.

    >>> Proportion(3, 4).value, [round(end, 2) for end in Proportion(3, 4).interval]
    (0.75, [0.3, 0.95])
    """

    hits: int
    images: int

    @property
    def value(self) -> float | None:
        """hits / images."""
        return self.hits / self.images if self.images else None

    @property
    def interval(self) -> tuple[float, float]:
        """95%, by ``wilson_interval``."""
        return wilson_interval(self.hits, self.images)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two classifiers on the same images.

    Attributes:
        images: n, at least 1.
        first_accuracy, second_accuracy: in [0, 1]; means over runs.
        first_only, second_only: images that only the one, or only the other, has right; with several runs, of which it
            has the larger share of its runs right.
        difference: first_accuracy - second_accuracy, in [-1, 1].
        interval: of the difference, 95%, both ends in [-1, 1]: Tango's (``difference_interval``) for one run each,
            else by ``paired_bootstrap``.
        p_value: in [0, 1], by ``flip_test``; for one run each that is the exact McNemar test.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    first_only: int
    second_only: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    def shows(self, p_value: float) -> bool:
        """Tell whether a difference is shown, with the p-value after a correction: both methods must say so."""
        low, high = self.interval
        return p_value <= LEVEL and not low <= 0.0 <= high


def compare_hits(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedComparison:
    """Compare two classifiers by what they have right.

    Args:
        first, second: bool [m, n] and [k, n], or [n] for one run; all at least 1, of the same images in the same order.

    >>> c = compare_hits(np.array([True, True, True, False]), np.array([True, False, False, False]))
    >>> c.first_only, c.second_only, c.difference, c.p_value
    (2, 0, 0.5, 0.5)
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    assert first.shape[1] == second.shape[1] > 0
    margins, images = _margins(first, second), first.shape[1]
    first_only, second_only = int((margins > 0).sum()), int((margins < 0).sum())
    are_single = len(first) == len(second) == 1
    return PairedComparison(
        images=images,
        first_accuracy=float(first.mean()),
        second_accuracy=float(second.mean()),
        first_only=first_only,
        second_only=second_only,
        difference=int(margins.sum()) / (len(first) * len(second) * images),
        interval=(
            difference_interval(first_only, second_only, images) if are_single else paired_bootstrap(first, second)
        ),
        p_value=flip_test(first, second),
    )


def _margins(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return by how much the first has an image oftener right, int64 [n], in units of 1 / (m k)."""
    margins: NDArray[np.int64] = len(second) * first.sum(axis=0, dtype=np.int64)
    margins -= len(first) * second.sum(axis=0, dtype=np.int64)
    return margins


def difference_interval(first_only: int, second_only: int, images: int, z: float = Z95) -> tuple[float, float]:
    """Return Tango's score interval of the difference of two accuracies on the same images, both ends in [-1, 1].

    It holds every difference d that the score test does not reject, |Z(d)| ≤ z, with

        Z(d) = (first_only - second_only - n d) / √(n (2 q + d (1 - d))),

    where q is the likeliest share of images that only the second has right if the true difference is d: the larger
    root of 2n q² + (d (2n - first_only + second_only) - first_only - second_only) q - second_only · d (1 - d) = 0.

    Source: Tango 1998 (Statistics in Medicine 17); recommended for paired shares by Newcombe 1998 and by Fagerland,
    Lydersen and Laake 2014. No bootstrap, because this one needs no seed and holds its level for a handful of
    discordant images too; with none it is ±z² / (n + z²). It and the exact test are two methods, and near 5% it may
    leave out 0 where the test, which is the more cautious one, does not reject.

    Args:
        first_only, second_only: images that only the one, or only the other, has right.
        images: n, at least 1.
        z: quantile of the standard normal distribution that belongs to the level; 95% unless given.

    >>> [round(end, 3) for end in difference_interval(1, 7, 21)]
    [-0.517, -0.026]
    """

    def is_rejected(difference: float) -> bool:
        middle = difference * (1 - difference)
        half = (difference * (2 * images - first_only + second_only) - first_only - second_only) / (4 * images)
        share = math.sqrt(max(0.0, half**2 + second_only * middle / (2 * images))) - half
        distance = first_only - second_only - images * difference
        # Not divided: where the variance is 0, every difference but the one seen is rejected.
        return distance**2 > z**2 * max(0.0, images * (2 * share + middle))

    def end(outside: float) -> float:
        inside = (first_only - second_only) / images
        if not is_rejected(outside):
            return outside
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if is_rejected(middle) else (middle, outside)
        return inside

    return end(-1.0), end(1.0)


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


def wilson_interval(hits: int, images: int) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, both ends in [0, 1].

    Source: Wilson 1927; recommended over the normal approximation by Brown, Cai and DasGupta 2001. No images: (0, 1).

    >>> [round(end, 4) for end in wilson_interval(5933, 8041)]
    [0.7281, 0.7473]
    """
    if images == 0:
        return 0.0, 1.0
    share, spread = hits / images, Z95 * Z95 / images
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / images + spread / (4 * images)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_bootstrap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the 95% interval of the difference of two mean accuracies, both ends in [-1, 1].

    Images are drawn with replacement, for both sides the same ones; where a side has several runs, its runs are too:
    another training would have given other answers. The ends are percentiles. Where every image is answered alike there
    is nothing to draw from; the interval is then Tango's, ±z² / (n + z²) (``difference_interval``).

    With three runs each it covers 87% to 99%, more the less the seeds matter; drawing images alone would cover 42%
    where seeds matter as much as the 1,222 images do. Sources: Efron and Tibshirani 1993, chapter 13; for two things
    drawn at once Owen 2007 (Annals of Applied Statistics 1), whose interval is too wide rather than too narrow.

    Args:
        first, second: as in ``compare_hits``, with both axes. The same ones give the same interval.
    """
    answers, images = np.concatenate([first, second]), first.shape[1]
    if (answers == answers[0]).all():
        return difference_interval(0, 0, images)
    # Images that all runs answered alike are the same image: a handful of patterns is drawn from, not n images.
    patterns, counts = np.unique(answers, axis=1, return_counts=True)
    rng = np.random.default_rng(0)
    accuracies = rng.multinomial(images, counts / images, size=RESAMPLES) @ patterns.T / images  # [resamples, m + k]
    means = []
    for side in np.split(accuracies, [len(first)], axis=1):
        runs = side.shape[1]
        means.append((side * rng.multinomial(runs, np.full(runs, 1 / runs), size=RESAMPLES)).sum(axis=1) / runs)
    low, high = np.quantile(means[0] - means[1], [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def flip_test(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of the exact test that changes the sides' places image by image.

    If neither side is better, an image's difference of mean correctness is as likely with the other sign. The p-value
    is the share of all 2^n signs whose sum is at least as far from 0 as the one seen, summed exactly: differences are
    whole numbers in units of 1 / (m k). The runs are taken as they are: that other seeds would give others is seen by
    the interval only. Source: Fisher's randomization test for pairs (The Design of Experiments, 1935).

    With one run each this is the exact McNemar test, 2 · P[Binomial(first_only + second_only, 1/2) ≤ the smaller one],
    at most 1 (McNemar 1947, Psychometrika 12; the exact conditional form as in Fay 2010, Biostatistics 11), which
    rejects a true null in at most 5% of cases.

    Args:
        first, second: as in ``compare_hits``, with both axes.
    """
    differences = _margins(first, second)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        # Of each sum of ``count`` signs times ``size``: each head of a fair coin more adds twice the size.
        heads = [math.lgamma(count + 1) - math.lgamma(h + 1) - math.lgamma(count - h + 1) for h in range(count + 1)]
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = np.exp(np.array(heads) - count * math.log(2))
        chances = np.convolve(chances, spread)
    # Of the sum of the signs' differences, from -reach to reach in steps of one, chances say how likely each is.
    reach, seen = len(chances) // 2, abs(int(differences.sum()))
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= seen].sum()))
