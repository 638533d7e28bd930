"""Exact nearest neighbours with NumPy alone, and what every search does in float64.

Letters: q queries, g gallery, d embedding, k neighbours, m candidates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance
from carcls.errors import InputError, TrialFailure

# About how much memory the scores of a block of queries take, and what is rescored at a time, which should stay in the
# processor's cache.
_BLOCK_BYTES, _RESCORED_BYTES = 2**26, 2**20
_TINIEST = 2.0**-120
"""By which a product of two float32 may be off that are too small for one."""


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

    @classmethod
    def empty(cls, queries: int, k: int, gallery: int) -> Neighbours:
        """Return room for the k nearest of so many images.

        Raises:
            InputError: k is not what the gallery can give.
        """
        if not 1 <= k <= gallery:
            raise InputError(f"k must be from 1 to {gallery}, the images that the gallery holds, got {k!r}. Lower k.")
        return cls(np.empty((queries, k), np.int64), np.empty((queries, k)))


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings as they are given.

    Attributes:
        raw: float32 [n, d].
        scales: 1 / length of each for the cosine, and 0 for zeros, float64 [n]; None for Euclidean distances.
    """

    raw: NDArray[np.float32]
    scales: NDArray[np.float64] | None

    def distances(self, query: NDArray[np.float32], scale: float, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 distances [n] of some of them, each summed alone, so that equal images are equally far."""
        vectors = self.raw[rows]
        if self.scales is None:
            differences = np.subtract(vectors, query, dtype=np.float64)
            return np.asarray(np.sqrt(np.einsum("nd,nd->n", differences, differences)))
        products = np.einsum("nd,d->n", vectors.astype(np.float64), query.astype(np.float64))
        return np.asarray(np.clip(1 - products * scale * self.scales[rows], 0.0, 2.0))


def find_plainly(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    lengths: NDArray[np.float64],
    k: int,
    distance: Distance,
) -> Neighbours:
    """Return what ``carcls.neighbours.search.find_neighbours`` does, without PyTorch; arguments and errors as there.

    A product in float32 says about how near each image is: it is off by less than d·2⁻²⁴ times both lengths (Higham
    2002, section 3.1), here twice that. The distances of all that may be among the k nearest are computed in float64.

    Args:
        lengths: of the gallery's embeddings, from ``lengths_of``, float64 [g].
    """
    found, asked = Neighbours.empty(len(queries), k, len(gallery)), lengths_of(queries)
    require_finite(asked, "query")
    require_finite(lengths, "gallery")
    is_cosine = distance == "cosine"
    scales = (inverse(asked), inverse(lengths)) if is_cosine else (None, None)
    both = Vectors(queries, scales[0]), Vectors(gallery, scales[1])
    off, least, offsets = (gallery.shape[1] + 32) * 2.0**-23, gallery.shape[1] * _TINIEST, lengths**2 / 2
    step = max(1, _BLOCK_BYTES // (8 * len(gallery)))
    for rows in np.split(np.arange(len(queries)), range(step, len(queries), step)):
        with np.errstate(over="ignore", invalid="ignore"):
            products = (queries[rows] @ gallery.T).astype(np.float64)  # [n, g]
            if is_cosine:  # |q| (1 - cosine) but for |q|, which is the same for all images
                scores = -products * inverse(lengths)
                slack = off * asked[rows, None] + least * inverse(lengths)
            else:  # half the squared distance but for |q|²/2
                scores = offsets - products
                slack = off * (asked[rows, None] * lengths + offsets) + least
            reached = np.partition(scores + slack, k - 1, axis=1)[:, k - 1 : k]
            possible = scores - slack <= reached
            possible |= ~np.isfinite(products).all(axis=1, keepdims=True)  # too large for float32
        decide(found, *both, ((row, np.flatnonzero(may)) for row, may in zip(rows, possible, strict=True)))
    return found


def decide(
    found: Neighbours, asked: Vectors, gallery: Vectors, pairs: Iterable[tuple[np.int64, NDArray[np.int64]]]
) -> None:
    """Write the nearest of each query's candidates int64 [m], ascending: by float64 distances, then by position."""
    k, size = found.indices.shape[1], max(1, _RESCORED_BYTES // (8 * gallery.raw.shape[1]))
    for query, candidates in pairs:
        raw, scale = asked.raw[query], 1.0 if asked.scales is None else float(asked.scales[query])
        pieces = [candidates[first : first + size] for first in range(0, len(candidates), size)]
        distances = np.concatenate([gallery.distances(raw, scale, piece) for piece in pieces])
        order = np.argsort(distances, kind="stable")[:k]
        found.indices[query], found.distances[query] = candidates[order], distances[order]


def lengths_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the length of each vector [n, d], float64 [n]."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


def inverse(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / length of each, and 0 for zeros."""
    return np.asarray(np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0))


def require_finite(numbers: NDArray[np.floating], name: str) -> None:
    """Check that all numbers of embeddings [n, d], or their lengths [n], are finite.

    Raises:
        BrokenEmbedding: some are not; says how many embeddings.
    """
    broken = int((~np.isfinite(numbers)).any(axis=tuple(range(1, numbers.ndim))).sum())
    if broken:
        raise BrokenEmbedding(
            f"{broken} of {len(numbers)} {name} embeddings are NaN or infinite: the extractor has diverged."
        )
