"""How much of the best score of many is luck, and what two trials differ by on the images that both answered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sweeps.report.facts import Facts
from sweeps.report.mistakes import answers_file, stored_answers
from sweeps.trial import TrialRecord

# So many of the best networks say how often two of them disagree.
_RIVALS = 10
_STEPS = 2000


def hits_of(facts: Facts, record: TrialRecord) -> NDArray[np.bool_] | None:
    """Return which validation images a trial has right, bool [n], by its stored answers; None where there are none."""
    if facts.dataset is None or not record.model:
        return None
    path = answers_file(facts.stages, record)
    answers = stored_answers(path, facts.dataset, facts.dataset.splits.validation)
    return None if answers is None else answers.hits


def expected_maximum(count: int) -> float:
    """Return the mean of the largest of ``count`` independent standard normal numbers, ``count`` at least 1.

    E = ∫₀¹ Φ⁻¹(u^(1/count)) du, by the midpoint rule. Source: David and Nagaraja, Order Statistics, 2003, chapter 2.

    >>> [round(expected_maximum(count), 2) for count in (1, 2, 50)]
    [0.0, 0.56, 2.25]
    """
    quantile = NormalDist().inv_cdf
    return sum(quantile(((step + 0.5) / _STEPS) ** (1 / count)) for step in range(_STEPS)) / _STEPS


def disagreement(facts: Facts, records: Iterable[TrialRecord]) -> float | None:
    """Return the share of validation images of which one of two trials is right and the other wrong.

    It is the mean over all pairs of the first trials that have stored answers; None with fewer than two of them.
    """
    found = (hits_of(facts, record) for record in records)
    known = list(islice((hits for hits in found if hits is not None), _RIVALS))
    if len(known) < 2:
        return None
    right, runs = np.stack(known).sum(axis=0), len(known)
    return float((right * (runs - right)).mean() / (runs * (runs - 1) / 2))


def luck_of(count: int, disagreeing: float, images: int) -> float:
    """Return by how much the best of ``count`` equally good trials is expected to look better than it is, in [0, 1].

    Two equal trials that disagree on a share q of n images differ by a deviation of √(q / n); what each of them has
    of its own is √(q / 2n), since what they share moves both. The best of many has the expected maximum of that. Of
    trials that are not equal, or were stopped early, it is less. Source of the bias: Cawley and Talbot 2010 (JMLR 11).

    >>> round(luck_of(50, 0.1, 8041), 4)
    0.0056
    """
    return expected_maximum(count) * math.sqrt(disagreeing / (2 * images))
