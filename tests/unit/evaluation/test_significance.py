"""Whether two classifiers differ on the same images, each trained once or several times."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, bootstrap, norm

from carcls.evaluation.significance import (
    Z95,
    compare_hits,
    difference_interval,
    flip_test,
    holm,
    paired_bootstrap,
    wilson_interval,
)

Hits = NDArray[np.bool_]
TABLES = [(0, 0), (0, 1), (1, 0), (3, 3), (2, 9), (40, 17), (0, 300), (611, 702), (3000, 3300), (4020, 4021), (0, 1000)]


def answers_of(first_only: int, second_only: int, both: int = 10) -> tuple[Hits, Hits]:
    """Return two classifiers' answers to so many images, bool [1, n] each."""
    first = np.array([[True] * first_only + [False] * second_only + [True] * both])
    second = np.array([[False] * first_only + [True] * second_only + [True] * both])
    return first, second


@pytest.mark.parametrize(("first_only", "second_only"), TABLES)
def test_of_single_runs_it_is_the_exact_mcnemar_test(first_only: int, second_only: int) -> None:
    """It equals scipy's two-sided test of a fair coin, for thousands of images too; none shows nothing."""
    pairs = first_only + second_only
    wanted = binomtest(first_only, pairs, 0.5).pvalue if pairs else 1.0
    assert flip_test(*answers_of(first_only, second_only)) == pytest.approx(wanted, rel=1e-9)


def likeliest_share(first_only: int, second_only: int, images: int, difference: float) -> float:
    """Return by search the likeliest share of images only the second has right, given the true difference."""
    same = images - first_only - second_only

    def loss(share: float) -> float:
        cells = [(first_only, share + difference), (second_only, share), (same, 1 - 2 * share - difference)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    return float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)


@pytest.mark.parametrize(("first_only", "second_only", "images"), [(1, 7, 21), (2, 9, 50), (40, 17, 300), (5, 1, 8041)])
def test_ends_of_the_interval_are_where_the_score_test_begins_to_reject(
    first_only: int, second_only: int, images: int
) -> None:
    """At both ends the score, with the nuisance share found by brute force, is the normal's 97.5% point."""
    for end, sign in zip(difference_interval(first_only, second_only, images), (1, -1), strict=True):
        share = likeliest_share(first_only, second_only, images, end)
        spread = math.sqrt(images * (2 * share + end - end**2))
        assert (first_only - second_only - images * end) / spread == pytest.approx(sign * Z95, rel=1e-4)


def test_interval_of_corner_cases() -> None:
    """No discordant image gives ±z²/(n + z²), all of them an end of 1; who is called first changes the sign only."""
    end = Z95**2 / (60 + Z95**2)
    assert difference_interval(0, 0, 60) == pytest.approx((-end, end), abs=1e-12)
    # With all images discordant one way, n (1 - d) / (1 + d) = z² at the lower end.
    assert difference_interval(10, 0, 10) == pytest.approx(((10 - Z95**2) / (10 + Z95**2), 1.0), abs=1e-12)
    low, high = difference_interval(12, 5, 60)
    assert difference_interval(5, 12, 60) == pytest.approx((-high, -low), abs=1e-12)


def test_interval_covers_the_true_difference_at_its_level() -> None:
    """Over 2,000 drawn test splits of 200 images, about 95% of the intervals hold the true difference."""
    cells = np.array([0.08, 0.14, 0.78])
    drawn = np.random.default_rng(0).multinomial(200, cells, size=2000)
    ends = [difference_interval(int(first), int(second), 200) for first, second, _ in drawn]
    assert 0.935 <= np.mean([low <= cells[0] - cells[1] <= high for low, high in ends]) <= 0.965


def test_a_true_null_is_rejected_in_at_most_five_of_a_hundred() -> None:
    """The test of single runs keeps its level, summed exactly over every outcome of 1 to 60 discordant images."""
    for pairs in range(1, 61):
        rejected = [k for k in range(pairs + 1) if flip_test(*answers_of(k, pairs - k)) <= 0.05]
        assert sum(math.comb(pairs, k) for k in rejected) / 2**pairs <= 0.05


def naive_holm(p_values: list[float]) -> set[int]:
    """Return which hypotheses Holm's procedure rejects at 5%: step down until one is not rejected."""
    rejected: set[int] = set()
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[position] > 0.05 / (len(p_values) - rank):
            break
        rejected.add(position)
    return rejected


def test_holm_rejects_what_the_stepwise_procedure_rejects() -> None:
    """For drawn p-values, those adjusted to at most 5% are exactly those that stepping down rejects; none are none."""
    rng = np.random.default_rng(2)
    for count in [0, 1, 2, 3, 6, 15] * 40:
        p_values = (rng.random(count) ** 3).tolist()
        adjusted = holm(p_values)
        assert {place for place, p in enumerate(adjusted) if p <= 0.05} == naive_holm(p_values)
        assert all(p <= a <= 1.0 for p, a in zip(p_values, adjusted, strict=True))
    assert (holm([0.2]), holm([0.02, 0.02])) == ([0.2], [0.04, 0.04])


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
    [(1, 120, 0.0, 0.92, 0.97), (3, 120, 0.0, 0.95, 1.0), (3, 1222, 0.05, 0.95, 1.0)],
)
def test_bootstrap_covers_a_known_difference(
    runs: int, images: int, seeds: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intervals hold the true difference about 95 times in 100 with one run each, and no less with several."""
    monkeypatch.setattr("carcls.evaluation.significance.RESAMPLES", 999)
    rng, truth = np.random.default_rng(0), true_difference(0.1, seeds)
    covered = 0
    for _ in range(500):
        first, second = drawn_runs(rng, 0.1, runs=runs, images=images, seeds=seeds)
        ends = paired_bootstrap(first, second)
        covered += ends[0] <= truth <= ends[1]
    assert low <= covered / 500 <= high


def test_bootstrap_without_drawing_runs_would_promise_too_much() -> None:
    """Where seeds matter, an interval over images alone, of the runs' means, is half as wide as the one over both."""
    first, second = drawn_runs(np.random.default_rng(3), 0.1, runs=3, images=1222, seeds=0.15)
    low, high = paired_bootstrap(first, second)
    means = first.mean(axis=0) - second.mean(axis=0)
    images_only = bootstrap(
        (means,), np.mean, method="percentile", n_resamples=2000, random_state=0
    ).confidence_interval
    assert high - low > 1.5 * (images_only.high - images_only.low)


def test_bootstrap_of_single_runs_is_that_of_scipy() -> None:
    """With one run each the ends are those of scipy's percentile bootstrap of the images' differences."""
    first, second = drawn_runs(np.random.default_rng(1), 0.2, runs=1, images=800, seeds=0.0)
    differences = first[0].astype(float) - second[0].astype(float)
    wanted = bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=9999, random_state=1
    ).confidence_interval
    assert paired_bootstrap(first, second) == pytest.approx((wanted.low, wanted.high), abs=0.002)


def test_bootstrap_is_the_same_for_the_same_answers_and_mirrors() -> None:
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


@pytest.mark.parametrize(("m", "k"), [(1, 1), (2, 2), (3, 3), (1, 3), (2, 3)])
def test_flip_test_counts_what_all_signs_count(m: int, k: int) -> None:
    """Over every choice of signs, as many sums are as far from 0 as the test says."""
    rng = np.random.default_rng(m * 10 + k)
    first, second = rng.random((m, 9)) < 0.8, rng.random((k, 9)) < 0.4
    differences = first.mean(axis=0) - second.mean(axis=0)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=9)]
    wanted = np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums])
    assert flip_test(first, second) == pytest.approx(wanted, rel=1e-9)
    # A whole test split neither overflows nor loses chances far below any rounding of 1.
    first, second = drawn_runs(rng, 0.3, runs=5, images=8041, seeds=0.0)
    assert 0.0 < flip_test(first[:m], second[:k]) < 1e-8


def test_flip_test_keeps_its_level() -> None:
    """Two models that are equally good are called different in at most 5 of 100 draws."""
    rng = np.random.default_rng(4)
    found = [flip_test(*drawn_runs(rng, 0.0, runs=3, images=200, seeds=0.0)) <= 0.05 for _ in range(600)]
    assert np.mean(found) <= 0.07


def test_a_difference_is_shown_when_test_and_interval_agree() -> None:
    """A clear difference is shown; the same one is not when the corrected p-value is above 5%."""
    first, second = drawn_runs(np.random.default_rng(6), 0.8, runs=1, images=500, seeds=0.0)
    comparison = compare_hits(first, second)
    assert comparison.difference > 0
    assert comparison.shows(comparison.p_value)
    assert not comparison.shows(0.06)


def test_comparison_of_several_runs_is_of_their_means() -> None:
    """Accuracies are means over runs; an image counts for whoever has the larger share of its runs right."""
    first = np.array([[True, True, False, True], [True, False, False, True]])
    second = np.array([[True, False, True, True]])
    comparison = compare_hits(first, second)
    assert (comparison.first_accuracy, comparison.second_accuracy, comparison.difference) == (0.625, 0.75, -0.125)
    assert (comparison.first_only, comparison.second_only) == (1, 1)
    assert comparison.interval == paired_bootstrap(first, second)
    assert comparison.p_value == flip_test(first, second)


@pytest.mark.parametrize(("hits", "images"), [(0, 10), (10, 10), (1, 3), (5933, 8041)])
def test_wilson_interval_is_that_of_scipy(hits: int, images: int) -> None:
    """Of no hits, of hits only, of few images and of many."""
    wanted = binomtest(hits, images).proportion_ci(method="wilson")
    assert wilson_interval(hits, images) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
