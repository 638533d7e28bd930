"""What a data set looks like, in numbers: images of each class and split, sides, and pictures that are there twice.

Letters: n images, c classes.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carcls.data.decode import open_image
from carcls.data.index import KINDS, group_copies
from carcls.data.manifest import in_pixels
from carcls.data.pack import find_index
from carcls.machine import usable_cores
from carcls.stages import StageStore

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset

SPLITS = ("train", "validation", "test")
_ORIENTATION, _SIDEWAYS = 0x0112, range(5, 9)
_SIDES, _VERSION = "sides", 1


@dataclass(frozen=True, slots=True)
class SamePicture:
    """Two images that are one photograph.

    Attributes:
        first, second: rows of the data set, of the earlier split first.
        splits: theirs.
        kind: how they differ, of ``KINDS``.
        across_classes: whether their labels differ, so that one of them is wrong.
    """

    first: int
    second: int
    splits: tuple[str, str]
    kind: str
    across_classes: bool

    @property
    def leaks(self) -> bool:
        """Whether a model is asked about a picture that it was trained or chosen on."""
        return self.splits[0] != self.splits[1]


def split_names(data: Dataset) -> NDArray[np.str_]:
    """Return the split [n] of each image, empty where it cannot be read."""
    names = np.full(len(data.manifest.images), "", "<U10")
    for name in SPLITS:
        names[getattr(data.splits, name)] = name
    return names


def class_counts(data: Dataset) -> NDArray[np.int64]:
    """Return how many images each class has, int64 [c, 3]: to train, validate and test on."""
    splits = (np.bincount(data.labels[getattr(data.splits, name)], minlength=len(data.classes)) for name in SPLITS)
    return np.stack(list(splits), axis=1)


def rows_by_class(data: Dataset) -> dict[int, list[int]]:
    """Return the readable images of every class, those that train first."""
    found: dict[int, list[int]] = {label: [] for label in range(len(data.classes))}
    for name in SPLITS:
        for row in getattr(data.splits, name).tolist():
            found[int(data.labels[row])].append(row)
    return found


def same_pictures(data: Dataset, stages: StageStore) -> list[SamePicture]:
    """Return pairs of images that are one photograph: first those in two splits, then those in two classes.

    Two boxes of one file show two things, and are no pair.

    Args:
        data: as ``prepare_dataset`` returned it.
        stages: that it was read into.
    """
    splits, images, contents = split_names(data), data.manifest.images, data.manifest.contents
    copies, found = find_index(data.manifest, data.margin, stages).copies, []
    for pair, kind in zip(copies.pairs.tolist(), copies.kinds.tolist(), strict=True):
        first, second = sorted(pair, key=lambda row: SPLITS.index(splits[row]) if splits[row] else -1)
        two_boxes = contents[first] == contents[second] and images[first].box != images[second].box
        if splits[first] and splits[second] and not two_boxes:
            own = (str(splits[first]), str(splits[second]))
            across = images[first].label != images[second].label
            found.append(SamePicture(first, second, own, KINDS[kind], across))
    return sorted(found, key=lambda one: (not one.leaks, not one.across_classes, one.first, one.second))


def groups_of(data: Dataset, stages: StageStore) -> NDArray[np.int64]:
    """Return a group number int64 [n] of each image: copies share one, and images of one group."""
    manifest = data.manifest
    copies, rows = find_index(manifest, data.margin, stages).copies, np.flatnonzero(split_names(data) != "")
    return group_copies(copies, rows, manifest.contents, [image.group for image in manifest.images])


def read_sides(data: Dataset, stages: StageStore) -> NDArray[np.int32]:
    """Return width and height in pixels of what is cut from each image, int32 [n, 2]; zeros where it cannot be read.

    Heads of files are read once, and kept in the store.
    """

    def read(folder: Path) -> None:
        sides, rows = np.zeros((len(data.manifest.images), 2), np.int32), np.flatnonzero(split_names(data) != "")
        with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(usable_cores()) as threads:
            for row, found in zip(rows, threads.map(lambda row: sides_of(data, row), rows.tolist()), strict=True):
                sides[row] = found or (0, 0)
        np.save(folder / f"{_SIDES}.npy", sides)

    key = {"manifest": data.manifest.digest, "version": _VERSION}
    sides: NDArray[np.int32] = np.load(stages.get_or_make(_SIDES, key, read) / f"{_SIDES}.npy")
    return sides


def sides_of(data: Dataset, row: int) -> tuple[int, int] | None:
    """Return width and height in pixels of an image upright, of its box where it has one; None if it cannot be read."""
    image = data.manifest.images[row]
    try:
        with open_image(data.manifest.root / image.path) as file:
            (width, height), turned = file.size, file.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # Pillow's plug-ins raise whatever a broken file makes them trip over
        return None
    if image.box is not None:
        x1, y1, x2, y2 = in_pixels(image.box, width, height)
        width, height = max(1, round(x2 - x1)), max(1, round(y2 - y1))
    return (height, width) if turned else (width, height)
