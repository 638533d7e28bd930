"""Whether two sets of runs differ on the same images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm

from carcls.evaluation.significance import difference_interval, mcnemar_exact
from carcls.evaluation.significance_seeds import compare_runs, flip_test, paired_bootstrap

Hits = NDArray[np.bool_]


def drawn_runs(rng: np.random.Generator, shift: float, *, runs: int, images: int, seeds: float) -> tuple[Hits, Hits]:
    """Draw two models' runs on images of differing difficulty; seeds shift a whole run, and each answer is noisy."""
    difficulty = rng.normal(0.0, 1.5, images)

    def answers(mean: float) -> Hits:
        noise = rng.normal(0.0, 1.0, (runs, images)) + rng.normal(0.0, seeds, (runs, 1))
        hits: Hits = difficulty + mean + noise > 0
        return hits

    return answers(0.5 + shift), answers(0.5)


def true_difference(shift: float, seeds: float) -> float:
    """Return the difference that ``drawn_runs`` draws around."""
    scale = np.sqrt(1.5**2 + 1.0 + seeds**2)
    return float(norm.cdf((0.5 + shift) / scale) - norm.cdf(0.5 / scale))


@pytest.mark.parametrize(
    ("runs", "images", "seeds", "low", "high"),
    [(1, 120, 0.0, 0.92, 0.97), (1, 1222, 0.0, 0.92, 0.97), (3, 120, 0.0, 0.95, 1.0), (3, 1222, 0.05, 0.95, 1.0)],
)
def test_bootstrap_covers_a_known_difference(runs: int, images: int, seeds: float, low: float, high: float) -> None:
    """Intervals hold the true difference about 95 times in 100 with one run each, and no less with several."""
    rng, truth = np.random.default_rng(0), true_difference(0.1, seeds)
    covered = 0
    for _ in range(500):
        first, second = drawn_runs(rng, 0.1, runs=runs, images=images, seeds=seeds)
        ends = paired_bootstrap(first, second, seed=int(rng.integers(2**31)), resamples=999)
        covered += ends[0] <= truth <= ends[1]
    assert low <= covered / 500 <= high


def test_bootstrap_without_drawing_runs_would_promise_too_much() -> None:
    """Where seeds matter, an interval over images alone, of the runs' means, is half as wide as the one over both."""
    first, second = drawn_runs(np.random.default_rng(3), 0.1, runs=3, images=1222, seeds=0.15)
    ends = paired_bootstrap(first, second)
    means = first.mean(axis=0) - second.mean(axis=0)
    images_only = bootstrap(
        (means,), np.mean, method="percentile", n_resamples=2000, random_state=0
    ).confidence_interval
    assert ends[1] - ends[0] > 1.5 * (images_only.high - images_only.low)


def test_bootstrap_of_single_runs_is_that_of_scipy() -> None:
    """With one run each the ends are those of scipy's percentile bootstrap of the images' differences."""
    first, second = drawn_runs(np.random.default_rng(1), 0.2, runs=1, images=800, seeds=0.0)
    differences = first[0].astype(float) - second[0].astype(float)
    wanted = bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=9999, random_state=1
    ).confidence_interval
    assert paired_bootstrap(first, second) == pytest.approx((wanted.low, wanted.high), abs=0.002)


def test_bootstrap_is_the_same_for_the_same_seed_and_mirrors() -> None:
    """Nothing is left to chance, and who is called first changes the sign."""
    first, second = drawn_runs(np.random.default_rng(2), 0.2, runs=2, images=300, seeds=0.1)
    assert paired_bootstrap(first, second) == paired_bootstrap(first, second)
    low, high = paired_bootstrap(first, second)
    assert paired_bootstrap(second, first) == pytest.approx((-high, -low), abs=0.01)


def test_equal_answers_do_not_make_a_difference_of_exactly_zero() -> None:
    """Two models that agree on every image may still differ on others: the interval is Tango's, not a point."""
    hits = np.random.default_rng(0).random((1, 60)) < 0.7
    assert paired_bootstrap(hits, hits.copy()) == difference_interval(0, 0, 60)
    assert flip_test(hits, hits.copy()) == 1.0


@pytest.mark.parametrize(("only", "other", "both"), [(0, 6, 10), (3, 3, 4), (40, 17, 200), (1, 0, 0), (300, 320, 2000)])
def test_flip_test_of_single_runs_is_exact_mcnemar(only: int, other: int, both: int) -> None:
    """With one run each the test is McNemar's, to the last digits."""
    first = np.array([[True] * only + [False] * other + [True] * both])
    second = np.array([[False] * only + [True] * other + [True] * both])
    assert flip_test(first, second) == pytest.approx(mcnemar_exact(only, other), rel=1e-9)


@pytest.mark.parametrize(("m", "k"), [(1, 1), (2, 2), (3, 3), (1, 3), (2, 3)])
def test_flip_test_counts_what_all_signs_count(m: int, k: int) -> None:
    """Over every choice of signs, as many sums are as far from 0 as the test says."""
    rng = np.random.default_rng(m * 10 + k)
    first, second = rng.random((m, 9)) < 0.8, rng.random((k, 9)) < 0.4
    differences = first.mean(axis=0) - second.mean(axis=0)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
    wanted = np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums])
    assert flip_test(first, second) == pytest.approx(wanted, rel=1e-9)


def test_flip_test_keeps_its_level() -> None:
    """Two models that are equally good are called different in at most 5 of 100 draws."""
    rng = np.random.default_rng(4)
    found = [flip_test(*drawn_runs(rng, 0.0, runs=3, images=200, seeds=0.0)) <= 0.05 for _ in range(600)]
    assert np.mean(found) <= 0.07


def test_a_whole_test_split_of_five_seeds_neither_overflows_nor_loses_small_chances() -> None:
    """8,041 images and five runs a side give a chance, and one far below any rounding of 1."""
    rng = np.random.default_rng(5)
    first, second = drawn_runs(rng, 0.3, runs=5, images=8041, seeds=0.0)
    assert 0.0 < flip_test(first, second) < 1e-20


def test_a_difference_is_shown_when_test_and_interval_agree() -> None:
    """A clear difference is shown; the same one is not when the corrected p-value is above 5%."""
    first, second = drawn_runs(np.random.default_rng(6), 0.8, runs=1, images=500, seeds=0.0)
    comparison = compare_runs(first, second)
    assert comparison.difference > 0
    assert comparison.shows(comparison.p_value)
    assert not comparison.shows(0.06)
