"""Measures of a ranking of the gallery, whatever votes on it.

Letters: q queries, g gallery, k neighbours; R relevant images of a query: those of its class in the gallery.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)


def relevant_of(labels: NDArray[np.int64], gallery_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images of the gallery are of each query's class, int64 [q].

    >>> relevant_of(np.array([0, 1, 2]), np.array([0, 0, 1])).tolist()
    [2, 1, 0]
    """
    most = max(labels.max(initial=0), gallery_labels.max(initial=0))
    return np.asarray(np.bincount(gallery_labels, minlength=most + 1)[labels], np.int64)


def neighbours_needed(gallery_labels: NDArray[np.int64], available: int) -> int:
    """Return how many neighbours ``retrieval_metrics`` needs: 10, or as many as the largest class has images."""
    largest = int(np.bincount(gallery_labels).max(initial=1))
    return min(available, max(*RECALL_AT, largest))


def retrieval_metrics(
    neighbour_labels: NDArray[np.int64],
    labels: NDArray[np.int64],
    relevant: NDArray[np.int64],
    *,
    prefix: str = "",
) -> dict[str, float]:
    """Return recall_at_1, recall_at_5, recall_at_10, map_at_r and r_precision, all in [0, 1].

    recall@n: share of queries with an image of their class among the first n. R-precision: share of the first R that
    are of the class. mAP@R: (1/R) Σ over places i ≤ R that are of the class of precision@i, which rewards order too
    (Musgrave, Belongie and Lim 2020, section 3.2).

    A query whose class the gallery lacks is a miss in recall@n, and is left out of the other two, which are 0 when no
    query remains.

    Args:
        neighbour_labels: int64 [q, K], nearest first, K at least ``neighbours_needed``.
        labels: of the queries, int64 [q].
        relevant: R of each query, int64 [q].
        prefix: put before every name.

    >>> m = retrieval_metrics(np.array([[1, 0, 1]]), np.array([1]), np.array([2]))
    >>> m["recall_at_1"], m["r_precision"], m["map_at_r"]
    (1.0, 0.5, 0.5)
    """
    hits = neighbour_labels == labels[:, None]  # [q, K]
    metrics = {f"recall_at_{n}": _mean(hits[:, :n].any(axis=1)) for n in RECALL_AT}
    asked = relevant > 0
    hits, within = hits[asked], relevant[asked][:, None]
    counted = hits & (np.arange(hits.shape[1]) < within)
    precision = np.cumsum(counted, axis=1) / np.arange(1, hits.shape[1] + 1)
    metrics["map_at_r"] = _mean((precision * counted).sum(axis=1) / within[:, 0])
    metrics["r_precision"] = _mean(counted.sum(axis=1) / within[:, 0])
    return {prefix + name: value for name, value in metrics.items()}


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.mean()) if len(values) else 0.0
