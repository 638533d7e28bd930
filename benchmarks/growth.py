"""How waiting grows with the images: 1,000, 5,000 and 50,000 synthetic ones.

    python benchmarks/growth.py [--short] [--images N …] [--json FILE]

Times what a sweep does before its first batch (listing, decoding once, copies, splits) in an empty store, the
same when it is all there, the plan of ``--dry-run``, and the neighbours of 500 queries in galleries of so many
embeddings. The images are smooth coloured noise, 96 × 72 pixels, 100 classes, no two alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from commands import carsweep
from PIL import Image
from rows import Row, write_rows

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.machine import usable_cores
from carcls.neighbours.search import find_neighbours
from carcls.stages import StageStore

FULL, SHORT = (1000, 5000, 50000), (500, 1000, 2000)
CLASSES, SIZE, QUERIES, WIDTH = 100, 64, 500, 1280
NOISE = 1.15
Points = list[tuple[int, float]]


def main() -> None:
    """Time every size and write one row a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"{SHORT} instead of {FULL}; judges no target")
    parser.add_argument("--images", type=int, nargs="+", help="other numbers of images, ascending")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    sizes = tuple(asked.images or (SHORT if asked.short else FULL))
    measured: dict[str, Points] = {}
    for images in sizes:
        with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as place:
            for name, seconds in measure(images, Path(place)).items():
                measured.setdefault(name, []).append((images, seconds))
                print(f"{images} images, {name}: {seconds:.2f} s", flush=True)
    command = "python benchmarks/growth.py" + (" --short" if asked.short else "")
    command += f" --images {' '.join(map(str, asked.images))}" if asked.images else ""
    rows = [row_of(name, points, command, judged=sizes == FULL) for name, points in measured.items()]
    rows[0] = replace(rows[0], lines={"x": "images", "y": "seconds", "points": measured})
    if asked.json:
        write_rows(asked.json, rows)


def measure(images: int, place: Path) -> dict[str, float]:
    """Return the seconds of each step with so many images."""
    write_images(place / "images", images)
    config, stages = DataConfig(path=str(place / "images")), StageStore(place / "stages")
    prepare = partial(prepare_dataset, config, stages, SIZE)
    first, again = _seconds(prepare), _seconds(prepare)
    words = ("run", "transfer", "--data", place / "images", "--out", place / "runs", "--dry-run")
    plan = carsweep(*words, "--set", "backbone=efficientnet_lite0").seconds
    random = np.random.default_rng(0)
    gallery = random.random((images, WIDTH), np.float32)
    queries = random.random((QUERIES, WIDTH), np.float32)
    search = partial(find_neighbours, queries, gallery, 10, "euclidean")
    search()
    return {"prepared": first, "prepared again": again, "--dry-run": plan, "neighbours": _seconds(search)}


def row_of(name: str, points: Points, command: str, *, judged: bool) -> Row:
    """Judge one line: between neighbouring sizes its time may grow as the images do, and a little for noise."""
    worst = max((later / sooner) / (more / fewer) for (fewer, sooner), (more, later) in pairwise(points))
    seconds = ", ".join(f"{second:.2f} s of {images:,}" for images, second in points)
    met = worst <= NOISE if judged else None
    reason = "" if met else "not judged: fewer images than the target asks for" if met is None else "it grows faster"
    return Row(
        what=f"growth with the images: {name}",
        target=f"linear at most (≤ {NOISE:g}× the growth of the images)",
        value=f"{worst:.2f}× ({seconds})",
        met=met,
        runs=1,
        command=command,
        reason=reason,
    )


def write_images(folder: Path, count: int) -> None:
    """Write class folders of smooth noise, a process for each core."""
    parts = np.array_split(np.arange(count), usable_cores())
    with ProcessPoolExecutor(len(parts)) as pool:
        list(pool.map(partial(_write_part, folder), parts))


def _write_part(folder: Path, numbers: np.ndarray) -> None:
    for number in numbers.tolist():
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
        target = folder / f"make {number % CLASSES:02d}" / f"{number:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((96, 72), Image.Resampling.BICUBIC).save(target, quality=85)


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
