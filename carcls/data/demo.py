"""The embedded demo data set: drawn fictional cars in Stanford Cars' devkit layout, the same for the same seed."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from carcls.data.demo_catalogue import CLASSES
from carcls.data.demo_drawing import draw_image
from carcls.data.devkit import TEST_ANNOTATIONS, write_devkit
from carcls.data.manifest import ImageRecord
from carcls.errors import DataError, OutputError
from carcls.machine import usable_cores

DEMO_VERSION = 3  # goes up whenever the same seed draws other pictures
_PER_CLASS: dict[Literal["train", "test"], int] = {"train": 27, "test": 9}
_LAST_WRITTEN = Path("devkit") / TEST_ANNOTATIONS


def demo_counts() -> tuple[int, int, int]:
    """Number of classes, training images and test images of a demo data set."""
    return len(CLASSES), len(CLASSES) * _PER_CLASS["train"], len(CLASSES) * _PER_CLASS["test"]


def demo_folder_name(seed: int = 0) -> str:
    """A folder name that says exactly which pictures are inside."""
    return f"demo-v{DEMO_VERSION}-seed{seed}"


def write_demo(folder: Path, *, seed: int = 0) -> Path:
    """Draw the demo data set into ``folder``; returns at once when it is already there.

    The folder appears complete or not at all: it is written under another name beside its place and then renamed.

    Args:
        folder: where to; its parents are made.
        seed: the same seed gives the same bytes (with the same Pillow version), on however many processes.

    Raises:
        DataError: ``folder`` holds something else.
        OutputError: ``folder`` cannot be written.
    """
    if (folder / _LAST_WRITTEN).is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"demo folder must be absent, empty or a complete demo data set, got {str(folder)!r}. Remove it."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"demo folder must be writable, got {str(folder)!r} ({error}). Choose another --out."
        ) from error
    with draft as name:
        _fill(Path(name), seed)
        Path(name).chmod(0o755)
        try:
            Path(name).replace(folder)
        except OSError:
            if not (folder / _LAST_WRITTEN).is_file():  # otherwise another process has just written the same
                raise
    return folder


def _fill(folder: Path, seed: int) -> None:
    labels, indices = np.divmod(np.arange(sum(demo_counts()[1:])), sum(_PER_CLASS.values()))
    tasks = [seed] * len(labels), labels.tolist(), indices.tolist()
    with ProcessPoolExecutor(usable_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        drawn = list(pool.map(draw_image, *tasks, chunksize=12))
    records: list[ImageRecord] = []
    for split in _PER_CLASS:
        (folder / f"cars_{split}").mkdir()
    for place in np.random.default_rng(seed).permutation(len(labels)).tolist():
        split = "train" if indices[place] < _PER_CLASS["train"] else "test"
        path, (box, jpeg) = f"cars_{split}/{len(records) + 1:05d}.jpg", drawn[place]
        (folder / path).write_bytes(jpeg)
        records.append(ImageRecord(path, int(labels[place]), split, box))
    write_devkit(folder, [entry.name for entry in CLASSES], records)
