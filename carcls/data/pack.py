"""Decode once: every image of a manifest, cropped and squashed to one size, in one memory map that all share.

Threads decode: Pillow lets others work meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.alignment import SIDE
from carcls.data.copies import find_copies
from carcls.data.decode import read_squares
from carcls.data.index import Broken, Copies, Index
from carcls.data.manifest import ImagesNotRead, Manifest
from carcls.disk import reserve
from carcls.errors import DataError, OutputError, UnreadableImage
from carcls.machine import usable_cores
from carcls.stages import StageStore, note_made, write_json

PIXELS = "pixels.npy"
_INDEX_FILES = _COPIES, _BROKEN = "copies.npy", "index.json"
_VERSION = 3
"""Raise it when the same key would give other pixels or copies."""
_THUMBNAILS = "thumbnails.npy"
_CHUNK = 32
Progress = Callable[[int, int], None]
Write = Callable[[int, NDArray[np.uint8]], None]


def get_pack(
    manifest: Manifest,
    margin: float,
    size: int,
    stages: StageStore,
    *,
    also: Sequence[int] = (),
    contents: Path | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Path:
    """Return the stage that holds the pixels of a manifest, decoding them if no process has done so before.

    Its file PIXELS is uint8 [n, size, size, 3] RGB in 0..255; row i is ``manifest.images[i]``, zeros where that cannot
    be read.

    Args:
        manifest: what to decode; keyed by its digest.
        margin: around the boxes, as a fraction of their sides.
        size: side in pixels.
        stages: where the pack is kept.
        also: other sizes that will be wanted. Those that are not there, and that no other process is making, are made
            in the same pass over the files.
        contents: the file where the digests of the images are kept, which saves to read the images again at the end.
        progress: called with images done and images in all while decoding.
        workers: decoding threads; None means one per usable core.

    Raises:
        DataError: an image changed since its digest was taken.
        OutputError: the disk has no room for the pack.
    """
    keys = {each: {**_index_key(manifest, margin), "size": each} for each in (size, *also)}
    wanted = [each for each, key in keys.items() if each == size or not stages.has("pack", key)]
    with ExitStack() as stack:
        # Nobody waits for one of several sizes while others wait for what they hold.
        made = {each: stack.enter_context(stages.making("pack", keys[each], wait=each == size)) for each in wanted}
        if works := {each: work for each, work in made.items() if work is not None}:
            known = _known_copies(manifest, margin, stages)
            _fill(works, manifest, margin, known, progress, workers or usable_cores())
            _require_unchanged(manifest, contents)
    return stages.folder("pack", keys[size])


def find_pack(manifest: Manifest, margin: float, size: int, stages: StageStore) -> Path | None:
    """Return the stage that ``get_pack`` would where it is there; None where it is not, and nothing is decoded."""
    key = {**_index_key(manifest, margin), "size": size}
    return stages.folder("pack", key) if stages.has("pack", key) else None


def get_index(manifest: Manifest, margin: float, pack: Path, stages: StageStore) -> Index:
    """Return copies and unreadable images of a manifest, taken from whichever of its packs is made first.

    A stage of its own, so that splits do not change with the size of the pack nor go with it.
    """

    def copy(work: Path) -> None:
        for name in _INDEX_FILES:
            shutil.copyfile(pack / name, work / name)

    return _load_index(stages.get_or_make("index", _index_key(manifest, margin), copy))


def find_index(manifest: Manifest, margin: float, stages: StageStore) -> Index:
    """Return what ``get_index`` would where it is there.

    Raises:
        ImagesNotRead: the images were not decoded yet.
    """
    try:
        return _load_index(stages.folder("index", _index_key(manifest, margin)))
    except (OSError, ValueError, KeyError) as error:
        raise ImagesNotRead from error


def _known_copies(manifest: Manifest, margin: float, stages: StageStore) -> Copies | None:
    try:
        return find_index(manifest, margin, stages).copies
    except ImagesNotRead:
        return None


def _index_key(manifest: Manifest, margin: float) -> dict[str, Any]:
    return {"manifest": manifest.digest, "margin": margin, "version": _VERSION}


def _load_index(folder: Path) -> Index:
    broken = json.loads((folder / _BROKEN).read_text(encoding="utf-8"))["broken"]
    return Index(Copies.load(folder / _COPIES), tuple((int(row), str(reason)) for row, reason in broken))


def _fill(
    works: Mapping[int, Path],
    manifest: Manifest,
    margin: float,
    copies: Copies | None,
    progress: Progress | None,
    workers: int,
) -> None:
    """Decode every image once into the folders of all sizes; bytes of those that cannot be read stay zero.

    Copies that are not known are looked for on thumbnails, which are gone at the end.
    """
    start, total, done = time.perf_counter(), len(manifest.images), 0
    report = progress or (lambda _done, _total: None)
    folder, broken = next(iter(works.values())), list[Broken]()
    _check_room(folder, sum(total * size * size * 3 for size in (*works, SIDE)))
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # Pillow's, about metadata
        files = [(size, stack.enter_context(_squares_file(work / PIXELS, total, size))) for size, work in works.items()]
        if copies is None:
            files.append((SIDE, stack.enter_context(_squares_file(folder / _THUMBNAILS, total, SIDE))))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        # Only what has begun is waited for when this is interrupted.
        stack.callback(pool.shutdown, cancel_futures=True)
        chunks = [range(begin, min(begin + _CHUNK, total)) for begin in range(0, total, _CHUNK)]
        report(0, total)
        for rows, lost in zip(
            chunks, pool.map(lambda rows: _decode(rows, manifest, margin, files), chunks), strict=True
        ):
            broken += lost
            done += len(rows)
            report(done, total)
    if copies is None:
        readable = np.setdiff1d(np.arange(total), [row for row, _ in broken])
        copies = find_copies(np.load(folder / _THUMBNAILS, mmap_mode="r"), readable, workers)
        (folder / _THUMBNAILS).unlink()
    for work in works.values():
        copies.save(work / _COPIES)
        write_json(work / _BROKEN, {"broken": broken})
        note_made(work, (time.perf_counter() - start) / len(works))


def _require_unchanged(manifest: Manifest, contents: Path | None) -> None:
    """Check that what was decoded is what the digest is of: somebody may still copy into the folder."""
    now = manifest.with_contents(contents).contents
    changed = [
        image.path
        for image, before, after in zip(manifest.images, manifest.contents, now, strict=True)
        if before != after
    ]
    if changed:
        more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        raise DataError(
            f"images must stay as they are while they are read, got changes in {changed[0]!r}{more} in "
            f"{str(manifest.root)!r}. Begin again when nothing writes there."
        )


def _decode(rows: range, manifest: Manifest, margin: float, files: Sequence[tuple[int, Write]]) -> list[Broken]:
    """Write the squares of some rows, by size; return those that cannot be read, with reasons."""
    broken = list[Broken]()
    for row in rows:
        image = manifest.images[row]
        try:
            squares = read_squares(manifest.root / image.path, [size for size, _ in files], image.box, margin)
        except UnreadableImage as error:
            broken.append((row, str(error)))
            continue
        for (_, write), pixels in zip(files, squares, strict=True):
            write(row, pixels)
    return broken


@contextmanager
def _squares_file(path: Path, count: int, side: int) -> Iterator[Write]:
    """Make an .npy file of zeros, uint8 [n, side, side, 3]; yield what writes a square at its row.

    Its room on the disk is taken, and it is on disk at the end. It is written with pwrite: pages dirtied through a
    memory map would count as resident memory.
    """
    offset = int(np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, side, side, 3)).offset)
    reserve(path)
    with path.open("r+b", buffering=0) as file:

        def write(row: int, pixels: NDArray[np.uint8]) -> None:
            left, position = memoryview(pixels.tobytes()), offset + row * pixels.nbytes
            while left:
                written = os.pwrite(file.fileno(), left, position)
                position, left = position + written, left[written:]

        yield write
        os.fsync(file)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"disk of {str(folder.parent.parent)!r} must have {needed / 2**30:.1f} GiB free for decoded images, "
            f"got {free / 2**30:.1f} GiB. Make room, or give another --out."
        )
