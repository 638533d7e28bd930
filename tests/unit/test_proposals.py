"""The quick product's candidates, held against float64: what it rules out is never among the nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from carcls.evaluation.proposals import Proposals, Proposer, Vectors, Width

WIDTHS: tuple[Width, ...] = ("narrow", "wide")
CPU = torch.device("cpu")
NOBODY = np.full(40, -1)


def vectors(count: int, seed: int, scale: float = 1.0) -> NDArray[np.float64]:
    """Return vectors of very different lengths, float64 [count, 48]."""
    random = np.random.default_rng(seed)
    return scale * random.normal(size=(count, 48)) * random.gamma(2.0, size=(count, 1))


def proposed(
    queries: NDArray[np.float64],
    gallery: NDArray[np.float64],
    width: Width,
    k: int,
    count: int,
    own: NDArray[np.int64] = NOBODY,
) -> Proposals:
    """Return candidates by Euclidean distance, the gallery being held in two pieces."""
    proposer = Proposer(len(gallery), gallery.shape[1], width, CPU)
    offsets = (gallery**2).sum(axis=1) / 2
    for places in (slice(0, 70), slice(70, None)):
        proposer.hold(places.start, known(gallery[places]), offsets[places], 0.0)
    return proposer.propose(known(queries), k, count, own)


def known(values: NDArray[np.float64]) -> Vectors:
    """Return vectors in float32, and how far these are off."""
    single = torch.from_numpy(values).float()
    held = single.double().numpy()
    return Vectors(single, np.linalg.norm(held, axis=1), np.linalg.norm(values - held, axis=1))


def nearest(queries: NDArray[np.float64], gallery: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the k nearest by plain float64 differences, int64 [q, k]."""
    return np.argsort(((queries[:, None] - gallery) ** 2).sum(axis=2), axis=1)[:, :k]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("count", [12, 60, 400])
def test_what_is_proved_is_so(width: Width, scale: float, count: int) -> None:
    """Where a query is proven, its k nearest are among the possible candidates, whatever the size of the numbers."""
    queries, gallery = vectors(40, 0, scale), vectors(400, 1, scale)
    found = proposed(queries, gallery, width, 10, count)
    for query, truly in enumerate(nearest(queries, gallery, 10)):
        possible = set(found.positions[query][found.possible[query]].tolist())
        assert not found.proven[query] or set(truly.tolist()) <= possible
    assert found.proven.all() or count < 400
    assert found.proven.sum() >= (0 if count == 12 else 30)


@pytest.mark.parametrize("width", WIDTHS)
def test_most_candidates_are_ruled_out(width: Width) -> None:
    """Of all the gallery little more than the k nearest is left to be computed again."""
    queries, gallery = vectors(40, 2), vectors(400, 3)
    found = proposed(queries, gallery, width, 10, 400)
    assert found.possible.sum(axis=1).mean() < (20 if width == "narrow" else 10.5)


def test_what_is_closer_together_than_bf16_can_tell_is_not_proven() -> None:
    """Differences of a thousandth are left open by narrow numbers, and settled by wide ones."""
    queries = vectors(40, 4)
    gallery = np.repeat(queries[:1], 400, axis=0)
    gallery[:, 0] += np.arange(400) * 1e-3 * np.linalg.norm(queries[0])
    assert not proposed(queries[:1], gallery, "narrow", 10, 60, NOBODY[:1]).proven.any()
    assert proposed(queries[:1], gallery, "wide", 10, 60, NOBODY[:1]).proven.all()


@pytest.mark.parametrize("width", WIDTHS)
def test_itself_is_no_candidate(width: Width) -> None:
    """A query's own position is ruled out, and does not count as one of the k."""
    gallery = vectors(400, 5)
    own = np.arange(40)
    found = proposed(gallery[:40], gallery, width, 5, 60, own)
    truth = nearest(gallery[:40], gallery, 6)[:, 1:]
    for query in np.flatnonzero(found.proven):
        possible = set(found.positions[query][found.possible[query]].tolist())
        assert set(truth[query].tolist()) <= possible
        assert query not in possible
    assert found.proven.any()


@pytest.mark.parametrize("before", ["highest", "medium"])
def test_the_precision_of_other_products_stays(before: str) -> None:
    """What is not allowed to the product stays allowed to training."""
    torch.set_float32_matmul_precision(before)
    try:
        proposed(vectors(40, 6), vectors(400, 7), "wide", 3, 60)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("width", WIDTHS)
def test_what_rounding_changes_is_known(width: Width) -> None:
    """Also numbers halfway between two of bf16, where rounding changes the most, are no further off than is said."""
    halfway = known(np.full((3, 48), 1 + 2.0**-8) * [[1.0], [-3.0], [1e-6]])
    rounded, errors = halfway.rounded(width)
    off = np.linalg.norm(rounded.double().numpy() - halfway.values.double().numpy(), axis=1)
    assert (errors * (1 + 1e-6) >= off).all()
    assert (off > 0).any() == (width == "narrow")
