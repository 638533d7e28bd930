"""Whether a classifier is right as often as it says.

Letters: n images; m bins, the b-th of which holds n_b images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.evaluation.significance import Proportion

BINS, DRAWS = 15, 1000


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """The images answered with a confidence in (low, high], in the first bin in [low, high], and its mean."""

    low: float
    high: float
    confidence: float
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence and accuracy are apart.

    Attributes:
        error: the expected calibration error, in [0, 1].
        chance: as great an error show in one of 20 cases answers that are right exactly as often as these say.
        confidence: the mean over all images, in [0, 1].
        bins: those that hold images, from low to high.
    """

    error: float
    chance: float
    confidence: float
    bins: tuple[ConfidenceBin, ...]


def calibration(confidences: NDArray[np.floating], hits: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Return the expected calibration error, ECE = Σ_b n_b/n · |accuracy_b − confidence_b|, and what it consists of.

    The m bins are equally wide; a confidence on the edge of two is in the lower one; empty bins add nothing. The fewer
    images, the more of the error is chance: ``chance`` is its 95% quantile when hits are drawn from the confidences.
    Sources: Naeini, Cooper and Hauskrecht 2015 (AAAI); 15 bins as Guo et al. 2017 (ICML); drawing ("consistency
    resampling") Bröcker and Smith 2007 (Weather and Forecasting 22).

    Args:
        confidences: the probability of each answer, in [0, 1], [n], n at least 1.
        hits: whether each is right, bool [n].
        bins: m.

    >>> found = calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]))
    >>> round(found.error, 3), [one.accuracy.value for one in found.bins]
    (0.1, [0.5, 1.0])
    """
    says, count = confidences.astype(np.float64), len(confidences)
    numbers, places = np.unique(_places(says, bins), return_inverse=True)
    images, right, said = np.bincount(places), np.bincount(places, hits), np.bincount(places, says)
    rng = np.random.default_rng(0)
    drawn = [_apart(np.bincount(places, rng.random(count) < says), said) for _ in range(DRAWS)]
    found = tuple(
        ConfidenceBin(low / bins, (low + 1) / bins, total / held, Proportion(int(hit), int(held)))
        for low, held, hit, total in zip(*(each.tolist() for each in (numbers, images, right, said)), strict=True)
    )
    return Calibration(_apart(right, said) / count, float(np.quantile(drawn, 0.95)) / count, float(says.mean()), found)


def expected_error(confidences: NDArray[np.floating], hits: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the error of ``calibration`` alone; arguments as there."""
    places = _places(confidences, bins)
    return _apart(np.bincount(places, hits), np.bincount(places, confidences)) / len(places)


def _places(confidences: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """Return the bin of each confidence, int64 [n]."""
    says = confidences.astype(np.float64)
    found: NDArray[np.int64] = np.clip(np.ceil(says * bins) - 1, 0, bins - 1).astype(np.int64)
    return found


def _apart(right: NDArray[Any], said: NDArray[Any]) -> float:
    return float(np.abs(right - said).sum())
