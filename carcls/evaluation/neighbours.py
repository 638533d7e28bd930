"""Exact nearest neighbours: a blocked product proposes, float64 decides, and a bound proves that none is missing.

Letters: q queries, g gallery, d embedding, k neighbours, m candidates (k and a margin).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carcls.config import Distance
from carcls.errors import InputError, TrialFailure

MARGIN = 16
BLOCK_BYTES = 2**28
# What is rescored at a time should stay in the processor's cache.
_RESCORED_BYTES = 2**22
_FLOAT32_STEP = 2.0**-24


class BrokenEmbedding(TrialFailure):
    """Embeddings are NaN or infinite, so nothing is near to anything."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of the gallery for each query.

    Attributes:
        indices: positions in the gallery, int64 [q, k], nearest first; of equally near ones the lower position first.
        distances: float64 [q, k]; Euclidean, or 1 - cosine similarity in [0, 2].
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]


def find_neighbours(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k: int,
    distance: Distance,
    *,
    itself: NDArray[np.int64] | None = None,
    device: torch.device | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """Return the k nearest images of the gallery for each query: those that sorting all float64 distances would give.

    A float32 product proposes k + 16 candidates a query. Their distances are computed again in float64. An error bound
    of the product says whether an image that was not proposed could be as near as the k-th; where it could (duplicates
    in masses, near ties), all distances of that query are computed in float64.

    Args:
        queries: float32 [q, d].
        gallery: float32 [g, d].
        k: from 1 to g; to g - 1 where a query lies in the gallery.
        distance: ``euclidean`` or ``cosine``. A zero vector has cosine similarity 0 with everything.
        itself: int64 [q], each query's own position in the gallery or -1; it is never its own neighbour.
        device: where the product is computed; None is the CPU.
        block_bytes: about how much memory the largest arrays take.

    Raises:
        InputError: k is not what the gallery can give.
        BrokenEmbedding: an embedding is NaN or infinite.
    """
    own = np.full(len(queries), -1, np.int64) if itself is None else itself
    _check(queries, gallery, k, own)
    search = _Search(
        _Vectors.of(queries, gallery, distance),
        _Vectors.of(gallery, gallery, distance),
        k,
        distance,
        own,
        device or torch.device("cpu"),
        block_bytes,
    )
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float64)
    for start in range(0, len(queries), search.rows):
        rows = np.arange(start, min(start + search.rows, len(queries)))
        indices[rows], distances[rows] = search.of(rows)
    return Neighbours(indices, distances)


def _check(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, own: NDArray[np.int64]) -> None:
    held = len(gallery) - int((own >= 0).any())
    if not 1 <= k <= held:
        raise InputError(
            f"k must be from 1 to {held}, the images that the gallery holds for a query, got {k!r}. Lower k."
        )
    require_finite(queries, "query")
    require_finite(gallery, "gallery")


def require_finite(embeddings: NDArray[np.float32], name: str) -> None:
    """Check that all numbers of float32 [n, d] are finite.

    Raises:
        BrokenEmbedding: some are not; says how many embeddings.
    """
    broken = int((~np.isfinite(embeddings)).any(axis=1).sum())
    if broken:
        raise BrokenEmbedding(
            f"{broken} of {len(embeddings)} {name} embeddings are NaN or infinite: the extractor has diverged."
        )


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Embeddings, brought into a form in which little is lost by computing: exactly so on demand, all in float32.

    For the cosine they have unit length. For Euclidean distances the gallery's mean is taken off, which changes no
    difference; without it, products of vectors far from zero lose their digits.
    """

    raw: NDArray[np.float32]
    centre: NDArray[np.float64] | None
    scales: NDArray[np.float64] | None

    @classmethod
    def of(cls, raw: NDArray[np.float32], gallery: NDArray[np.float32], distance: Distance) -> _Vectors:
        """Prepare ``raw``, [n, d]; ``gallery`` gives the centre."""
        if distance == "euclidean":
            return cls(raw, gallery.mean(axis=0, dtype=np.float64), None)
        lengths = np.sqrt(np.einsum("nd,nd->n", raw, raw, dtype=np.float64))
        scales = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return cls(raw, None, scales)

    def exactly(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return some of them, float64 [..., d]."""
        found = self.raw[positions].astype(np.float64)
        if self.centre is not None:
            found -= self.centre
        if self.scales is not None:
            found *= self.scales[positions][..., None]
        return found

    def roughly(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some of them, float32 [n, d]."""
        return self.exactly(positions).astype(np.float32)


class _Search:
    """Answers blocks of queries. ``rows`` is how many of them fit into the memory at a time."""

    def __init__(
        self,
        queries: _Vectors,
        gallery: _Vectors,
        k: int,
        distance: Distance,
        own: NDArray[np.int64],
        device: torch.device,
        block_bytes: int,
    ) -> None:
        self._queries, self._gallery, self._k, self._distance, self._own = queries, gallery, k, distance, own
        self._device = device
        count, width = gallery.raw.shape
        self._candidates = min(count, k + MARGIN + int((own >= 0).any()))
        self.rows = max(1, min(1024, block_bytes // (8 * count)))
        self._rescored = max(1, min(block_bytes, _RESCORED_BYTES) // (8 * width * self._candidates))
        self._read = max(1, block_bytes // (16 * width))
        self._table = torch.empty((count, width), dtype=torch.float32, device=device)
        squares = np.empty(count)
        for positions in _pieces(count, self._read):
            piece = gallery.exactly(positions)
            squares[positions] = np.einsum("nd,nd->n", piece, piece)
            self._table[positions[0] : positions[-1] + 1] = torch.from_numpy(piece.astype(np.float32)).to(device)
        self._longest = float(np.sqrt(squares.max()))
        # Largest q·g - |g|²/2 means smallest |q - g|.
        halves = squares / 2 if distance == "euclidean" else np.zeros(count)
        self._halves = torch.from_numpy(halves.astype(np.float32)).to(device)

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return indices and distances, [r, k], of the queries in these rows."""
        proposed, floors = self._propose(rows)
        indices = np.empty((len(rows), self._k), np.int64)
        distances = np.empty((len(rows), self._k))
        for piece in _pieces(len(rows), self._rescored):
            indices[piece], distances[piece] = self._nearest(rows[piece], proposed[piece])
        for place in np.flatnonzero(self._unproven(rows, distances[:, -1], floors)):
            every = np.arange(len(self._gallery.raw))[None, :]
            indices[place], distances[place] = self._nearest(rows[place : place + 1], every)
        return indices, distances

    def _propose(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return candidates int64 [r, m], and the score that no other image exceeds by the product, float64 [r]."""
        block = torch.from_numpy(self._queries.roughly(rows)).to(self._device)
        scores: Tensor = block @ self._table.T - self._halves  # [r, g]
        best, found = scores.topk(self._candidates, dim=1, sorted=False)
        return found.cpu().numpy(), best.amin(dim=1).double().cpu().numpy()

    def _unproven(
        self, rows: NDArray[np.int64], farthest: NDArray[np.float64], floors: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell for which queries an image that was not proposed could be as near as the k-th.

        A product of d float32 terms is off by at most (d + 2)·2⁻²⁴ |q||g| (Higham 2002, section 3.1).
        """
        if self._candidates == len(self._gallery.raw):
            return np.zeros(len(rows), np.bool_)
        vectors = self._queries.exactly(rows)
        lengths = np.linalg.norm(vectors, axis=1)
        steps = (vectors.shape[1] + 8) * _FLOAT32_STEP
        slack = steps * lengths * self._longest + 8 * _FLOAT32_STEP * self._longest**2
        if self._distance == "cosine":
            return np.asarray(1 - farthest <= floors + slack + 1e-12)
        return np.asarray((lengths**2 - farthest**2) / 2 <= floors + slack)

    def _nearest(
        self, rows: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k nearest of candidates int64 [r, m] by float64 distances, equally near ones by position."""
        candidates = np.sort(candidates, axis=1)
        distances = np.concatenate(
            [self._distances(rows, candidates[:, piece]) for piece in _pieces(candidates.shape[1], self._read)], axis=1
        )
        distances[candidates == self._own[rows][:, None]] = np.inf
        order = np.argsort(distances, axis=1, kind="stable")[:, : self._k]
        return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def _distances(self, rows: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 distances [r, m], each summed alone, so that equal images are equally far."""
        gallery = self._gallery.exactly(candidates)  # [r, m, d]
        queries = np.broadcast_to(self._queries.exactly(rows)[:, None, :], gallery.shape)
        if self._distance == "cosine":
            return np.asarray(np.clip(1 - np.einsum("rmd,rmd->rm", gallery, queries), 0.0, 2.0))
        gallery -= queries
        return np.asarray(np.sqrt(np.einsum("rmd,rmd->rm", gallery, gallery)))


def _pieces(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
