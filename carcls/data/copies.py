"""Pairs of images that are one photograph: mirrored, cropped, turned, with a border, compressed or lit otherwise.

Small descriptors propose pairs, and a comparison after alignment decides. Both look at thumbnails that are made while
images are decoded. Memory grows with the images, by 4 KiB each, and time with the pairs that are proposed,
eight for each image at most (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from carcls.data.alignment import LUMA, SIDE, SMALL, Floats, Rows, match, shrunk
from carcls.data.index import Copies
from carcls.data.proposals import FRAMES, propose

_BLOCK, _CHUNK = 1024, 128
_STILL = 0.04
"""Corners of a picture in the same frame move by less than this much of half a side."""


def find_copies(read: Callable[[Rows], NDArray[np.uint8]], rows: Rows, workers: int = 1) -> Copies:
    """Return which images are one photograph.

    Of images with equal thumbnails each is paired with the first, and only that one with others. Of a photograph that
    is there many times, each copy is paired with some others; chains of pairs link them all.

    Args:
        read: returns thumbnails of some rows, RGB, uint8 [k, 64, 64, 3].
        rows: the images to look at, int64, sorted.
        workers: threads.
    """
    small = np.empty((len(rows), SMALL, SMALL), np.uint8)
    first: dict[bytes, int] = {}
    firsts = np.empty(len(rows), np.int64)
    for begin in range(0, len(rows), _BLOCK):
        part = read(rows[begin : begin + _BLOCK])
        small[begin : begin + _BLOCK] = _gray(part)
        for place, thumbnail in enumerate(part, begin):
            firsts[place] = first.setdefault(hashlib.blake2b(thumbnail.tobytes(), digest_size=16).digest(), place)
    single = np.unique(firsts)
    for begin in range(0, len(single), _BLOCK):  # in place: a copy of all would be the largest thing in memory
        small[begin : begin + _BLOCK][: len(single) - begin] = small[single[begin : begin + _BLOCK]]
    seen = small[: len(single)]
    maps = np.array([np.pad(frame.matrix, ((0, 0), (0, 1))) for frame in FRAMES], np.float32)

    # Products of small matrices: more threads than one each would wait for each other.
    with threadpool_limits(1, user_api="blas"), ExitStack() as stack:
        threads = ThreadPoolExecutor(workers)
        stack.callback(threads.shutdown, cancel_futures=True)  # only what has begun is waited for
        proposed = propose(seen, threads)
        chunks = [proposed[begin : begin + _CHUNK] for begin in range(0, len(proposed), _CHUNK)]
        matches = threads.map(
            lambda chunk: match(chunk.pairs, maps[chunk.frame], seen, lambda places: read(rows[single[places]])), chunks
        )
        found = [(single[chunk.pairs[matched.kept]], matched) for chunk, matched in zip(chunks, matches, strict=True)]
    again = np.flatnonzero(firsts != np.arange(len(rows)))
    pairs = np.concatenate([np.stack([firsts[again], again], axis=1), *(pairs for pairs, _ in found)])
    kinds = np.concatenate([np.zeros(len(again), np.int8), *(_kinds(matched.maps) for _, matched in found)])
    scores = np.concatenate([np.ones(len(again), np.float32), *(matched.detail for _, matched in found)])
    pairs = np.sort(rows[pairs], axis=1)
    order = np.lexsort(pairs.T[::-1])
    return Copies(pairs[order], kinds[order], scores[order])


def _kinds(maps: Floats) -> NDArray[np.int8]:
    """Return a position in KINDS [p] for each map [p, 2, 3]."""
    moved = np.abs(maps - np.eye(2, 3, dtype=np.float32)).sum(axis=2).max(axis=1)
    return np.where(np.linalg.det(maps[:, :, :2]) < 0, 3, np.where(moved > _STILL, 2, 1)).astype(np.int8)


def _gray(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return gray images uint8 [b, 32, 32] of thumbnails [b, 64, 64, 3]."""
    return np.round(shrunk(thumbnails @ LUMA, SIDE // SMALL)).astype(np.uint8)
