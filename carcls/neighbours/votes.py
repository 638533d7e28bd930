"""How neighbours vote for a class.

Letters: q queries, g gallery, k neighbours, c classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carcls.config import Vote
from carcls.neighbours.exact import Neighbours


def weights_of(distances: NDArray[np.float64], vote: Vote, temperature: float) -> NDArray[np.float64]:
    """Return how much each neighbour's vote weighs, float64 [q, k]; the first of each row weighs most.

    ``uniform``: 1. ``distance``: 1 / distance; where some are at distance 0 those alone count, as in scikit-learn.
    ``softmax``: exp(-(distance - nearest distance) / temperature), which is exp(similarity / temperature) for the
    cosine up to a factor that does not matter, and cannot overflow (Wu et al. 2018, with temperature 0.07).
    """
    if vote == "uniform":
        return np.ones_like(distances)
    if vote == "softmax":
        return np.asarray(np.exp(-(distances - distances[:, :1]) / temperature))
    touching = distances == 0
    with np.errstate(divide="ignore"):
        weights = 1 / distances
    return np.where(touching.any(axis=1, keepdims=True), touching.astype(np.float64), weights)


def count_votes(
    neighbours: Neighbours, labels: NDArray[np.int64], classes: int, *, vote: Vote, temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what the first 1, 2, … k neighbours say, int64 [k, q], and shares of all k votes, float32 [q, c].

    Of classes with equal votes, the one whose first neighbour is nearest wins. (scikit-learn takes the class of the
    lowest number, which says nothing about the picture.) The answers of every number of neighbours come from one pass.

    Args:
        neighbours: k for each query.
        labels: of the gallery, int64 [g], in [0, c).
        classes: c.
        vote, temperature: see ``weights_of``.
    """
    weights = weights_of(neighbours.distances, vote, temperature)
    voters = labels[neighbours.indices]  # [q, k]
    queries, most = voters.shape
    rows = np.arange(queries)
    totals = np.zeros((queries, classes))
    first = np.full((queries, classes), most, np.int64)
    winners = voters[:, 0]
    said = np.empty((most, queries), np.int64)
    for place, named in enumerate(voters.T):
        totals[rows, named] += weights[:, place]
        first[rows, named] = np.minimum(first[rows, named], place)
        # Only the class that has just been named can overtake.
        ours, theirs = totals[rows, named], totals[rows, winners]
        nearer = first[rows, named] < first[rows, winners]
        winners = np.where((ours > theirs) | ((ours == theirs) & nearer), named, winners)
        said[place] = winners
    return said, (totals / totals.sum(axis=1, keepdims=True)).astype(np.float32)
