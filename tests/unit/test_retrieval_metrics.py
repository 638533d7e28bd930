"""Recall, mAP@R and R-precision, held against naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from carcls.evaluation.retrieval import neighbours_needed, relevant_of, retrieval_metrics


def naive(ranking: list[int], label: int, relevant: int) -> tuple[float, float]:
    """Return average precision at R and R-precision of one query, as their definitions read."""
    hits = [named == label for named in ranking[:relevant]]
    precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
    return sum(precisions) / relevant, sum(hits) / relevant


def test_measures_follow_their_definitions() -> None:
    """On random rankings of a gallery, every measure is the mean of its definition over the queries."""
    random = np.random.default_rng(0)
    gallery = random.integers(0, 5, 40)
    labels = random.integers(0, 5, 30)
    rankings = np.stack([gallery[random.permutation(40)] for _ in range(30)])
    relevant = relevant_of(labels, gallery)
    measured = retrieval_metrics(rankings, labels, relevant, prefix="val_")
    each = [naive(r.tolist(), int(c), int(n)) for r, c, n in zip(rankings, labels, relevant, strict=True)]
    assert measured["val_map_at_r"] == pytest.approx(np.mean([ap for ap, _ in each]))
    assert measured["val_r_precision"] == pytest.approx(np.mean([rp for _, rp in each]))
    for n in (1, 5, 10):
        found = [label in ranking[:n] for ranking, label in zip(rankings.tolist(), labels.tolist(), strict=True)]
        assert measured[f"val_recall_at_{n}"] == pytest.approx(np.mean(found))


def test_a_perfect_ranking_scores_one() -> None:
    """All of a class before everything else."""
    rankings = np.array([[0, 0, 0, 1, 1], [1, 1, 0, 0, 0]])
    labels = np.array([0, 1])
    assert set(retrieval_metrics(rankings, labels, np.array([3, 2])).values()) == {1.0}


def test_absent_classes_miss_but_do_not_divide_by_zero() -> None:
    """A query whose class the gallery lacks counts as a miss in recall and is left out of the others."""
    rankings = np.array([[0, 0, 1], [0, 1, 0]])
    labels = np.array([0, 7])
    relevant = relevant_of(labels, np.array([0, 0, 1]))
    measured = retrieval_metrics(rankings, labels, relevant)
    assert relevant.tolist() == [2, 0]
    assert (measured["recall_at_1"], measured["map_at_r"], measured["r_precision"]) == (0.5, 1.0, 1.0)
    alone = retrieval_metrics(rankings[1:], labels[1:], relevant[1:])
    assert set(alone.values()) == {0.0}


def test_enough_neighbours_are_asked_for() -> None:
    """Ten for recall, the largest class for mAP@R, and never more than there are."""
    assert neighbours_needed(np.zeros(30, np.int64), 29) == 29
    assert neighbours_needed(np.arange(30), 29) == 10
    assert neighbours_needed(np.arange(4), 3) == 3
