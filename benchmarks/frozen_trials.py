"""What a frozen trial costs beside its head: a sweep over cached features, against the bare training of the same heads.

    python benchmarks/frozen_trials.py [--short] [--trials N] [--json FILE]

A first sweep of one trial makes the pack and the views of made-up images (5,300 to train on, 1,280 features each). The
second, timed one runs its trials one after the other on one core. A trial's time is from the last epoch of the one
before to its own, so asking, starting, reporting, logging and telling are in it. The bare head is a loop over the same
cached features with the same optimizer, and nothing around it; the two are timed one after the other, in one run.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from commands import Told, sweep
from PIL import Image
from rows import Row, write_rows

TARGET = 0.3
EPOCHS, BATCH, WIDTH, CLASSES = 10, 32, 1280, 196
_LAST = re.compile(rf"trial (\d+) epoch {EPOCHS}/{EPOCHS}\b")


def main() -> None:
    """Run both ways, print, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quarter of the images; judges no target")
    parser.add_argument("--trials", type=int, default=16, help="of the timed sweep")
    parser.add_argument("--json", type=Path, help="where the row goes")
    parser.add_argument("--heads", nargs=3, metavar=("FOLDER", "TRAIN", "VALIDATION"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.heads:
        time_heads(Path(asked.heads[0]), int(asked.heads[1]), int(asked.heads[2]))
        return
    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as folder:
        row = measure(Path(folder), asked.trials, short=asked.short)
    print(f"{row.what}: {row.value} ({row.target}) {row.reason}")
    if asked.json:
        write_rows(asked.json, [row])


def measure(place: Path, trials: int, *, short: bool) -> Row:
    """Time bare heads, the sweep, and bare heads again."""
    write_pictures(place / "pictures", 8 if short else 32)
    sweep(spec_of(1), place / "pictures", place / "runs", "first")
    train, validation = count_rows(place / "runs" / "stages")
    heads = bare_heads(place, train, validation)
    seconds = trial_seconds(sweep(spec_of(trials), place / "pictures", place / "runs", "timed"))
    heads += bare_heads(place, train, validation)
    head, trial = statistics.median(heads), statistics.median(seconds)
    around = trial - head
    reason = "" if around <= TARGET else f"{around:.2f} s is more than {TARGET:g} s"
    return Row(
        f"a frozen trial's time around its head ({EPOCHS} epochs, {train:,} × {WIDTH:,} cached features, one core)",
        f"≤ {TARGET:g} s a trial",
        f"{around:.2f} s: a trial {trial:.2f} s (mean {statistics.mean(seconds):.2f} s), its head alone {head:.2f} s",
        None if short else around <= TARGET,
        len(seconds),
        f"python benchmarks/frozen_trials.py{' --short' if short else ''} --trials {trials}",
        "not the size that the target is for" if short else reason,
    )


def spec_of(trials: int) -> dict[str, Any]:
    """Return a sweep whose trials share all views; what is given in ``config`` is not searched."""
    config = {"backbone": "efficientnet_lite0", "image_size": 32, "epochs": EPOCHS, "batch_size": BATCH}
    config |= {"optimizer": "adam", "backbone_lr": 1e-3, "weight_decay": 0.0, "lr_schedule": "constant"}
    config |= {"label_smoothing": 0.0, "augmentation_strength": 1.0, "jitter": 0.0}
    return {
        "family": "transfer",
        "trials": trials,
        "experiments": [],
        "config": {**config, "unfreezing": "frozen", "crop": "random", "flip": True, "rotation": 15},
        "search": {"dropout": {"low": 0.0, "high": 0.7}, "head_lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        "early_stopping": {"enabled": False},
        "cpus_per_trial": 1,
        "concurrency": 1,
    }


def write_pictures(folder: Path, each: int) -> None:
    """Write class folders of small made-up pictures, no two alike."""
    random = np.random.default_rng(0)
    for split, count in (("train", each), ("test", 1)):
        for label in range(CLASSES):
            home = folder / split / f"class {label:03d}"
            home.mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                coarse.resize((40, 40), Image.Resampling.BICUBIC).save(home / f"{number:03d}.jpg")


def count_rows(stages: Path) -> tuple[int, int]:
    """Return how many images a view has, of training and of validation."""
    counts = {len(np.load(file, mmap_mode="r")) for file in stages.glob("features/*/features.npy")}
    validation, train = sorted(counts)
    return train, validation


def trial_seconds(told: Told) -> list[float]:
    """Return the times between the ends of one trial and the next."""
    return [later - earlier for earlier, later in pairwise(s for s, line in told.lines if _LAST.search(line))]


def bare_heads(place: Path, train: int, validation: int) -> list[float]:
    """Time heads in a process of their own."""
    command = [sys.executable, __file__, "--heads", str(place), str(train), str(validation)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(seconds) for seconds in printed.split()]


def time_heads(place: Path, train: int, validation: int) -> None:
    """Print the seconds of three heads, each trained for all epochs on one core, after one that is not timed."""
    import torch
    from torch.nn import Dropout, Linear, Sequential
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    cached = [np.load(file, mmap_mode="r") for file in sorted((place / "runs" / "stages" / "features").glob("*/*.npy"))]
    views = [features for features in cached if len(features) == train]
    assert len(views) == EPOCHS
    (held,) = (torch.from_numpy(np.array(features)) for features in cached if len(features) == validation)
    labels = torch.from_numpy(random.integers(0, CLASSES, train))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        head = Sequential(Dropout(0.3), Linear(WIDTH, CLASSES))
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3, fused=True)
        for features in views:
            head.train()
            for batch in torch.randperm(train).split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(head(torch.from_numpy(features[batch.numpy()])), labels[batch]).backward()
                optimizer.step()
            with torch.inference_mode():
                head.eval()(held)
        seconds.append(time.perf_counter() - start)
    print(*seconds[1:])


if __name__ == "__main__":
    main()
