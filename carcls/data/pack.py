"""Decode once: every image of a manifest, cropped and squashed to one size, in one memory map that all share."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.decode import GRAY_SIDE
from carcls.data.filling import Progress, Target, fill
from carcls.data.fingerprints import fingerprint
from carcls.data.manifest import Manifest
from carcls.disk import reserve
from carcls.errors import OutputError
from carcls.stages import StageStore, note_made, write_json

PIXELS = "pixels.npy"
_VERSION = 1
"""Raise it when the same key would give other pixels or fingerprints."""


@dataclass(frozen=True, eq=False)
class Pack:
    """Decoded images.

    Attributes:
        folder: the stage that holds them.
        pixels: uint8 [n, size, size, 3] RGB in 0..255, a read-only memory map; row i is ``manifest.images[i]``,
            zeros where it cannot be read.
        size: side in pixels.
    """

    folder: Path
    pixels: NDArray[np.uint8]
    size: int


@dataclass(frozen=True, eq=False)
class Index:
    """What decoding tells besides pixels; the same for every size.

    Attributes:
        fingerprints: uint64 [n]; see carcls.data.fingerprints. Zero where the image cannot be read.
        broken: row and reason of every image that cannot be read, by row.
    """

    fingerprints: NDArray[np.uint64]
    broken: tuple[tuple[int, str], ...]


def get_pack(
    manifest: Manifest,
    margin: float,
    size: int,
    stages: StageStore,
    *,
    also: Sequence[int] = (),
    progress: Progress | None = None,
    workers: int | None = None,
) -> Pack:
    """Return the pack of a manifest, decoding it if no process has done so before.

    Args:
        manifest: what to decode; keyed by its digest.
        margin: around the boxes, as a fraction of their sides.
        size: side in pixels.
        stages: where the pack is kept.
        also: other sizes that will be wanted; packs of them are made in the same pass over the files.
        progress: called with images done and images in all while decoding.
        workers: decoding threads; None means one per usable core.

    Raises:
        OutputError: the disk has no room for the pack.
    """
    packing = _Packing(manifest, margin, stages, progress, workers)
    packing.make_free_ones([size, *also])
    folder = stages.get_or_make("pack", packing.key(size), lambda work: packing.fill({size: work}))
    return Pack(folder, np.load(folder / PIXELS, mmap_mode="r"), size)


def get_index(manifest: Manifest, margin: float, pack: Pack, stages: StageStore) -> Index:
    """Return fingerprints and unreadable images of a manifest, taken from whichever of its packs is made first.

    A stage of its own, so that splits do not change with the size of the pack nor go with it.
    """

    def copy(work: Path) -> None:
        shutil.copyfile(pack.folder / "fingerprints.npy", work / "fingerprints.npy")
        shutil.copyfile(pack.folder / "index.json", work / "index.json")

    return _load_index(stages.get_or_make("index", _index_key(manifest, margin), copy))


def find_index(manifest: Manifest, margin: float, stages: StageStore) -> Index | None:
    """Return what ``get_index`` would where it is there; None where the images were not decoded yet."""
    try:
        return _load_index(stages.folder("index", _index_key(manifest, margin)))
    except (OSError, ValueError, KeyError):
        return None


def _index_key(manifest: Manifest, margin: float) -> dict[str, Any]:
    return {"manifest": manifest.digest, "margin": margin, "version": _VERSION}


def _load_index(folder: Path) -> Index:
    broken = json.loads((folder / "index.json").read_text(encoding="utf-8"))["broken"]
    return Index(np.load(folder / "fingerprints.npy"), tuple((int(row), str(reason)) for row, reason in broken))


@dataclass(frozen=True)
class _Packing:
    """Makes packs of one manifest that differ in their size."""

    manifest: Manifest
    margin: float
    stages: StageStore
    progress: Progress | None
    workers: int | None

    def key(self, size: int) -> dict[str, Any]:
        return {"manifest": self.manifest.digest, "margin": self.margin, "size": size, "version": _VERSION}

    def make_free_ones(self, sizes: Sequence[int]) -> None:
        """Make the packs that are not there and that no other process is making, all in one pass over the files."""
        missing = [size for size in dict.fromkeys(sizes) if not self.stages.has("pack", self.key(size))]
        if len(missing) > 1:
            self._claim({}, missing)

    def _claim(self, works: Mapping[int, Path], sizes: Sequence[int]) -> None:
        """Become the maker of one size after the other, each within the making of the one before, then fill them."""
        if not sizes:
            if works:
                self.fill(works)
            return
        size, *others = sizes
        claimed = False

        def make(work: Path) -> None:
            nonlocal claimed
            claimed = True
            self._claim({**works, size: work}, others)

        self.stages.make_if_free("pack", self.key(size), make)
        if not claimed:
            self._claim(works, others)

    def fill(self, works: Mapping[int, Path]) -> None:
        """Decode every image once into the folders of all sizes."""
        start, count = time.perf_counter(), len(self.manifest.images)
        _check_room(next(iter(works.values())), sum(count * size * size * 3 for size in works))
        squares = [_preallocate(work / PIXELS, count, size, 3) for size, work in works.items()]
        grays = _preallocate(next(iter(works.values())) / "grays.npy", count, GRAY_SIDE)
        broken = fill(self.manifest, self.margin, squares, grays, workers=self.workers, progress=self.progress)
        prints = _fingerprints(np.load(grays.path, mmap_mode="r"))
        prints[[row for row, _ in broken]] = 0
        grays.path.unlink()
        for work in works.values():
            np.save(work / "fingerprints.npy", prints)
            write_json(work / "index.json", {"broken": broken})
            _flush(work / PIXELS)
        for work in works.values():
            note_made(work, (time.perf_counter() - start) / len(works))


def _fingerprints(grays: NDArray[np.uint8], block: int = 1024) -> NDArray[np.uint64]:
    parts = [fingerprint(grays[start : start + block]) for start in range(0, len(grays), block)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _preallocate(path: Path, count: int, side: int, *channels: int) -> Target:
    """Write an .npy file of ``count`` squares of zeros."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, side, side, *channels))
    reserve(path)
    return Target(side, path, int(array.offset))


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"disk of {str(folder.parent.parent)!r} must have {needed / 2**30:.1f} GiB free for decoded images, "
            f"got {free / 2**30:.1f} GiB. Make room, or give another --out."
        )


def _flush(path: Path) -> None:
    """Make sure that the pixels are on disk before the stage appears."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
