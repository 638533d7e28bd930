"""Exact nearest neighbours: a blocked product proposes, float64 decides, and a bound proves that none is missing.

Letters: q queries, g gallery, d embedding, k neighbours, p pairs of a query and a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.config import Distance
from carcls.errors import InputError, TrialFailure
from carcls.evaluation.proposals import Proposer, Vectors, Width, lengths_of, multiplies_narrow_faster

MARGIN = 48
BLOCK_BYTES = 2**28
# What is rescored at a time should stay in the processor's cache.
_RESCORED_BYTES = 2**20


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

    A product in bf16, where that is faster, or else in float32 proposes 2k + 48 candidates a query. An error bound of
    the product says which of them can be among the k nearest; their distances are computed again in float64. The bound
    also says whether an image that was not proposed could be among them; where it could, the query is asked again in
    float32, and where it still could (duplicates in masses, near ties), all its distances are computed in float64.

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
        *_Embeddings.both(queries, gallery, distance),
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
class _Embeddings:
    """Embeddings, and the form in which a product of theirs loses little.

    For the cosine they have unit length. Then about the gallery's mean is taken off, which changes no difference;
    without it, products of vectors that point about one way lose their digits.
    """

    raw: NDArray[np.float32]
    centre: NDArray[np.float32]
    scales: NDArray[np.float64] | None

    @classmethod
    def both(
        cls, queries: NDArray[np.float32], gallery: NDArray[np.float32], distance: Distance
    ) -> tuple[_Embeddings, _Embeddings]:
        """Prepare queries [q, d] and the gallery [g, d]."""
        if distance == "euclidean":
            centre = gallery.mean(axis=0, dtype=np.float64).astype(np.float32)
            return cls(queries, centre, None), cls(gallery, centre, None)
        scales = _scales(gallery)
        centre = (torch.from_numpy(scales).float() @ torch.from_numpy(gallery) / len(gallery)).numpy()
        return cls(queries, centre, _scales(queries)), cls(gallery, centre, scales)

    def centred(self, positions: NDArray[np.int64]) -> Vectors:
        """Return some of them, [n, d]; each of at most three operations is off by up to 2⁻²⁴ of its result."""
        values, centre = torch.from_numpy(self.raw[positions]), torch.from_numpy(self.centre)
        if self.scales is not None:
            values *= torch.from_numpy(self.scales[positions]).float()[:, None]
        values -= centre
        lengths = lengths_of(values)
        return Vectors(values, lengths, 2.0**-23 * lengths if self.scales is None else 2.0**-22 * (1 + lengths))

    def offsets(self, vectors: Vectors) -> tuple[NDArray[np.float64], float]:
        """Return what is taken off products q·g so that the nearest g has the largest, [n], and how far it is off.

        |q - g|² is |q|² - 2 (q·g - |g|²/2); and the cosine of vectors whose centre c was taken off is q·g + c·g, but
        for what is the same for all g.
        """
        if self.scales is None:
            halves = lengths_of(vectors.values.double()) ** 2 / 2
            return halves, 2.0**-21 * float(halves.max(initial=0.0))
        products = vectors.values.double() @ torch.from_numpy(self.centre).double()
        return -products.numpy(), float(np.linalg.norm(self.centre) * vectors.slips.max(initial=0.0)) + 2.0**-40


def _scales(raw: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return 1 / length of each, and 0 for zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", raw, raw, dtype=np.float64))
    return np.asarray(np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0))


class _Search:
    """Answers blocks of queries. ``rows`` is how many of them fit into the memory at a time."""

    def __init__(
        self,
        queries: _Embeddings,
        gallery: _Embeddings,
        k: int,
        distance: Distance,
        own: NDArray[np.int64],
        device: torch.device,
        block_bytes: int,
    ) -> None:
        self._queries, self._gallery, self._k, self._distance, self._own = queries, gallery, k, distance, own
        self._device = device
        count, width = gallery.raw.shape
        self._candidates = min(count, 2 * k + MARGIN)
        self.rows = max(1, min(1024, block_bytes // (8 * count)))
        self._rescored = max(1, min(block_bytes, _RESCORED_BYTES) // (8 * width))
        self._read = max(1, block_bytes // (32 * width))
        self._proposers: dict[Width, Proposer] = {}
        self._first: Width = "narrow" if multiplies_narrow_faster(device) else "wide"

    def _proposer(self, width: Width) -> Proposer:
        if width not in self._proposers:
            count, dimensions = self._gallery.raw.shape
            made = Proposer(count, dimensions, width, self._device)
            for positions in _pieces(count, self._read):
                vectors = self._gallery.centred(positions)
                made.hold(int(positions[0]), vectors, *self._gallery.offsets(vectors))
            self._proposers[width] = made
        return self._proposers[width]

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return indices and distances, [r, k], of the queries in these rows."""
        indices = np.empty((len(rows), self._k), np.int64)
        distances = np.empty((len(rows), self._k))
        left = np.arange(len(rows))
        for width in ("narrow", "wide") if self._first == "narrow" else ("wide",):
            if not len(left):
                break
            asked = rows[left]
            found = self._proposer(width).propose(
                self._queries.centred(asked), self._k, self._candidates, self._own[asked]
            )
            done = left[found.proven]
            places, columns = np.nonzero(found.possible & found.proven[:, None])
            indices[done], distances[done] = self._nearest(asked[places], found.positions[places, columns])
            if width == "narrow" and 2 * len(done) < len(left):
                self._first = "wide"  # what is so close together needs the longer numbers
            left = left[~found.proven]
        for place in left:
            every = np.arange(len(self._gallery.raw))
            every = every[every != self._own[rows[place]]]
            indices[place], distances[place] = self._nearest(np.full(len(every), rows[place]), every)
        return indices, distances

    def _nearest(
        self, rows: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k nearest of each query by float64 distances, equally near ones by position, both [r, k].

        Args:
            rows: int64 [p], ascending; each query of these r has at least k candidates.
            candidates: int64 [p].
        """
        distances = np.empty(len(rows))
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        ends = np.append(firsts[1:], len(rows))

        def rescore(share: NDArray[np.int64]) -> None:
            for query in share:
                for start in range(firsts[query], ends[query], self._rescored):
                    piece = slice(start, min(start + self._rescored, ends[query]))
                    distances[piece] = self._distances(rows[firsts[query]], candidates[piece])

        # NumPy lets other threads work while it computes.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rescore, np.array_split(np.arange(len(firsts)), threads)))
        order = np.lexsort((candidates, distances, rows))
        chosen = order[firsts[:, None] + np.arange(self._k)]
        return candidates[chosen], distances[chosen]

    def _distances(self, row: np.int64, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 distances [p] of one query, each summed alone, so that equal images are equally far."""
        query, gallery = self._queries.raw[row], self._gallery.raw[candidates]  # [d] and [p, d]
        if self._distance == "euclidean":
            differences = np.subtract(gallery, query, dtype=np.float64)
            return np.asarray(np.sqrt(np.einsum("pd,pd->p", differences, differences)))
        assert self._queries.scales is not None
        assert self._gallery.scales is not None
        products = np.einsum("pd,d->p", gallery.astype(np.float64), query.astype(np.float64))
        return np.asarray(
            np.clip(1 - products * self._queries.scales[row] * self._gallery.scales[candidates], 0.0, 2.0)
        )


def _pieces(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
