"""The quick product's candidates, held against float64: what it rules out is never among the nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from carcls.evaluation.neighbours import BLOCK_BYTES, _Table, _Vectors

TYPES = (torch.bfloat16, torch.float32)
Proposed = tuple[list[NDArray[np.int64]], NDArray[np.bool_]]


def vectors(count: int, seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Return vectors of very different lengths, float32 [count, 48]."""
    random = np.random.default_rng(seed)
    return (scale * random.normal(size=(count, 48)) * random.gamma(2.0, size=(count, 1))).astype(np.float32)


def proposed(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    dtype: torch.dtype,
    k: int,
    block_bytes: int = 50_000,
) -> Proposed:
    """Return candidates by Euclidean distance; the gallery is put into the table in several pieces."""
    asked, held = _Vectors.both(queries, gallery, "euclidean")
    table = _Table(held, dtype, torch.device("cpu"), block_bytes)
    return table.propose(asked, np.arange(len(queries)), k)


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the k nearest by plain float64 differences, int64 [q, k]."""
    differences = queries[:, None].astype(np.float64) - gallery
    return np.argsort((differences**2).sum(axis=2), axis=1)[:, :k]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_what_is_proved_is_so(dtype: torch.dtype, scale: float, k: int) -> None:
    """Where a query is proven, its k nearest are among the possible candidates, whatever the size of the numbers."""
    queries, gallery = vectors(40, 0, scale), vectors(400, 1, scale)
    candidates, proven = proposed(queries, gallery, dtype, k)
    for query in np.flatnonzero(proven):
        assert set(nearest(queries, gallery, k)[query]) <= set(candidates[query])
    assert proven.sum() >= 30
    assert proven.all() or k < 200  # where all of the gallery is proposed


@pytest.mark.parametrize("dtype", TYPES)
def test_most_candidates_are_ruled_out(dtype: torch.dtype) -> None:
    """Of all the gallery little more than the k nearest is left to be computed again."""
    candidates, _ = proposed(vectors(40, 2), vectors(400, 3), dtype, 10, block_bytes=BLOCK_BYTES)
    assert np.mean([len(each) for each in candidates]) < (40 if dtype == torch.bfloat16 else 10.5)


def test_what_is_closer_together_than_bf16_can_tell_is_not_proven() -> None:
    """Differences of a thousandth are left open by bf16, and settled by float32."""
    queries = vectors(1, 4)
    gallery = np.repeat(queries, 400, axis=0)
    gallery[200:] *= -1  # so that the mean, which is taken off, is near 0
    gallery[:200, 0] += (np.arange(200) * 1e-3 * np.linalg.norm(queries[0])).astype(np.float32)
    assert not proposed(queries, gallery, torch.bfloat16, 10)[1].any()
    assert proposed(queries, gallery, torch.float32, 10)[1].all()


@pytest.mark.parametrize("before", ["highest", "medium"])
def test_the_precision_of_other_products_stays(before: str) -> None:
    """What is not allowed to the product stays allowed to training."""
    torch.set_float32_matmul_precision(before)
    try:
        proposed(vectors(40, 6), vectors(400, 7), torch.float32, 3)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_no_score_is_further_off_than_the_bound_says(dtype: torch.dtype, distance: str) -> None:
    """Also of numbers halfway between two of bf16, where rounding changes the most: ruled out is only what is far."""
    halfway = np.full((400, 48), 1 + 2.0**-8, np.float32) * vectors(400, 8).round(1)
    asked, held = _Vectors.both(halfway[:40], halfway, distance)  # type: ignore[arg-type]
    candidates, proven = _Table(held, dtype, torch.device("cpu"), 10**6).propose(asked, np.arange(40), 7)
    for query in np.flatnonzero(proven):
        scale = 1.0 if asked.scales is None else float(asked.scales[query])
        exact = held.distances(asked.raw[query], scale, np.arange(400))
        ruled_out = np.setdiff1d(np.arange(400), candidates[query])
        assert exact[ruled_out].min() >= np.sort(exact)[6]
    assert proven.any()
