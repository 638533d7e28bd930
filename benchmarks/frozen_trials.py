"""How much cached views of a frozen backbone save: the same trials with and without the store, in one run.

    python benchmarks/frozen_trials.py [--trials 5] [--epochs 3] [--size 96]

Trials differ in dropout and learning rate only, and augment alike. Without the store each of them runs every image of
every epoch through the backbone; with it the first one does, and the others train heads. Prints seconds and the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from carcls.config import DataConfig, TrialConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.data.demo import write_demo
from carcls.models.classifier import build_classifier
from carcls.stages import StageStore
from carcls.training.features import FrozenFeatures
from carcls.training.images import ImageSource
from carcls.training.loop import Split, Trainer


def main() -> None:
    """Read the arguments, run both ways, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        stages = StageStore(root / "stages")
        data = prepare_dataset(
            DataConfig(path=str(write_demo(root / "demo", images_per_class=12))), stages, arguments.size
        )
        configs = [
            TrialConfig(
                backbone="efficientnet_lite0",
                image_size=arguments.size,
                epochs=arguments.epochs,
                crop="random",
                flip=True,
                rotation=15,
                dropout=0.1 * number,
                head_lr=1e-3 * (1 + number),
            )
            for number in range(arguments.trials)
        ]
        _seconds(configs[0], data, stages, cached=False, place=root / "warm-up")
        computed = [
            _seconds(config, data, stages, cached=False, place=root / f"a{i}") for i, config in enumerate(configs)
        ]
        cached = [_seconds(config, data, stages, cached=True, place=root / f"b{i}") for i, config in enumerate(configs)]
    threads = torch.get_num_threads()
    print(f"{len(data.splits.train)} images, {arguments.epochs} epochs, {arguments.size} px, {threads} threads")
    print("computed:", " ".join(f"{s:.2f} s" for s in computed))
    print("cached:  ", " ".join(f"{s:.2f} s" for s in cached))
    whole, later = sum(computed) / sum(cached), np.mean(computed) / np.mean(cached[1:])
    print(f"all trials: {whole:.1f} × faster; after the first: {later:.0f} ×")


def _seconds(config: TrialConfig, data: Dataset, stages: StageStore, *, cached: bool, place: Path) -> float:
    classifier = build_classifier(config, len(data.classes)).to(memory_format=torch.channels_last)
    backbone = classifier.backbone
    images = ImageSource(data.pack(stages, config.image_size).pixels, backbone.mean, backbone.std, torch.device("cpu"))
    key = {"data": data.digest, "size": config.image_size}
    trainer = Trainer(
        config=config,
        classifier=classifier,
        images=images,
        train=Split(data.splits.train, data.labels[data.splits.train]),
        validation=Split(data.splits.validation, data.labels[data.splits.validation]),
        precision="fp32",
        features=FrozenFeatures(stages, classifier, images, "fp32", key) if cached else None,
    )
    place.mkdir()
    start = time.perf_counter()
    trainer.fit(place, lambda _: None)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
