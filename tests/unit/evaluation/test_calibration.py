"""The expected calibration error, held against adding up one image after the other."""

from __future__ import annotations

import numpy as np
import pytest

from carcls.evaluation.calibration import BINS, calibration


def naive(confidences: list[float], hits: list[bool]) -> float:
    """Return the error as its formula says it, bin by bin: (b/m, (b + 1)/m]."""
    error = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        own = [i for i, c in enumerate(confidences) if low < c <= high or (number == 0 and c == 0)]
        if own:
            accuracy = sum(hits[i] for i in own) / len(own)
            error += len(own) / len(hits) * abs(accuracy - sum(confidences[i] for i in own) / len(own))
    return error


def test_the_error_is_what_its_formula_gives() -> None:
    """For answers of several hundred images, for one image, and for confidences of exactly 0 and 1."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        says = rng.random(300).astype(np.float32)
        hits = rng.random(300) < says**2
        found = calibration(says, hits)
        assert found.error == pytest.approx(naive(says.astype(float).tolist(), hits.tolist()))
        assert sum(one.accuracy.images for one in found.bins) == 300
        assert sum(one.accuracy.hits for one in found.bins) == hits.sum()
        assert all(one.low < one.confidence <= one.high for one in found.bins)
    assert calibration(np.array([0.7]), np.array([False])).error == pytest.approx(0.7)
    edges = calibration(np.array([0.0, 1.0, 1.0]), np.array([False, True, False]))
    assert edges.error == pytest.approx(2 / 3 * 0.5)
    assert [(one.low, one.high, one.accuracy.images) for one in edges.bins] == [(0.0, 1 / 15, 1), (14 / 15, 1.0, 2)]


def test_chance_explains_the_error_of_answers_that_are_as_right_as_they_say() -> None:
    """About 19 of 20 such sets of answers are below it; answers that are far too sure are above it."""
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(100):
        says = rng.uniform(0.2, 1.0, 150)
        found = calibration(says, rng.random(150) < says)
        below += found.error <= found.chance
    assert 88 <= below <= 100
    sure = calibration(np.full(150, 0.95), rng.random(150) < 0.6)
    assert sure.error > sure.chance


def test_sure_and_right_is_calibrated() -> None:
    """With every confidence 1 and every answer right there is no error, and chance gives none."""
    found = calibration(np.ones(9), np.ones(9, bool))
    assert (found.error, found.chance, found.confidence) == (0.0, 0.0, 1.0)
