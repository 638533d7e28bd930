"""carsweep predict beside its parts: images per second, against decoding alone and the network alone.

    python benchmarks/predicting.py [--short] [--json FILE] [--pictures FOLDER] [--backbone NAME] [--size PIXELS]

Decoding alone is the same threads that read the same files; the network alone computes the same batches of pixels that
were decoded before. Both have all cores. Who does both beside each other on as many cores can do no better than one
after the other, so the target is a share of images / (seconds of the network + seconds of decoding). The three are
timed in turns, and the ratio is the median of the rounds' ratios: other work on the machine slows all three down.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from input_path import make_pictures
from rows import Row, write_rows

from carcls.config import TrialConfig
from carcls.data.paths import images_named
from carcls.export import Predictor, load_export, write_export
from carcls.export.inputs import read_pixels
from carcls.machine import usable_cores
from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier
from sweeps.cli.answers import answers_to

CLASSES, TARGET = 196, 0.9


def main() -> None:
    """Read the arguments, make the pictures, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures, in place of made-up ones")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    rounds, count = (3, 512) if arguments.short else (9, 2048)
    command = "python benchmarks/predicting.py" + (" --short" if arguments.short else "")
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.pictures or make_pictures(Path(place) / "pictures", count, (300, 224))
        names = list(images_named([str(folder)], (), Counter()))
        predictor = exported(Path(place) / "model", arguments.backbone, arguments.size)
        row = measure(predictor, names, rounds, f"{arguments.backbone} at {arguments.size} px", command)
    print(f"{row.what}: {row.value} ({row.target}){'' if row.met else ' MISSED'}")
    if arguments.json:
        write_rows(arguments.json, [row])


def exported(folder: Path, backbone: str, size: int) -> Predictor:
    """Return a classifier that was exported and loaded; its weights do not matter."""
    config = TrialConfig(backbone=backbone, image_size=size, weights="random")
    classifier = Classifier(build_backbone(backbone), 0.0, CLASSES).eval()
    write_export(folder, classifier, config, classes=[str(number) for number in range(CLASSES)], margin=0.0)
    return load_export(folder)


def measure(predictor: Predictor, names: list[str], rounds: int, what: str, command: str) -> Row:
    """Time the three in turns."""
    read = partial(read_pixels, size=predictor.image_size)
    paths, batch = [Path(name) for name in names], predictor.engine.batch
    with ThreadPoolExecutor(usable_cores()) as pool:
        pixels = np.stack(list(pool.map(read, paths)))
        parts = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
        sides: list[Callable[[], object]] = [
            lambda: deque(pool.map(read, paths), maxlen=0),
            lambda: [predictor.engine(part) for part in parts],
            lambda: deque(answers_to(predictor, names, 5), maxlen=0),
        ]
        for side in sides:  # what is done once
            side()
        times = [[_seconds(side) for side in sides] for _ in range(rounds)]
    decoding, network, all_of_it = (median(side) for side in zip(*times, strict=True))
    ratio = median((first + second) / both for first, second, both in times)
    count, met = len(names), ratio >= TARGET
    print(f"batches of {batch}; ratios of the rounds: {' '.join(f'{(a + b) / c:.2f}' for a, b, c in times)}")
    return Row(
        what=f"carsweep predict, {count:,} images, {what}, against its parts one after the other, each on all cores",
        target=f"≥ {TARGET:g}× images / (network's seconds + decoding's seconds)",
        value=f"{ratio:.2f}× ({count / all_of_it:.0f} images/s; decoding alone {count / decoding:.0f}, the network "
        f"alone {count / network:.0f})",
        met=met,
        runs=rounds,
        command=command,
        reason="" if met else f"at a load of {os.getloadavg()[0]:.1f} on {usable_cores()} cores",
    )


def _seconds(side: Callable[[], object]) -> float:
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
