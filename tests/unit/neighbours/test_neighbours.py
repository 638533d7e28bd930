"""Exact nearest neighbours, held against scikit-learn and float64: what the quick product rules out is never near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from carcls.config import Distance
from carcls.errors import InputError
from carcls.neighbours.exact import BrokenEmbedding, Neighbours, find_plainly, lengths_of
from carcls.neighbours.search import _Table, _Vectors, find_neighbours

SHAPES = [(7, 5, 3), (40, 60, 16), (120, 300, 64), (33, 700, 257)]
DISTANCES = ["euclidean", "cosine"]
TYPES = (torch.bfloat16, torch.float32)


def plainly(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, distance: Distance) -> Neighbours:
    """Search with NumPy alone."""
    return find_plainly(queries, gallery, lengths_of(gallery), k, distance)


SEARCHES = pytest.mark.parametrize("find", [find_neighbours, plainly])
Search = Callable[[NDArray[np.float32], NDArray[np.float32], int, Distance], Neighbours]


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


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the k nearest by plain float64 differences, of equally near ones the first, int64 [q, k]."""
    differences = queries[:, None].astype(np.float64) - gallery
    return np.argsort((differences**2).sum(axis=2), axis=1, kind="stable")[:, :k]


@SEARCHES
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("q", "g", "d"), SHAPES)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbours_are_those_of_scikit_learn(find: Search, distance: Distance, q: int, g: int, d: int, k: int) -> None:
    """On random embeddings, which have no ties, indices are equal and distances agree to ten digits."""
    queries, gallery = embeddings(q, d, 0), embeddings(g, d, 1)
    k = min(k, g)
    found = find(queries, gallery, k, distance)
    indices, distances = reference(queries, gallery, k, distance)
    assert (found.indices == indices).all()
    assert np.allclose(found.distances, distances, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("block_bytes", [1, 5_000, 100_000])
def test_memory_does_not_change_the_answer(
    distance: Distance, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of any size give the same neighbours at the same distances, to the last bit."""
    queries, gallery = embeddings(50, 24, 2), embeddings(200, 24, 3)
    whole = find_neighbours(queries, gallery, 9, distance)
    monkeypatch.setattr("carcls.neighbours.search.BLOCK_BYTES", block_bytes)
    blocked = find_neighbours(queries, gallery, 9, distance)
    assert (whole.indices == blocked.indices).all()
    assert (whole.distances == blocked.distances).all()


@SEARCHES
@pytest.mark.parametrize("case", ["far from zero", "near ties"])
def test_what_a_float32_product_cannot_tell_is_settled_in_float64(find: Search, case: str) -> None:
    """Where the product loses every digit, or images differ by less than it can tell, the order is the true one."""
    if case == "near ties":
        queries = embeddings(1, 64, 9)
        gallery = np.repeat(queries, 300, axis=0)
        gallery[:, 0] += np.random.default_rng(10).permutation(300).astype(np.float32) * 1e-5
    else:
        queries, gallery = embeddings(30, 32, 7, offset=3000.0), embeddings(400, 32, 8, offset=3000.0)
    found = find(queries, gallery, 25, "euclidean")
    assert (found.indices == nearest(queries, gallery, 25)).all()


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
def test_numbers_of_either_type_give_the_same_answer(
    distance: Distance, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever product proposes: duplicates, zeros and scattered images come as by sorting all float64 distances."""
    monkeypatch.setattr("carcls.neighbours.search.multiplies_bf16_faster", lambda _: bf16)
    gallery = np.concatenate([embeddings(300, 40, 16), np.zeros((3, 40), np.float32)])
    gallery[50:150:2] = gallery[7]
    queries = np.concatenate([embeddings(20, 40, 17), gallery[[7, 302]]])
    found = find_neighbours(queries, gallery, 12, distance)
    every = ((queries[:, None].astype(np.float64) - gallery) ** 2).sum(axis=2)
    if distance == "cosine":
        wide = [each.astype(np.float64) for each in (queries, gallery)]
        asked, held = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-9) for each in wide)
        every = 1 - np.einsum("qd,gd->qg", asked, held).round(12)
    assert (found.indices == np.argsort(every, axis=1, kind="stable")[:, :12]).all()


@SEARCHES
def test_zeros_have_similarity_zero_with_everything(find: Search) -> None:
    """A zero vector is at cosine distance 1 from all, itself included: no NaN, no error."""
    gallery = np.concatenate([np.zeros((2, 4), np.float32), -np.eye(4, dtype=np.float32)])
    found = find(np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.float32), gallery, 6, "cosine")
    assert (found.indices[0] == np.arange(6)).all()
    assert (found.distances[0] == 1).all()
    assert found.distances[1].tolist() == [1, 1, 1, 1, 1, 2]


@SEARCHES
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_embeddings_fail_the_trial(find: Search, value: float) -> None:
    """NaN and infinity are counted and named, on either side."""
    whole, broken = embeddings(5, 3, 11), embeddings(5, 3, 12)
    broken[1:3, 0] = value
    with pytest.raises(BrokenEmbedding, match="2 of 5 gallery embeddings"):
        find(whole, broken, 1, "cosine")
    with pytest.raises(BrokenEmbedding, match="2 of 5 query embeddings"):
        find(broken, whole, 1, "euclidean")


@SEARCHES
@pytest.mark.parametrize("k", [0, 6])
def test_k_beyond_the_gallery_is_refused(find: Search, k: int) -> None:
    """The message says how many there are."""
    with pytest.raises(InputError, match="k must be from 1 to 5"):
        find(embeddings(2, 3, 13), embeddings(5, 3, 14), k, "euclidean")


@SEARCHES
def test_no_queries_have_no_neighbours(find: Search) -> None:
    """Nothing asked, nothing answered."""
    found = find(np.zeros((0, 3), np.float32), embeddings(5, 3, 15), 2, "cosine")
    assert found.indices.shape == found.distances.shape == (0, 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("distance", DISTANCES)
def test_both_searches_say_the_same(distance: Distance, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Duplicates, zeros, and numbers whose products are too small or too large for float32; in blocks of any size."""
    gallery = np.concatenate([vectors(300, 4, scale), np.zeros((3, 48), np.float32)])
    gallery[50:150:2] = gallery[7]
    queries = np.concatenate([vectors(20, 5, scale), gallery[[7, 302]]])
    wide = [each.astype(np.float64) / scale for each in (queries, gallery)]
    every = ((wide[0][:, None] - wide[1]) ** 2).sum(axis=2)
    if distance == "cosine":
        asked, held = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-9) for each in wide)
        every = 1 - np.einsum("qd,gd->qg", asked, held).round(12)
    for block_bytes in (1, 2**26):
        monkeypatch.setattr("carcls.neighbours.exact._BLOCK_BYTES", block_bytes)
        found = plainly(queries, gallery, 12, distance)
        assert (found.indices == np.argsort(every, axis=1, kind="stable")[:, :12]).all()
    if 1e-10 < scale < 1e10:
        quick = find_neighbours(queries, gallery, 12, distance)
        assert (quick.indices == found.indices).all()
        assert (quick.distances == found.distances).all()


def vectors(count: int, seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Return vectors of very different lengths, float32 [count, 48]."""
    random = np.random.default_rng(seed)
    return (scale * random.normal(size=(count, 48)) * random.gamma(2.0, size=(count, 1))).astype(np.float32)


def proposed(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], dtype: torch.dtype, k: int, distance: Distance
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Return each query's candidates, and whether they are proven."""
    asked, held = _Vectors.both(queries, gallery, distance)
    return _Table(held, dtype, torch.device("cpu")).propose(asked, np.arange(len(queries)), k)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_what_is_proved_is_so(dtype: torch.dtype, scale: float, k: int) -> None:
    """Where a query is proven, its k nearest are among the possible candidates, whatever the size of the numbers."""
    queries, gallery = vectors(40, 0, scale), vectors(400, 1, scale)
    candidates, proven = proposed(queries, gallery, dtype, k, "euclidean")
    for query in np.flatnonzero(proven):
        assert set(nearest(queries, gallery, k)[query]) <= set(candidates[query])
    assert proven.sum() >= 30
    assert proven.all() or k < 200  # where all of the gallery is proposed
    if (scale, k) == (1.0, 10):
        assert np.mean([len(each) for each in candidates]) < (40 if dtype == torch.bfloat16 else 10.5)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_no_score_is_further_off_than_the_bound_says(dtype: torch.dtype, distance: Distance) -> None:
    """Also of numbers halfway between two of bf16, where rounding changes the most: ruled out is only what is far."""
    halfway = np.full((400, 48), 1 + 2.0**-8, np.float32) * vectors(400, 8).round(1)
    candidates, proven = proposed(halfway[:40], halfway, dtype, 7, distance)
    exact = reference(halfway[:40], halfway, 400, distance)
    for query in np.flatnonzero(proven):
        farther = dict(zip(exact[0][query].tolist(), exact[1][query].tolist(), strict=True))
        ruled_out = [away for place, away in farther.items() if place not in candidates[query]]
        assert min(ruled_out) >= exact[1][query][6] - 1e-12
    assert proven.any()


@pytest.mark.parametrize("before", ["highest", "medium"])
def test_the_precision_of_other_products_stays(before: str) -> None:
    """What is not allowed to the product stays allowed to training."""
    torch.set_float32_matmul_precision(before)
    try:
        find_neighbours(vectors(40, 6), vectors(400, 7), 3, "euclidean")
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")
