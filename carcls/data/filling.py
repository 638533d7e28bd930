"""Decoding all images of a manifest into preallocated files, on threads: Pillow lets others work while it decodes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.data.decode import UnreadableImage, read_squares_and_gray
from carcls.data.manifest import Manifest
from carcls.machine import usable_cores

Broken = tuple[int, str]
Progress = Callable[[int, int], None]
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Target:
    """A preallocated .npy file of squares: their side in pixels, its path, and the bytes before the first square."""

    side: int
    path: Path
    offset: int


def fill(
    manifest: Manifest,
    margin: float,
    squares: Sequence[Target],
    grays: Target,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Broken]:
    """Decode each image once into the files; return rows that cannot be read, with reasons. Their bytes stay zero.

    Args:
        manifest: what to decode; row i of a file is ``manifest.images[i]``.
        margin: around the boxes, as in ``read_square``.
        squares: a file for each size.
        grays: the file of the thumbnails, whose side is given.
        workers: threads; None means one per usable core.
        progress: called with images done and images in all.
    """
    total, broken, done = len(manifest.images), list[Broken](), 0
    tell = progress or (lambda _done, _total: None)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # Pillow's, about metadata
        files = [_open(target, stack) for target in (*squares, grays)]
        sizes = [target.side for target in squares]
        pool = stack.enter_context(ThreadPoolExecutor(workers or usable_cores()))
        # Only what has begun is waited for when this is interrupted.
        stack.callback(pool.shutdown, cancel_futures=True)
        chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
        tell(0, total)
        found = pool.map(lambda rows: _fill(manifest, margin, sizes, files, rows), chunks)
        for chunk, lost in zip(chunks, found, strict=True):
            broken += lost
            done += len(chunk)
            tell(done, total)
    return broken


def _fill(
    manifest: Manifest, margin: float, sizes: Sequence[int], files: Sequence[tuple[int, int]], rows: range
) -> list[Broken]:
    broken: list[Broken] = []
    for row in rows:
        image = manifest.images[row]
        try:
            squares, gray = read_squares_and_gray(manifest.root / image.path, sizes, image.box, margin)
        except UnreadableImage as error:
            broken.append((row, str(error)))
            continue
        for (file, offset), pixels in zip(files, (*squares, gray), strict=True):
            _write(file, pixels, offset + row * pixels.nbytes)
    return broken


def _open(target: Target, stack: ExitStack) -> tuple[int, int]:
    file = os.open(target.path, os.O_WRONLY)
    stack.callback(os.close, file)
    return file, target.offset


def _write(file: int, pixels: NDArray[np.uint8], position: int) -> None:
    """Write with pwrite: pages dirtied through a memory map would count as resident memory."""
    left = memoryview(pixels.tobytes())
    while left:
        written = os.pwrite(file, left, position)
        position, left = position + written, left[written:]
