"""Whether two classifiers differ on the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from carcls.evaluation.significance import Z95, compare_hits, difference_interval, holm, mcnemar_exact

TABLES = [(0, 0), (0, 1), (1, 0), (3, 3), (2, 9), (40, 17), (0, 300), (611, 702)]


@pytest.mark.parametrize(("first_only", "second_only"), TABLES)
def test_exact_mcnemar_is_the_binomial_test_of_the_discordant_pairs(first_only: int, second_only: int) -> None:
    """It equals scipy's two-sided test of a fair coin; with no discordant pair nothing is shown."""
    pairs = first_only + second_only
    wanted = binomtest(first_only, pairs, 0.5).pvalue if pairs else 1.0
    assert mcnemar_exact(first_only, second_only) == pytest.approx(wanted, rel=1e-9)


def test_exact_mcnemar_holds_for_a_whole_test_split() -> None:
    """Thousands of discordant images neither overflow nor lose the smallest p-values."""
    assert mcnemar_exact(4020, 4021) == 1.0
    assert mcnemar_exact(3000, 3300) == pytest.approx(binomtest(3000, 6300, 0.5).pvalue, rel=1e-9)
    assert mcnemar_exact(0, 1000) == 2.0**-999
    assert mcnemar_exact(0, 8041) == 0.0


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


def test_interval_is_the_published_one() -> None:
    """The airway data (1 against 7 of 21) have Tango's interval -0.517 to -0.026 in Fagerland and others, 2014."""
    low, high = difference_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def test_interval_mirrors_when_the_classifiers_change_places() -> None:
    """Who is called first changes the sign and nothing else."""
    low, high = difference_interval(12, 5, 60)
    assert difference_interval(5, 12, 60) == pytest.approx((-high, -low), abs=1e-12)


def test_interval_of_corner_cases() -> None:
    """No discordant image gives ±z²/(n + z²), all of them an end of 1, and no image at all everything."""
    end = Z95**2 / (60 + Z95**2)
    assert difference_interval(0, 0, 60) == pytest.approx((-end, end), abs=1e-12)
    # With all images discordant one way, n (1 - d) / (1 + d) = z² at the lower end.
    assert difference_interval(10, 0, 10) == pytest.approx(((10 - Z95**2) / (10 + Z95**2), 1.0), abs=1e-12)
    assert difference_interval(0, 0, 0) == (-1.0, 1.0)


def test_interval_covers_the_true_difference_at_its_level() -> None:
    """Over 2,000 drawn test splits of 200 images, about 95% of the intervals hold the true difference."""
    rng = np.random.default_rng(0)
    cells = np.array([0.08, 0.14, 0.78])
    drawn = rng.multinomial(200, cells, size=2000)
    ends = [difference_interval(int(first), int(second), 200) for first, second, _ in drawn]
    covered = np.mean([low <= cells[0] - cells[1] <= high for low, high in ends])
    assert 0.935 <= covered <= 0.965


def test_exact_mcnemar_rejects_a_true_null_in_at_most_five_of_a_hundred() -> None:
    """The test keeps its level, summed exactly over every outcome of 1 to 60 discordant images."""
    for pairs in range(1, 61):
        size = sum(math.comb(pairs, k) for k in range(pairs + 1) if mcnemar_exact(k, pairs - k) <= 0.05) / 2**pairs
        assert size <= 0.05


def test_comparison_counts_what_a_loop_counts() -> None:
    """Accuracies, discordant counts and difference of drawn answers are those of a plain loop."""
    rng = np.random.default_rng(1)
    first, second = rng.random(500) < 0.7, rng.random(500) < 0.6
    comparison = compare_hits(first, second)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert comparison.first_only == sum(a and not b for a, b in pairs)
    assert comparison.second_only == sum(b and not a for a, b in pairs)
    assert comparison.first_accuracy == sum(a for a, _ in pairs) / 500
    assert comparison.second_accuracy == sum(b for _, b in pairs) / 500
    assert comparison.difference == pytest.approx(comparison.first_accuracy - comparison.second_accuracy)
    assert comparison.interval[0] < comparison.difference < comparison.interval[1]


def naive_holm(p_values: list[float]) -> set[int]:
    """Return which hypotheses Holm's procedure rejects at 5%: step down until one is not rejected."""
    rejected: set[int] = set()
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[position] > 0.05 / (len(p_values) - rank):
            break
        rejected.add(position)
    return rejected


def test_holm_rejects_what_the_stepwise_procedure_rejects() -> None:
    """For drawn p-values, those adjusted to at most 5% are exactly the ones that stepping down rejects."""
    rng = np.random.default_rng(2)
    for count in [1, 2, 3, 6, 15] * 40:
        p_values = (rng.random(count) ** 3).tolist()
        adjusted = holm(p_values)
        assert {place for place, p in enumerate(adjusted) if p <= 0.05} == naive_holm(p_values)
        assert all(p <= a <= 1.0 for p, a in zip(p_values, adjusted, strict=True))


def test_holm_of_corner_cases() -> None:
    """One p-value is left alone, equal ones stay equal, none are none."""
    assert holm([0.2]) == [0.2]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert holm([]) == []
