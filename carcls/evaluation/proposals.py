"""Which images of a gallery can be among a query's k nearest: one quick product, and its error bound, tell.

The score q·g - offset(g) is the larger the nearer g is to q. The product takes rounded vectors q' and g': to bf16 where
the processor multiplies those faster. Their errors |q - q'| and |g - g'| are known, so by Cauchy and Schwarz the score
of rounded vectors is off by at most

    bound(q, g) = |q - q'||g| + |q'||g - g'| + a·(|q'||g'| + |offset(g)|)

where a stands for the adding up in float32. What the vectors themselves are off by counts with |q - q'|. Vectors are
lengthened by a few numbers such that the product itself gives score + bound, which no true score exceeds; score - bound
is what every true score reaches.

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
_TYPES = {"narrow": torch.bfloat16, "wide": torch.float32}
# What the product loses when it is written down, as a share of itself; with float32 that is part of the adding up.
_WRITING = {"narrow": 2.0**-8, "wide": 0.0}
# More than rounding to bf16 and adding up can take off a length, and more than what float32 cannot square.
_UP, _LEAST = 1 + 2.0**-7, 1e-16
# An offset is held in three parts of bf16, so to 24 bits.
_PARTS = 3
_ADDED = _PARTS + 2


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors in float32, and by how much they miss what is meant.

    Attributes:
        values: float32 [n, d].
        lengths: float64 [n], of the values.
        slips: float64 [n], at least the distance of each from the vector that is meant.
    """

    values: Tensor
    lengths: NDArray[np.float64]
    slips: NDArray[np.float64]

    def rounded(self, width: Width) -> tuple[Tensor, NDArray[np.float64]]:
        """Return the values in numbers of this width, and at least how far these are from what is meant, [n]."""
        if width == "wide":
            return self.values, self.slips
        narrow = self.values.bfloat16()
        return narrow, lengths_of(narrow.float().sub_(self.values)) + self.slips


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
        width: of numbers; ``narrow`` is bf16, ``wide`` float32.
        device: where the product is computed; narrow numbers are for CPUs, since GPUs may add up in them.
    """

    def __init__(self, count: int, dimensions: int, width: Width, device: torch.device) -> None:
        self._width, self._device = width, device
        # The sum of n products is off by less than n·2⁻²⁴ of the sum of their sizes (Higham 2002, section 3.1); twice
        # that, for units that cut off instead of rounding.
        self._adding = (dimensions + 32) * 2.0**-23
        self._table = torch.empty((count, dimensions + _ADDED), dtype=_TYPES[width], device=device)
        self._lengths, self._errors, self._slacks = (np.empty(count) for _ in range(3))

    def hold(self, start: int, vectors: Vectors, offsets: NDArray[np.float64], slips: float) -> None:
        """Put n vectors of the gallery to the positions from ``start``.

        Args:
            start: the first position.
            vectors: [n, d].
            offsets: float64 [n], of each vector.
            slips: at least what an offset is off by.
        """
        places = slice(start, start + len(offsets))
        rounded, errors = vectors.rounded(self._width)
        self._slacks[places] = self._adding * np.abs(offsets) + slips
        self._lengths[places] = _raised(vectors.lengths + vectors.slips)
        self._errors[places] = _raised(errors)
        added = [*_parts(self._slacks[places] - offsets), self._lengths[places], self._errors[places]]
        self._table[places] = self._lengthened(rounded, added)

    def propose(self, queries: Vectors, k: int, count: int, own: NDArray[np.int64]) -> Proposals:
        """Return ``count`` candidates of each query.

        Args:
            queries: [q, d].
            k: how many of the nearest must be among the candidates, up to ``count``.
            count: m, at most g.
            own: int64 [q], the position that a query must not find, or -1.
        """
        rounded, errors = queries.rounded(self._width)
        lengths = queries.lengths + errors
        errors, lengths = _raised(errors + self._adding * lengths), _raised(lengths)
        block = self._lengthened(rounded, [np.ones(len(lengths))] * _PARTS + [errors, lengths])
        with _in_full_precision():
            highest: Tensor = block @ self._table.T  # [q, g]
        best, found = highest.topk(count, dim=1, sorted=False)
        products, positions = best.double().cpu().numpy(), found.cpu().numpy()
        written = _WRITING[self._width] * np.abs(products)
        bound = errors[:, None] * self._lengths[positions] + lengths[:, None] * self._errors[positions]
        bound += self._slacks[positions]
        upper, lower = products + written, products - written - 2.1 * bound
        other = positions != own[:, None]
        # At least k candidates are as near as this.
        reached = np.partition(np.where(other, lower, -np.inf), count - k, axis=1)[:, count - k]
        whole = count == len(self._table)
        return Proposals(positions, (upper >= reached[:, None]) & other, whole | (upper.min(axis=1) < reached))

    def _lengthened(self, rounded: Tensor, added: list[NDArray[np.float64]]) -> Tensor:
        columns = torch.from_numpy(np.stack(added, axis=1)).to(rounded.dtype)
        return torch.cat([rounded, columns], dim=1).to(self._device)


def multiplies_narrow_faster(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 faster than float32, and adds up in float32."""
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def _in_full_precision() -> Iterator[None]:
    """Keep products of float32 in float32, whatever is allowed to training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def lengths_of(vectors: Tensor) -> NDArray[np.float64]:
    """Return the lengths of vectors [n, d], added up in their own numbers or at least in float32, as float64 [n]."""
    exact = torch.float64 if vectors.dtype == torch.float64 else torch.float32
    return np.asarray(torch.linalg.vector_norm(vectors, dim=1, dtype=exact).double().numpy())


def _as_narrow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(torch.from_numpy(values).bfloat16().double().numpy())


def _raised(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers of bf16 precision that are not below ``sizes``, each at least 0."""
    return _as_narrow(sizes * _UP + _LEAST)


def _parts(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return numbers of bf16 precision whose sum is ``values``, to 24 bits."""
    parts: list[NDArray[np.float64]] = []
    for _ in range(_PARTS):
        parts.append(_as_narrow(values - sum(parts, np.zeros_like(values))))
    return parts
