"""What carsweep adds to trials: against raw Ray Tune, in memory, and as trials and images grow.

    python benchmarks/orchestration.py [--short] [--only tune memory trials images] [--json FILE]

tune     no-op trials through the engine, study, journal and MLflow, against Tune with reuse_actors and no logging;
         both in turn, in one Ray session that is started before
memory   the driver's resident memory over trials of 40 reports each
trials   10, 100 and 1,000 no-op trials: the seconds must grow no faster than they do
images   1,000, 5,000 and 50,000 synthetic photos: packing them, and reading them through the input of a trial

``--short`` takes a tenth of the trials and of the images. The file has ``rows`` (what, target, value, met, runs,
command, reason) and ``growth`` (what, x, y), with y in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from noop_trials import resident_bytes, time_carsweep, time_tune
from PIL import Image

REPORTS = 40
# The part of a sweep that is over before its growth is judged: libraries load and the sampler begins to learn.
WARM = 0.2
Row = dict[str, Any]
Point = dict[str, Any]


def main() -> None:
    """Read the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    command = " ".join(["python", "benchmarks/orchestration.py", *sys.argv[1:]])
    rows: list[Row] = []
    growth: list[Point] = []
    for part in arguments.only:
        found_rows, found_growth = PARTS[part](0.1 if arguments.short else 1.0)
        rows += [{**row, "command": command} for row in found_rows]
        growth += found_growth
        for shown in (*found_rows, *found_growth):
            print(json.dumps(shown), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows, "growth": growth}, indent=1) + "\n")


def against_tune(scale: float) -> tuple[list[Row], list[Point]]:
    """Run both in turn; the ratio is of the medians."""
    trials, ours, tunes = round(1000 * scale), [], []
    with _ray() as place:
        time_carsweep(10, 1, _fresh(place))  # processes start, libraries load
        time_tune(10, 1, _fresh(place), concurrency=2)
        for _ in range(3 if scale < 1 else 2):
            tunes.append(time_tune(trials, 1, _fresh(place), concurrency=2))
            ours.append(time_carsweep(trials, 1, _fresh(place))[0])
    ratio = statistics.median(ours) / statistics.median(tunes)
    what = f"{trials} no-op trials against raw Ray Tune with reuse_actors and no logging, MLflow included"
    reason = (
        f"{1e3 * statistics.median(ours) / trials:.0f} against {1e3 * statistics.median(tunes) / trials:.0f} ms a trial"
    )
    return [_row(what, "<= 1.2x the time", round(ratio, 2), ratio <= 1.2, len(ours), reason)], []


def memory(scale: float) -> tuple[list[Row], list[Point]]:
    """Watch the driver over trials that report often; its growth is judged after the warm part."""
    trials = round(1000 * scale)
    with _ray() as place:
        before = resident_bytes()
        _, seen = time_carsweep(trials, REPORTS, _fresh(place))
    peak, warm = max(seen.resident), round(WARM * trials)
    each = (seen.resident[-1] - seen.resident[warm]) / (trials - warm) / 2**10
    what = f"driver memory at {trials} trials x {REPORTS} reports"
    print(f"{before / 2**20:.0f} MiB before the first trial", flush=True)
    return [
        _row(what, "< 1.5 GiB", f"{peak / 2**30:.2f} GiB", peak < 1.5 * 2**30, 1),
        _row(f"{what}, growth", "< 64 KiB a trial", f"{each:.0f} KiB a trial", each < 64, 1),
    ], []


def trials_growth(scale: float) -> tuple[list[Row], list[Point]]:
    """Time sweeps of three sizes."""
    points = []
    with _ray() as place:
        time_carsweep(10, 1, _fresh(place))
        for trials in (10, 100, round(1000 * scale)) if scale == 1 else (10, 30, 100):
            seconds, _ = time_carsweep(trials, 1, _fresh(place))
            points.append({"what": "no-op trials", "x": trials, "y": round(seconds, 2)})
    return [_linear(points)], points


def images_growth(scale: float) -> tuple[list[Row], list[Point]]:
    """Pack synthetic photos, then read each once as a trial does, cropped and augmented."""
    packed, read = [], []
    for images in (round(count * scale) for count in (1_000, 5_000, 50_000)):
        with tempfile.TemporaryDirectory(prefix="carsweep-") as place:
            _write_photos(Path(place) / "photos", images)
            seconds, epoch = _time_images(Path(place))
        packed.append({"what": "packing images", "x": images, "y": round(seconds, 2)})
        read.append({"what": "an augmented epoch of images", "x": images, "y": round(epoch, 2)})
    return [_linear(packed), _linear(read)], [*packed, *read]


def _time_images(place: Path, size: int = 64) -> tuple[float, float]:
    import torch

    from carcls.config import DataConfig, TrialConfig
    from carcls.data.augment import augmentation_of
    from carcls.data.dataset import prepare_dataset
    from carcls.stages import StageStore
    from carcls.training.images import ImageSource, View, batches

    stages, start = StageStore(place / "stages"), time.perf_counter()
    data = prepare_dataset(DataConfig(path=str(place / "photos")), stages, size)
    packed = time.perf_counter() - start
    augmentation = augmentation_of(TrialConfig(image_size=size, crop="random", flip=True, rotation=15, jitter=0.2))
    assert augmentation is not None
    pixels, channel = data.pack(stages, size).pixels, (0.5, 0.5, 0.5)
    images, view = ImageSource(pixels, channel, channel, torch.device("cpu")), View(augmentation, seed=0, epoch=1)
    start = time.perf_counter()
    for rows in batches(len(pixels), 64):
        images.batch(rows, view)
    return packed, time.perf_counter() - start


def _write_photos(folder: Path, images: int, classes: int = 10) -> None:
    """Write JPEGs of 96 x 72 pixels, no two alike, in class folders of equal size; a tenth are for testing."""
    random = np.random.default_rng(0)
    for number in range(images):
        split = "test" if number % 10 == 9 else "train"
        place = folder / split / f"class {number // 10 % classes}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((96, 72), Image.Resampling.BICUBIC).save(place / f"{number}.jpg")


def _linear(points: list[Point]) -> Row:
    """Judge the growth between the two largest: twice as many must take at most twice as long, within 10%."""
    (small, large) = list(pairwise(points))[-1]
    ratio = (large["y"] / small["y"]) / (large["x"] / small["x"])
    what = f"growth of {large['what']}, {small['x']} to {large['x']}: time over size"
    return _row(what, "<= 1.1 (linear)", round(ratio, 2), ratio <= 1.1, 1)


def _row(what: str, target: str, value: str | float, met: bool, runs: int, reason: str = "") -> Row:
    said = {"what": what, "target": target, "value": value, "met": met, "runs": runs}
    return {**said, "reason": "" if met else reason}


@contextmanager
def _ray() -> Iterator[Path]:
    """Start Ray with room for two trials, and yield a folder."""
    from sweeps.session import one_session, ray_session

    here = Path(__file__).resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), str(here.parents[1])])
    with (
        tempfile.TemporaryDirectory(prefix="carsweep-") as name,
        one_session(),
        ray_session(Path(name) / "ray.log", cpus=2, gpus=0),
    ):
        yield Path(name)


def _fresh(place: Path) -> Path:
    folder = place / f"{time.monotonic_ns()}"
    folder.mkdir()
    return folder


PARTS: dict[str, Callable[[float], tuple[list[Row], list[Point]]]] = {
    "tune": against_tune,
    "memory": memory,
    "trials": trials_growth,
    "images": images_growth,
}


if __name__ == "__main__":
    main()
