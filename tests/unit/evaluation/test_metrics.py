"""Measures of classifiers agree with scikit-learn, those of rankings with naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support, top_k_accuracy_score

from carcls.evaluation.metrics import classification_metrics, neighbours_needed, retrieval_metrics, softmax


def _answers(seed: int, images: int = 300, classes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 2, images)
    logits = random.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 1.0
    logits[:, 3] = -50.0  # never predicted
    return logits, labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_measures_agree_with_scikit_learn(seed: int) -> None:
    """Both averagings, with absent and never-predicted classes, loss and top-5 are its own; recall is accuracy."""
    logits, labels = _answers(seed)
    classes, ours = np.arange(logits.shape[1]), classification_metrics(logits, labels, prefix="val_")
    for average, ending in (("weighted", ""), ("macro", "_macro")):
        theirs = precision_recall_fscore_support(labels, logits.argmax(axis=1), average=average, zero_division=0)
        found = [ours[f"val_{name}{ending}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(theirs[:3], abs=1e-12)
    assert ours["val_top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=classes))
    assert ours["val_recall"] == pytest.approx(ours["val_accuracy"])
    likely = np.maximum(logits, -5)  # probabilities are floored by scikit-learn, so none of those compared may be tiny
    probabilities = softmax(likely).astype(np.float64)
    expected = log_loss(labels, probabilities / probabilities.sum(axis=1, keepdims=True), labels=classes)
    assert classification_metrics(likely, labels)["loss"] == pytest.approx(expected, rel=1e-5)


def test_equal_logits_do_not_count_as_found_among_the_top() -> None:
    """A classifier that answers the same for every class earns no top-5 accuracy."""
    ours = classification_metrics(np.zeros((4, 10), np.float32), np.array([6, 7, 8, 9]))
    assert (ours["top5"], ours["accuracy"]) == (0.0, 0.0)


def test_a_nan_logit_gives_a_nan_loss() -> None:
    """A network that broke is seen in its loss."""
    logits = np.zeros((2, 3), np.float32)
    logits[0, 0] = np.nan
    assert np.isnan(classification_metrics(logits, np.array([0, 1]))["loss"])


def naive(ranking: list[int], label: int, relevant: int) -> tuple[float, float]:
    """Return average precision at R and R-precision of one query, as their definitions read."""
    hits = [named == label for named in ranking[:relevant]]
    precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
    return sum(precisions) / relevant, sum(hits) / relevant


def test_measures_of_rankings_follow_their_definitions() -> None:
    """On random rankings of a gallery, every measure is the mean of its definition over the queries."""
    random = np.random.default_rng(0)
    gallery, labels = random.integers(0, 5, 40), random.integers(0, 5, 30)
    found = np.stack([random.permutation(40) for _ in labels])
    measured = retrieval_metrics(found, labels, gallery, prefix="val_")
    rankings = gallery[found].tolist()
    each = [naive(r, int(c), int((gallery == c).sum())) for r, c in zip(rankings, labels, strict=True)]
    assert measured["val_map_at_r"] == pytest.approx(np.mean([ap for ap, _ in each]))
    assert measured["val_r_precision"] == pytest.approx(np.mean([rp for _, rp in each]))
    for n in (1, 5, 10):
        hits = [label in ranking[:n] for ranking, label in zip(rankings, labels.tolist(), strict=True)]
        assert measured[f"val_recall_at_{n}"] == pytest.approx(np.mean(hits))


def test_absent_classes_miss_but_do_not_divide_by_zero() -> None:
    """A query whose class the gallery lacks counts as a miss in recall and is left out of the others."""
    found, labels, gallery = np.array([[0, 1, 2], [0, 2, 1]]), np.array([0, 7]), np.array([0, 0, 1])
    measured = retrieval_metrics(found, labels, gallery)
    assert (measured["recall_at_1"], measured["map_at_r"], measured["r_precision"]) == (0.5, 1.0, 1.0)
    assert set(retrieval_metrics(found[1:], labels[1:], gallery).values()) == {0.0}


def test_enough_neighbours_are_asked_for() -> None:
    """Ten for recall, the largest class for mAP@R, and never more than there are."""
    assert neighbours_needed(np.zeros(30, np.int64)) == 30
    assert neighbours_needed(np.arange(30)) == 10
    assert neighbours_needed(np.arange(4)) == 4
