"""Exact nearest neighbours, held against scikit-learn and float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from carcls.config import Distance
from carcls.errors import InputError
from carcls.evaluation.neighbours import BrokenEmbedding, find_neighbours

SHAPES = [(7, 5, 3), (40, 60, 16), (120, 300, 64), (33, 700, 257)]


def embeddings(count: int, width: int, seed: int, offset: float = 0.0) -> NDArray[np.float32]:
    """Return random float32 [count, width]."""
    return (np.random.default_rng(seed).normal(size=(count, width)) + offset).astype(np.float32)


def reference(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, distance: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return scikit-learn's answer in float64."""
    model = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=distance).fit(gallery.astype(np.float64))
    distances, indices = model.kneighbors(queries.astype(np.float64))
    return indices, distances


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("q", "g", "d"), SHAPES)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_scikit_learn(distance: Distance, q: int, g: int, d: int, k: int) -> None:
    """On random embeddings, which have no ties, indices are equal and distances agree to ten digits."""
    queries, gallery = embeddings(q, d, 0), embeddings(g, d, 1)
    k = min(k, g)
    found = find_neighbours(queries, gallery, k, distance)
    indices, distances = reference(queries, gallery, k, distance)
    assert (found.indices == indices).all()
    assert np.allclose(found.distances, distances, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_bytes", [1, 5_000, 100_000, 2**28])
def test_memory_does_not_change_the_answer(distance: Distance, block_bytes: int) -> None:
    """Blocks of any size give the same neighbours at the same distances, to the last bit."""
    queries, gallery = embeddings(50, 24, 2), embeddings(200, 24, 3)
    whole = find_neighbours(queries, gallery, 9, distance)
    blocked = find_neighbours(queries, gallery, 9, distance, block_bytes=block_bytes)
    assert (whole.indices == blocked.indices).all()
    assert (whole.distances == blocked.distances).all()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_gallery_of_duplicates_answers_by_position(distance: Distance) -> None:
    """Equally near images come in the order of the gallery, also when hundreds are equal."""
    gallery = np.repeat(embeddings(3, 8, 4), 200, axis=0)
    found = find_neighbours(gallery[[0, 250, 599]], gallery, 20, distance)
    assert (found.indices == np.array([[0], [200], [400]]) + np.arange(20)).all()
    assert np.allclose(found.distances, 0, atol=1e-7)


def test_vectors_far_from_zero_keep_their_order() -> None:
    """Where a float32 product alone would lose every digit, neighbours are still exact."""
    queries, gallery = embeddings(30, 32, 7, offset=3000.0), embeddings(400, 32, 8, offset=3000.0)
    found = find_neighbours(queries, gallery, 10, "euclidean")
    indices = np.argsort(((gallery.astype(np.float64) - queries[:, None]) ** 2).sum(axis=2), axis=1)[:, :10]
    assert (found.indices == indices).all()


def test_near_ties_are_settled_in_float64() -> None:
    """Images that differ by less than a float32 product can tell come in their true order."""
    base = embeddings(1, 64, 9)
    gallery = np.repeat(base, 300, axis=0)
    gallery[:, 0] += np.random.default_rng(10).permutation(300).astype(np.float32) * 1e-5
    found = find_neighbours(base, gallery, 25, "euclidean")
    exact = np.abs(gallery[:, 0].astype(np.float64) - float(base[0, 0]))
    assert (found.indices[0] == np.argsort(exact, kind="stable")[:25]).all()


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_numbers_of_either_type_give_the_same_answer(
    distance: Distance, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever product proposes: duplicates, zeros and scattered images come as by sorting all float64 distances."""
    monkeypatch.setattr("carcls.evaluation.neighbours.multiplies_bf16_faster", lambda _: bf16)
    gallery = np.concatenate([embeddings(300, 40, 16), np.zeros((3, 40), np.float32)])
    gallery[50:150:2] = gallery[7]
    queries = np.concatenate([embeddings(20, 40, 17), gallery[[7, 302]]])
    exact, asked = gallery.astype(np.float64), queries.astype(np.float64)
    if distance == "cosine":
        lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (exact, asked)]
        exact, asked = exact / np.maximum(lengths[0], 1e-9), asked / np.maximum(lengths[1], 1e-9)
        every = 1 - np.einsum("qd,gd->qg", asked, exact).round(12)
    else:
        every = ((asked[:, None] - exact) ** 2).sum(axis=2)
    found = find_neighbours(queries, gallery, 12, distance)
    assert (found.indices == np.argsort(every, axis=1, kind="stable")[:, :12]).all()


def test_zeros_have_similarity_zero_with_everything() -> None:
    """A zero vector is at cosine distance 1 from all, itself included: no NaN, no error."""
    gallery = np.concatenate([np.zeros((2, 4), np.float32), -np.eye(4, dtype=np.float32)])
    found = find_neighbours(np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.float32), gallery, 6, "cosine")
    assert (found.indices[0] == np.arange(6)).all()
    assert (found.distances[0] == 1).all()
    assert found.distances[1].tolist() == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_embeddings_fail_the_trial(value: float) -> None:
    """NaN and infinity are counted and named, on either side."""
    whole, broken = embeddings(5, 3, 11), embeddings(5, 3, 12)
    broken[1:3, 0] = value
    with pytest.raises(BrokenEmbedding, match="2 of 5 gallery embeddings"):
        find_neighbours(whole, broken, 1, "cosine")
    with pytest.raises(BrokenEmbedding, match="2 of 5 query embeddings"):
        find_neighbours(broken, whole, 1, "euclidean")


@pytest.mark.parametrize("k", [0, 6])
def test_k_beyond_the_gallery_is_refused(k: int) -> None:
    """The message says how many there are."""
    with pytest.raises(InputError, match="k must be from 1 to 5"):
        find_neighbours(embeddings(2, 3, 13), embeddings(5, 3, 14), k, "euclidean")


def test_no_queries_have_no_neighbours() -> None:
    """Nothing asked, nothing answered."""
    found = find_neighbours(np.zeros((0, 3), np.float32), embeddings(5, 3, 15), 2, "cosine")
    assert found.indices.shape == found.distances.shape == (0, 2)
