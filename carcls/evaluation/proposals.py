"""Which images of a gallery can be among a query's k nearest: one quick product, and its error bound, tell.

The score q·g - |g|²/2 (for unit vectors: q·g) is the larger the nearer g is to q. The product takes rounded vectors q'
and g': to bf16 where the processor multiplies those faster. Their errors |q - q'| and |g - g'| are known, so by Cauchy
and Schwarz the score of rounded vectors is off by at most

    bound(q, g) = |q - q'||g| + |q'||g - g'| + a·(|q'||g'| + |g|²/2)

where a stands for the adding up in float32. Vectors are lengthened by a few numbers such that the product itself gives
score + bound, which no true score exceeds; score - bound is what every true score reaches.

Letters: q queries, g gallery, d embedding, k neighbours, m candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Width = Literal["narrow", "wide"]
# More than rounding to bf16 can take off, and more than nothing.
_UP, _LEAST = 1 + 2.0**-7, 1e-30
# The parts of |g|²/2 that bf16 can hold one after another, to 24 bits.
_PARTS = 3
_ADDED = _PARTS + 2


@dataclass(frozen=True, slots=True)
class Proposals:
    """Candidates of some queries.

    Attributes:
        positions: in the gallery, int64 [q, m].
        possible: bool [q, m]; the others are proved not to be among the k nearest.
        proven: bool [q]; false where an image that is no candidate could be among them.
    """

    positions: NDArray[np.int64]
    possible: NDArray[np.bool_]
    proven: NDArray[np.bool_]


class Proposer:
    """A gallery that is ready to be multiplied.

    Args:
        count, dimensions: g and d.
        width: ``narrow`` rounds to bf16, ``wide`` to float32.
        halved: whether |g|²/2 is taken off.
        device: where the product is computed.
    """

    def __init__(self, count: int, dimensions: int, width: Width, halved: bool, device: torch.device) -> None:
        self._width, self._halved, self._device = width, halved, device
        # The sum of n products is off by less than n·2⁻²⁴ of the sum of their sizes (Higham 2002, section 3.1); twice
        # that, for units that cut off instead of rounding.
        self._adding = (dimensions + 32) * 2.0**-23
        self._table = torch.empty((count, dimensions + _ADDED), dtype=torch.float32, device=device)
        self._lengths, self._errors, self._halves = (np.empty(count) for _ in range(3))

    def hold(self, start: int, vectors: NDArray[np.float64]) -> None:
        """Put vectors of the gallery, float64 [n, d], to the positions from ``start``."""
        places = slice(start, start + len(vectors))
        rounded = _rounded(vectors, self._width)
        lengths = np.linalg.norm(vectors, axis=1)
        self._halves[places] = lengths**2 / 2 if self._halved else 0.0
        self._lengths[places] = _raised(lengths)
        self._errors[places] = _raised(np.linalg.norm(vectors - rounded, axis=1))
        offset = self._halves[places] * (1 - self._adding)
        columns = [rounded, *_parts(-offset), self._lengths[places], self._errors[places]]
        self._table[places] = torch.from_numpy(np.column_stack(columns).astype(np.float32)).to(self._device)

    def propose(self, queries: NDArray[np.float64], k: int, count: int, own: NDArray[np.int64]) -> Proposals:
        """Return ``count`` candidates of each query, float64 [q, d].

        Args:
            queries: the vectors.
            k: how many of the nearest must be among the candidates, up to ``count``.
            count: m, at most g.
            own: int64 [q], the position that a query must not find, or -1.
        """
        rounded = _rounded(queries, self._width)
        lengths = np.linalg.norm(rounded, axis=1)
        errors = _raised(np.linalg.norm(queries - rounded, axis=1) + self._adding * lengths)
        lengths = _raised(lengths)
        ones = np.ones((len(queries), _PARTS))
        block = torch.from_numpy(np.column_stack([rounded, ones, errors, lengths]).astype(np.float32)).to(self._device)
        with _multiplying(self._width):
            highest: Tensor = block @ self._table.T  # [q, g]
        best, found = highest.topk(count, dim=1, sorted=False)
        upper, positions = best.double().cpu().numpy(), found.cpu().numpy()
        bound = errors[:, None] * self._lengths[positions] + lengths[:, None] * self._errors[positions]
        bound += self._adding * self._halves[positions]
        lower = np.where(positions == own[:, None], -np.inf, upper - 2.1 * bound)
        reached = np.partition(lower, count - k, axis=1)[:, count - k]  # k candidates are at least as near as this
        proven = upper.min(axis=1) < reached if count < len(self._table) else np.ones(len(queries), np.bool_)
        return Proposals(positions, (upper >= reached[:, None]) & (positions != own[:, None]), proven)


def multiplies_narrow_faster(device: torch.device) -> bool:
    """Tell whether the device multiplies numbers of bf16 precision faster than float32."""
    if device.type == "cuda":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def _multiplying(width: Width) -> Iterator[None]:
    """Let products take float32 factors as bf16 or TF32, which loses nothing where they are already rounded."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if width == "narrow" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rounded(vectors: NDArray[np.float64], width: Width) -> NDArray[np.float64]:
    single = torch.from_numpy(vectors).float()
    return np.asarray((single.bfloat16() if width == "narrow" else single).double().numpy())


def _raised(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers of bf16 precision that are not below ``sizes``, each at least 0."""
    return _rounded(sizes * _UP + _LEAST, "narrow")


def _parts(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return numbers of bf16 precision whose sum is ``values``, to 24 bits."""
    parts: list[NDArray[np.float64]] = []
    for _ in range(_PARTS):
        parts.append(_rounded(values - sum(parts, np.zeros_like(values)), "narrow"))
    return parts
