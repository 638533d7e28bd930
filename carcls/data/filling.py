"""Decoding rows of a pack into preallocated files, here or as a process of its own.

``python -m carcls.data.filling`` reads a job and then lists of rows from standard input, one JSON value a line, and
answers each list with the rows it could not read. It is started this way, not by multiprocessing, so that it imports
numpy and Pillow only, never the program that packs; and it ends when that program dies, because its input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from carcls.data.decode import Box, UnreadableImage, read_squares_and_gray

Row = tuple[int, str, Box | None]
Broken = tuple[int, str]
Target = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all rows.

    Attributes:
        root: folder that the rows' paths are relative to.
        margin: around the boxes, as in ``read_square``.
        squares: for each size its side in pixels, a preallocated file and the bytes before row 0 in it.
        grays: the same for the thumbnails, whose side is given.
    """

    root: str
    margin: float
    squares: tuple[Target, ...]
    grays: Target


def fill(job: Job, rows: Sequence[Row]) -> list[Broken]:
    """Decode the rows into the job's files; return those that cannot be read, with reasons. Their bytes stay zero.

    Written with pwrite, because pages dirtied through a memory map would count as resident memory.
    """
    broken: list[Broken] = []
    sizes = [size for size, _, _ in job.squares]
    with ExitStack() as opened:
        targets = [(_open(file, opened), offset) for _, file, offset in (*job.squares, job.grays)]
        for row, path, box in rows:
            try:
                squares, gray = read_squares_and_gray(Path(job.root, path), sizes, box, job.margin)
            except UnreadableImage as error:
                broken.append((row, str(error)))
                continue
            for (file, offset), pixels in zip(targets, (*squares, gray), strict=True):
                _write(file, pixels.tobytes(), offset, row)
    return broken


def _open(path: str, opened: ExitStack) -> int:
    file = os.open(path, os.O_WRONLY)
    opened.callback(os.close, file)
    return file


def _write(file: int, data: bytes, offset: int, row: int) -> None:
    position, left = offset + row * len(data), memoryview(data)
    while left:
        written = os.pwrite(file, left, position)
        position, left = position + written, left[written:]


def encode(value: Job | Sequence[Row]) -> bytes:
    """Return one line of the input."""
    return json.dumps(asdict(value) if isinstance(value, Job) else value).encode() + b"\n"


def main() -> None:
    """Answer lists of rows until the input ends."""
    # Ctrl-C reaches the whole group of processes; the one that packs decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = Job(**json.loads(sys.stdin.buffer.readline()))
    for line in sys.stdin.buffer:
        answer = json.dumps(fill(job, json.loads(line))).encode() + b"\n"
        try:
            os.write(1, answer)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
