"""The neighbours' votes, held against a naive loop and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from carcls.config import Vote
from carcls.neighbours.exact import Neighbours
from carcls.neighbours.search import find_neighbours
from carcls.neighbours.votes import count_votes

VOTES: list[Vote] = ["uniform", "distance", "softmax"]


def case(seed: int, queries: int = 60, gallery: int = 150, classes: int = 7) -> tuple[Neighbours, NDArray[np.int64]]:
    """Return the 20 neighbours of random embeddings, and the gallery's labels."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(gallery + queries, 4)).astype(np.float32)
    found = find_neighbours(points[gallery:], points[:gallery], 20, "euclidean")
    return found, random.integers(0, classes, gallery)


def naive(distances: NDArray[np.float64], labels: NDArray[np.int64], vote: Vote, temperature: float) -> int:
    """Return the class that wins, counted one vote after the other."""
    totals: dict[int, float] = {}
    for distance, label in zip(distances.tolist(), labels.tolist(), strict=True):
        if vote == "uniform":
            weight = 1.0
        elif vote == "softmax":
            weight = float(np.exp((distances[0] - distance) / temperature))
        elif (distances == 0).any():
            weight = float(distance == 0)
        else:
            weight = 1 / distance
        totals[label] = totals.get(label, 0.0) + weight
    best = max(totals.values())
    # Dictionaries keep the order in which classes were first named, which is that of their nearest neighbour.
    return next(label for label, total in totals.items() if total == best)


@pytest.mark.parametrize("vote", VOTES)
def test_every_k_is_answered_as_a_loop_would(vote: Vote) -> None:
    """One pass gives for each k and query what counting votes one by one gives, ties included."""
    found, labels = case(0)
    said, _ = count_votes(found, labels, 7, vote=vote, temperature=0.3)
    for k in range(1, 21):
        expected = [
            naive(row[:k], labels[places[:k]], vote, 0.3)
            for row, places in zip(found.distances, found.indices, strict=True)
        ]
        assert said[k - 1].tolist() == expected


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_shares_are_scikit_learns(weights: Vote) -> None:
    """The share of each class is the probability that KNeighborsClassifier gives it."""
    random = np.random.default_rng(1)
    gallery, queries = (random.normal(size=(n, 5)).astype(np.float32) for n in (80, 30))
    gallery[3] = queries[0]  # at distance 0
    labels = random.integers(0, 4, 80)
    model = KNeighborsClassifier(9, weights=weights, algorithm="brute").fit(gallery.astype(np.float64), labels)
    _, shares = count_votes(find_neighbours(queries, gallery, 9, "euclidean"), labels, 4, vote=weights, temperature=1.0)
    assert np.allclose(shares, model.predict_proba(queries.astype(np.float64)), atol=1e-6)


def test_equal_votes_go_to_the_nearest() -> None:
    """Two against two: the class of the nearest image wins, whatever its number."""
    found = Neighbours(np.array([[3, 0, 1, 2]]), np.array([[0.1, 0.2, 0.3, 0.4]]))
    labels = np.array([0, 0, 5, 5])
    said, _ = count_votes(found, labels, 6, vote="uniform", temperature=1.0)
    assert said[:, 0].tolist() == [5, 5, 0, 5]


@pytest.mark.parametrize(
    ("distances", "vote", "expected"),
    [([0.0, 0.0, 1e-9, 1e-9], "distance", [0.5, 0.5]), ([500.0, 900.0, 900.0, 900.0], "softmax", [1.0, 0.0])],
    ids=["those at distance 0 decide alone", "a softmax of hundreds is finite"],
)
def test_extreme_distances_have_finite_weights(distances: list[float], vote: Vote, expected: list[float]) -> None:
    """1 / distance does not become infinite, and exp does not vanish, for distances hundreds apart at 0.03."""
    found = Neighbours(np.array([[0, 1, 2, 3]]), np.array([distances]))
    _, shares = count_votes(found, np.array([0, 1, 1, 1]), 2, vote=vote, temperature=0.03)
    assert shares.tolist() == [expected]
