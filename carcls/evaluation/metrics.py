"""Measures of a classifier, and of a ranking of the gallery whatever votes on it; on arrays.

Letters: n images, c classes; q queries, g gallery, k neighbours; R relevant images of a query: those of its class in
the gallery. The documented precision, recall and F1 are averages over the classes weighted by their number of images
("support-weighted"); the plain averages over classes carry the ending ``_macro``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

TOP = 5
RECALL_AT = (1, 5, 10)


def classification_metrics(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, prefix: str = ""
) -> dict[str, float]:
    """Return loss (mean cross entropy in nats), top5 in [0, 1], and ``answer_metrics`` of the highest logits.

    Of equal logits the class of lower index is predicted, and a label that shares its logit is counted behind the
    others. Infinite or NaN logits give a loss of NaN or infinity.

    Args:
        logits: float32 [n, c], unnormalised.
        labels: int64 [n], in [0, c).
        prefix: put before every name (``val_``, ``test_``).

    >>> m = classification_metrics(np.array([[2.0, 0.0], [2.0, 0.0]], np.float32), np.array([0, 1]))
    >>> m["accuracy"], m["recall"], m["precision"], m["precision_macro"]
    (0.5, 0.5, 0.25, 0.25)
    """
    loss = functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    others_above = (logits >= logits[np.arange(len(labels)), labels][:, None]).sum(axis=1) - 1
    metrics = {prefix + "loss": float(loss), prefix + "top5": float((others_above < TOP).mean())}
    return metrics | answer_metrics(logits.argmax(axis=1), labels, logits.shape[1], prefix=prefix)


def answer_metrics(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, *, prefix: str = ""
) -> dict[str, float]:
    """Return accuracy, and precision, recall and f1, support-weighted and macro, all in [0, 1].

    Per class: precision tp / (tp + fp), recall tp / (tp + fn), f1 2tp / (2tp + fp + fn); 0 where the divisor is 0, as
    in scikit-learn: a class that is never predicted has precision 0, and one without images counts in the macro
    averages only when something was taken for it.

    Args:
        predicted, labels: int64 [n], in [0, c).
        classes: c.
        prefix: put before every name.
    """
    hits = np.bincount(labels[predicted == labels], minlength=classes).astype(np.float64)
    taken, support = (np.bincount(each, minlength=classes).astype(np.float64) for each in (predicted, labels))
    per_class = {
        "precision": _ratio(hits, taken),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, taken + support),
    }
    present = (taken + support) > 0
    metrics = {"accuracy": float((predicted == labels).mean())}
    for name, values in per_class.items():
        metrics[name] = float((values * support).sum() / support.sum())
        metrics[f"{name}_macro"] = float(values[present].mean())
    return {prefix + name: value for name, value in metrics.items()}


def _ratio(numerator: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, divisor, out=np.zeros_like(numerator), where=divisor > 0)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities, float32 [n, c], rows summing to 1."""
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def neighbours_needed(gallery_labels: NDArray[np.int64]) -> int:
    """Return how many neighbours ``retrieval_metrics`` needs: 10, or as many as the largest class has images.

    Never more than there are.
    """
    return min(len(gallery_labels), max(*RECALL_AT, int(np.bincount(gallery_labels).max(initial=1))))


def retrieval_metrics(
    neighbours: NDArray[np.int64], labels: NDArray[np.int64], gallery_labels: NDArray[np.int64], *, prefix: str = ""
) -> dict[str, float]:
    """Return recall_at_1, recall_at_5, recall_at_10, map_at_r and r_precision, all in [0, 1].

    recall@n: share of queries with an image of their class among the first n. R-precision: share of the first R that
    are of the class. mAP@R: (1/R) Σ over places i ≤ R that are of the class of precision@i, which rewards order too
    (Musgrave, Belongie and Lim 2020, section 3.2).

    A query whose class the gallery lacks is a miss in recall@n, and is left out of the other two, which are 0 when no
    query remains.

    Args:
        neighbours: positions in the gallery, int64 [q, k], nearest first, k at least ``neighbours_needed``.
        labels: of the queries, int64 [q].
        gallery_labels: int64 [g].
        prefix: put before every name.

    >>> m = retrieval_metrics(np.array([[1, 0, 2]]), np.array([1]), np.array([0, 1, 1]))
    >>> m["recall_at_1"], m["r_precision"], m["map_at_r"]
    (1.0, 0.5, 0.5)
    """
    hits = gallery_labels[neighbours] == labels[:, None]  # [q, k]
    metrics = {f"recall_at_{n}": _mean(hits[:, :n].any(axis=1)) for n in RECALL_AT}
    relevant = np.bincount(gallery_labels, minlength=labels.max(initial=0) + 1)[labels]  # R, [q]
    hits, relevant = hits[relevant > 0], relevant[relevant > 0]
    places = np.arange(1, hits.shape[1] + 1)
    counted = hits & (places <= relevant[:, None])
    precision = np.cumsum(counted, axis=1) / places
    metrics["map_at_r"] = _mean((precision * counted).sum(axis=1) / relevant)
    metrics["r_precision"] = _mean(counted.sum(axis=1) / relevant)
    return {prefix + name: value for name, value in metrics.items()}


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if len(values) else 0.0
