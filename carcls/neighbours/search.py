"""Exact nearest neighbours: a quick product proposes, float64 decides, and a bound proves that none is missing.

The score q·g - offset(g) is the larger the nearer g is to q. The product takes rounded vectors q' and g', in bf16 where
the processor multiplies those faster. How far each of them is off is known, so by Cauchy and Schwarz a score is off by
at most

    |q - q'|·max|g| + |q'|·max|g - g'| + a·(|q'|·max|g'| + max|offset|)

where a stands for adding up in float32.

Letters: q queries, g gallery, d embedding, k neighbours, m candidates.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carcls.config import Distance
from carcls.neighbours.exact import Neighbours, Vectors, decide, inverse, lengths_of, require_finite

MARGIN = 48
BLOCK_BYTES = 2**28
"""About how much memory the scores of a block of queries take."""
# An offset is held in three columns of bf16, so to 24 bits.
_PARTS = 3


def find_neighbours(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k: int,
    distance: Distance,
    *,
    device: torch.device | None = None,
) -> Neighbours:
    """Return the k nearest images of the gallery for each query: those that sorting all float64 distances would give.

    The product proposes 2k + 48 candidates a query. Its bound says which of them can be among the k nearest; their
    distances are computed again in float64. The bound also says whether an image that was not proposed could be among
    them; where it could, the query is asked again in float32, and where it still could (duplicates in masses, near
    ties), all its distances are computed in float64.

    Args:
        queries: float32 [q, d].
        gallery: float32 [g, d].
        k: from 1 to g.
        distance: ``euclidean`` or ``cosine``. A zero vector has cosine similarity 0 with everything.
        device: where the product is computed; None is the CPU.

    Raises:
        InputError: k is not what the gallery can give.
        BrokenEmbedding: an embedding is NaN or infinite.
    """
    found = Neighbours.empty(len(queries), k, len(gallery))
    require_finite(queries, "query")
    require_finite(gallery, "gallery")
    asked, held = _Vectors.both(queries, gallery, distance)
    where = device or torch.device("cpu")
    left = np.arange(len(queries))
    for dtype in (torch.bfloat16, torch.float32) if multiplies_bf16_faster(where) else (torch.float32,):
        if len(left):
            left = _answer(found, left, asked, _Table(held, dtype, where))
    decide(found, asked, held, [(query, np.arange(len(gallery))) for query in left])
    return found


def multiplies_bf16_faster(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 faster than float32, and adds up in float32, which GPUs may not."""
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True, slots=True)
class _Vectors(Vectors):
    """Embeddings as they are given, and what brings them into a form whose product loses little.

    For the cosine they get unit length. Then about the gallery's mean is taken off, which changes no difference:
    products of vectors that point about one way lose their digits.
    """

    centre: NDArray[np.float32]

    @classmethod
    def both(
        cls, queries: NDArray[np.float32], gallery: NDArray[np.float32], distance: Distance
    ) -> tuple[_Vectors, _Vectors]:
        """Prepare queries [q, d] and the gallery [g, d]."""
        scales = (inverse(lengths_of(queries)), inverse(lengths_of(gallery))) if distance == "cosine" else (None, None)
        weights = torch.ones(len(gallery)) if scales[1] is None else torch.from_numpy(scales[1]).float()
        centre = (weights @ torch.from_numpy(gallery) / len(gallery)).numpy()
        return cls(queries, scales[0], centre), cls(gallery, scales[1], centre)

    def centred(self, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.float64], NDArray[np.float64]]:
        """Return some of them, float32 [n, d], their lengths, and at most how far each is off after three roundings."""
        values = torch.from_numpy(self.raw[rows])
        if self.scales is not None:
            values *= torch.from_numpy(self.scales[rows]).float()[:, None]
        values -= torch.from_numpy(self.centre)
        lengths = _lengths(values)
        return values, lengths, 2.0**-22 * (lengths if self.scales is None else 1 + lengths)

    def offsets(self, values: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the offset of each of n centred vectors, [n].

        |q - g|² is |q|² - 2 (q·g - |g|²/2). Of vectors of length 1 that is 2 - 2 cosine, and so it is of a zero among
        them, whose cosine is 0, with 1/2 more.
        """
        offsets = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64).numpy() ** 2 / 2
        return np.asarray(offsets if self.scales is None else offsets + (self.scales[rows] == 0) / 2)


def _lengths(vectors: Tensor) -> NDArray[np.float64]:
    """Return at least the length of each vector [n, d], float64 [n]: float32 adds up well, and squares nothing tiny."""
    return np.asarray(torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float32).double().numpy()) * 1.001 + 1e-16


class _Table:
    """A gallery in bf16 or float32, ready to be multiplied, and how far scores can be off."""

    def __init__(self, gallery: _Vectors, dtype: torch.dtype, device: torch.device) -> None:
        count, width = gallery.raw.shape
        self.gallery, self._dtype = gallery, dtype
        self._rows = torch.empty((count, width + _PARTS), dtype=dtype, device=device)
        # The sum of n products is off by less than n·2⁻²⁴ of the sum of their sizes (Higham 2002, section 3.1); twice
        # that, for units that cut off instead of rounding.
        self._adding = (width + 32) * 2.0**-23
        self._longest = self._error = self._offset = self._slip = 0.0
        pieces = min(count, 1 + 32 * width * count // BLOCK_BYTES)
        for rows in np.array_split(np.arange(count), pieces):
            values, lengths, slips = gallery.centred(rows)
            offsets = gallery.offsets(values, rows)
            rounded, errors = self._round(values, slips)
            self._rows[rows[0] : rows[-1] + 1] = torch.cat(
                [rounded, _in_parts(-torch.from_numpy(offsets), dtype)], dim=1
            ).to(device)
            self._longest = max(self._longest, float((lengths + errors).max()))
            self._error = max(self._error, float(errors.max()))
            self._offset = max(self._offset, float(np.abs(offsets).max()))
            self._slip = max(self._slip, float((lengths * slips).max()))

    def _round(self, values: Tensor, slips: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.float64]]:
        """Return vectors [n, d] in this type, and at most how far each is from what is meant, float64 [n]."""
        rounded = values.to(self._dtype)
        return rounded, (_lengths(rounded.float() - values) if rounded is not values else 0.0) + slips

    def propose(
        self, queries: _Vectors, rows: NDArray[np.int64], k: int
    ) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
        """Return the positions, ascending, that can be among the k nearest, and whether no others can, bool [n].

        Args:
            queries: of which.
            rows: int64 [n], which of them.
            k: at least so many positions are returned for each.
        """
        dtype, count = self._rows.dtype, min(len(self._rows), 2 * k + MARGIN)
        values, lengths, slips = queries.centred(rows)
        rounded, errors = self._round(values, slips)
        lengths = lengths + errors
        values = torch.cat([rounded, torch.ones((len(rows), _PARTS), dtype=dtype)], dim=1)
        scores = _product(values.to(self._rows.device), self._rows)
        best, found = scores.topk(count, dim=1, sorted=False)
        written, positions = best.double().cpu().numpy(), found.cpu().numpy()
        bound = errors * self._longest + lengths * self._error + self._slip
        bound += self._adding * (lengths * self._longest + self._offset)
        off = bound[:, None] + (2.0**-8 * np.abs(written) if dtype == torch.bfloat16 else 0.0)
        # At least k candidates are as near as this.
        reached = np.partition(written - off, count - k, axis=1)[:, count - k]
        proven = (count == len(self._rows)) | ((written + off).min(axis=1) < reached)
        possible = written + off >= reached[:, None]
        return [np.sort(row[can]) for row, can in zip(positions, possible, strict=True)], proven


def _product(queries: Tensor, gallery: Tensor) -> Tensor:
    """Return all scores [n, g]; those of float32 in float32, whatever is allowed to training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return queries @ gallery.T
    finally:
        torch.set_float32_matmul_precision(before)


def _in_parts(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return columns [n, 3] whose sum is ``values`` float64 [n], to 24 bits."""
    parts: list[Tensor] = []
    for _ in range(_PARTS):
        parts.append(values.to(dtype))
        values = values - parts[-1]
    return torch.stack(parts, dim=1)


def _answer(found: Neighbours, queries: NDArray[np.int64], asked: _Vectors, table: _Table) -> NDArray[np.int64]:
    """Write the neighbours of these queries, int64 [n], where they are proven; return those where they are not."""
    left, threads = [np.zeros(0, np.int64)], torch.get_num_threads()
    size = max(1, min(1024, BLOCK_BYTES // (8 * len(table.gallery.raw))))
    # NumPy lets other threads work while it computes.
    with ThreadPoolExecutor(threads) as pool:
        for rows in np.split(queries, range(size, len(queries), size)):
            candidates, proven = table.propose(asked, rows, found.indices.shape[1])
            pairs = [(row, near) for row, near, sure in zip(rows, candidates, proven, strict=True) if sure]
            shares = [pairs[first::threads] for first in range(threads)]
            list(pool.map(partial(decide, found, asked, table.gallery), shares))
            left.append(rows[~proven])
    return np.concatenate(left)
