"""What an epoch of fine-tuning takes beyond the arithmetic of the network.

    python benchmarks/epoch.py [--short] [--json FILE] [--backbone NAME] [--size 128] [--batch 32] [--steps N]

One side is an epoch of carsweep's training: batches from the pack with full augmentation, learning rates, loss, checks.
The other is a bare loop of forward, backward and step over one batch of random numbers that lies in memory: same
network, batch, number format, optimizer and number of steps. Both run in turns; the value is the median of the ratios.
On a GPU an epoch has 60 steps, since those of few steps end before the first batches have been prepared, and no round
begins after 8 s, once there are three: an epoch takes a second or two there.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn import functional

from carcls.config import TrialConfig
from carcls.models.classifier import Classifier, build_classifier
from carcls.stages import StageStore
from carcls.training.images import ImageSource, NumberFormat, autocast, pick_device
from carcls.training.loop import Trainer
from carcls.training.measured import resolve_precision
from carcls.training.optim import build_optimizer

TARGET = 1.05
CLASSES = 196
ENOUGH, LEAST = 8.0, 3
Run = Callable[[], float]


def main() -> None:
    """Read the arguments, run both sides in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--json", type=Path, help="write the row there")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, help="of an epoch")
    arguments = parser.parse_args()
    rounds, steps = (5, 3) if arguments.short else (15, 6)
    on_gpu = pick_device().type == "cuda"
    steps = arguments.steps or (60 if on_gpu else steps)
    config = TrialConfig(
        backbone=arguments.backbone,
        weights="random",
        image_size=arguments.size,
        batch_size=arguments.batch,
        unfreezing="full",
        epochs=1,
        crop="resized",
        flip=True,
        rotation=15.0,
        jitter=0.2,
    )
    with tempfile.TemporaryDirectory() as place:
        precision = resolve_precision(config, pick_device(), StageStore(Path(place) / "stages"))
        ours, bare = training_epoch(config, steps, precision, Path(place)), bare_epoch(config, steps, precision)
        ours(), bare()  # the first of each finds nothing prepared
        end, pairs = time.perf_counter() + (ENOUGH if on_gpu else math.inf), [(ours(), bare())]
        while len(pairs) < LEAST or (len(pairs) < rounds and time.perf_counter() < end):
            pairs.append((ours(), bare()))
    ratio = median(our / other for our, other in pairs)
    seconds = [median(side) for side in zip(*pairs, strict=True)]
    images = f"{steps * arguments.batch} images of {arguments.size} px, {precision}, {arguments.backbone}"
    print(f"{images}: {seconds[0]:.2f} s against {seconds[1]:.2f} s bare, ratio {ratio:.3f}")
    quickest = min(our for our, _ in pairs) / min(other for _, other in pairs)
    print(f"quickest of each: {quickest:.3f}")
    if arguments.json:
        row = {
            "what": f"an epoch of fine-tuning against bare forward, backward and step ({arguments.backbone})",
            "target": f"≤ {TARGET}×",
            "value": round(ratio, 3),
            "met": ratio <= TARGET,
            "runs": len(pairs),
            "command": "python benchmarks/epoch.py" + (" --short" if arguments.short else ""),
            "reason": "" if ratio <= TARGET else f"of the quickest epochs of each: {quickest:.3f}",
        }
        arguments.json.write_text(json.dumps([row], indent=1) + "\n", encoding="utf-8")


def training_epoch(config: TrialConfig, steps: int, precision: NumberFormat, place: Path) -> Run:
    """Return what trains for an epoch of ``steps`` batches as a trial does, and says how many seconds that took."""
    trainer = trainer_of(config, steps, precision, place)

    def run() -> float:
        start = time.perf_counter()
        trainer.run_epoch(0)
        return time.perf_counter() - start

    return run


def trainer_of(config: TrialConfig, steps: int, precision: NumberFormat, place: Path) -> Trainer:
    """Return what trains as a trial does, on ``steps`` batches of random pixels that lie in a file of ``place``."""
    count, side = steps * config.batch_size, config.image_size
    batch = np.random.default_rng(0).integers(0, 256, (config.batch_size, side, side, 3), dtype=np.uint8)
    np.save(place / "pixels.npy", np.tile(batch, (steps, 1, 1, 1)))  # on a GPU drawing all would take seconds
    classifier = _classifier(config)
    backbone = classifier.backbone
    rows = np.arange(count)
    return Trainer(
        config=config,
        classifier=classifier,
        images=ImageSource(np.load(place / "pixels.npy", mmap_mode="r"), backbone.mean, backbone.std, pick_device()),
        labels=rows % CLASSES,
        train=rows,
        validation=rows[:0],
        precision=precision,
        features=None,
    )


def bare_epoch(config: TrialConfig, steps: int, precision: NumberFormat) -> Run:
    """Return what repeats forward, backward and step on one batch of random numbers, and says how long that took."""
    device = pick_device()
    classifier = _classifier(config).train()
    optimizer = build_optimizer(classifier, config)
    images = torch.randn((config.batch_size, 3, config.image_size, config.image_size), device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (config.batch_size,), device=device)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                embeddings = classifier.embed(images)
            loss = functional.cross_entropy(classifier.classify(embeddings.float()), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return run


def _classifier(config: TrialConfig) -> Classifier:
    return build_classifier(config, CLASSES).to(pick_device(), memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


if __name__ == "__main__":
    main()
