"""The input path alone: images per second that reach the network, against torchvision's transforms in a DataLoader.

    python benchmarks/input_path.py [--short] [--json FILE] [--crops FOLDER]

Both sides give normalised batches of 32 images of 224 pixels with a resized crop, a mirror, a rotation and colour
jitter, from the same JPEG files, in turns. The DataLoader has two workers, which stay; of PIL images and tensors it
gets what is faster. carsweep decodes the files into its pack first: once for all trials. Rows are given with and
without that time.

``--crops`` takes class folders of small pictures in place of made-up ones. The 2-megapixel ones are always made up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from carcls.catalog import IMAGENET_MEAN, IMAGENET_STD
from carcls.config import TrialConfig
from carcls.data.augment import augmentation_of
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.stages import StageStore
from carcls.training.images import ImageSource, View, batches

SIZE, BATCH, WORKERS, EPOCHS = 224, 32, 2, 10
CONFIG = TrialConfig(crop="resized", crop_scale=0.35, flip=True, rotation=15.0, jitter=0.2)
Epoch = Callable[[], int]


@dataclass(frozen=True)
class Pictures:
    """A kind of picture: what it is called, how many times faster carsweep is to read it, and its folder."""

    name: str
    target: float
    folder: Path


def main() -> None:
    """Read the arguments, make the pictures, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--crops", type=Path, help="class folders of small pictures")
    arguments = parser.parse_args()
    rounds, small, large = (3, 320, 96) if arguments.short else (7, 1280, 256)
    command = "python benchmarks/input_path.py" + (" --short" if arguments.short else "")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        crops = arguments.crops or make_pictures(root / "small", small, (300, 224))
        kinds = [
            Pictures("small crops", 2.0, crops),
            Pictures("2-megapixel originals", 6.0, make_pictures(root / "large", large, (1632, 1224))),
        ]
        for pictures in kinds:
            rows += measure(pictures, rounds, StageStore(root / "stages"), command)
    for row in rows:
        print(f"{row['what']}: {row['value']} ({row['target']}){'' if row['met'] else ' MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write JPEGs of ``size`` (width, height) in two class folders: soft shapes with grain, as photographs have."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        shapes = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(shapes).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = random.integers(-12, 13, soft.shape, dtype=np.int16)
        picture = Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))
        picture.save(folder / "ab"[number % 2] / f"{number}.jpg", quality=85)
    return folder


def measure(pictures: Pictures, rounds: int, stages: StageStore, command: str) -> list[dict[str, Any]]:
    """Time both sides in turns; return a row without the time of packing, and one with it."""
    ours, pack_seconds = our_epoch(pictures.folder, stages)
    theirs = faster_epoch(pictures.folder)
    ours()
    rates = [(_rate(ours), _rate(theirs)) for _ in range(rounds)]
    our_rate, their_rate = (median(side) for side in zip(*rates, strict=True))
    gain = median(our / their for our, their in rates)
    images = ours()
    with_pack = (EPOCHS * images / their_rate) / (EPOCHS * images / our_rate + pack_seconds)
    print(f"{pictures.name}: {our_rate:.0f} against {their_rate:.0f} images/s; packing {images / pack_seconds:.0f}/s")

    def row(how: str, value: float) -> dict[str, Any]:
        met = value >= pictures.target
        return {
            "what": f"input path, {pictures.name}, {how}, against a DataLoader with {WORKERS} workers",
            "target": f"≥ {pictures.target:g}×",
            "value": f"{value:.1f}× ({our_rate:.0f} against {their_rate:.0f} images/s)",
            "met": met,
            "runs": rounds,
            "command": command,
            "reason": "" if met else f"packing once: {pack_seconds:.1f} s; an image then: {1000 / our_rate:.2f} ms",
        }

    return [row("packed before", gain), row(f"packing counted in {EPOCHS} epochs", with_pack)]


def our_epoch(folder: Path, stages: StageStore) -> tuple[Epoch, float]:
    """Return what runs an epoch over the pack of a folder, and the seconds that packing took."""
    start = time.perf_counter()
    data = prepare_dataset(DataConfig(path=str(folder), name=folder.name), stages, SIZE, workers=WORKERS)
    pixels = data.pixels(stages, SIZE)
    seconds = time.perf_counter() - start
    source = ImageSource(pixels, IMAGENET_MEAN, IMAGENET_STD, torch.device("cpu"))
    augmentation = augmentation_of(CONFIG)
    assert augmentation is not None
    epochs = iter(range(10**6))

    def epoch() -> int:
        view = View(augmentation, seed=0, epoch=next(epochs))
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(view.epoch))
        with closing(source.stream(list(batches(len(pixels), BATCH, order)), view)) as stream:
            return sum(len(images) for images in stream)

    return epoch, seconds


def faster_epoch(folder: Path) -> Epoch:
    """Return what runs an epoch of a DataLoader, with transforms of PIL images or of tensors, whichever are faster."""
    changes = [
        v2.RandomResizedCrop(SIZE, scale=(CONFIG.crop_scale, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(CONFIG.rotation, interpolation=InterpolationMode.BILINEAR),
        v2.ColorJitter(CONFIG.jitter, CONFIG.jitter, CONFIG.jitter),
    ]
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    epochs = [_loader_epoch(folder, [*changes, v2.ToImage(), *finish])]
    epochs += [_loader_epoch(folder, [v2.ToImage(), *changes, *finish])]
    for epoch in epochs:
        epoch()  # starts the workers
    return max(epochs, key=_rate)


def _loader_epoch(folder: Path, transforms: list[Any]) -> Epoch:
    loader = DataLoader(
        ImageFolder(str(folder), v2.Compose(transforms)),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    return lambda: sum(len(images) for images, _ in loader)


def _rate(epoch: Epoch) -> float:
    start = time.perf_counter()
    images = epoch()
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
