"""Steps of a trial's training for as long as somebody wants them, with what they take of a GPU.

Several processes do that at once on one GPU, and so it is known how many trials fit, and whether they are faster
together (``sweeps.engine.probing``). Network, batches, optimizer, number format and cuDNN's settings are those of a
trial; weights, pixels and labels are made up. What only answers, which takes larger batches, is done once for its
memory. The steps of a backbone that stays frozen are its head's, on embeddings as trials find them in the store.

Not told by it: a trial whose decoded images do not fit on the GPU reads them from the machine's memory, and augments.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from carcls.config import TrialConfig
from carcls.machine import keep_freed_memory
from carcls.models.classifier import Classifier, build_network
from carcls.models.folding import folded
from carcls.seeding import make_deterministic
from carcls.stages import StageStore
from carcls.training.images import ImageSource, NumberFormat, answering_batch, pick_device
from carcls.training.loop import Trainer
from carcls.training.measured import resolve_precision
from carcls.training.memory import memory_errors_named

SECONDS = 1.0
"""That steps are timed for; the last epoch begun within them is finished."""
BATCHES = 4
"""Of an epoch."""
CLASSES = 196
"""Of the head, as many as Stanford Cars has."""


def steps(load: Mapping[str, Any], stages: Path) -> Iterator[dict[str, float]]:
    """Yield once all is prepared and has run once, and then after each further SECONDS of steps.

    Args:
        load: settings of the trial; others have their defaults.
        stages: folder of the store, which has the number format for ``auto``.

    Yields:
        ``images_per_second`` of these steps; the bytes ``peak`` (most that PyTorch ever reserved on the GPU), ``held``
        (that it has reserved now) and ``free`` (that nobody holds). On a CPU the last three are 0.

    Raises:
        OutOfMemory: the memory of the GPU or of the machine does not suffice.
        NoDevice: the GPU cannot be used.
    """
    config, device = TrialConfig.model_validate(load), pick_device()
    config = config.model_copy(update={"head_lr": 1e-6, "backbone_lr": 1e-6, "lr_schedule": "constant"})  # stays finite
    keep_freed_memory()
    make_deterministic()
    with memory_errors_named(config):
        frozen = not config.trains_backbone
        precision = resolve_precision(config, device, StageStore(stages), frozen=frozen)
        if device.type == "cuda":  # finding the format took memory that steps do not
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trainer, epoch = _trainer(config, device, precision, frozen=frozen), 0
        trainer.run_epoch(epoch)
        yield _told(device, 0.0)
        while True:
            start, first, seconds = time.perf_counter(), epoch, 0.0
            while seconds < SECONDS:
                epoch += 1
                trainer.run_epoch(epoch)  # waits for the GPU
                seconds = time.perf_counter() - start
            yield _told(device, (epoch - first) * len(trainer.train) / seconds)


def _trainer(config: TrialConfig, device: torch.device, precision: NumberFormat, *, frozen: bool) -> Trainer:
    """Return what trains an epoch of BATCHES batches, without validation, and has answered as many as that does."""
    side, count = config.image_size, BATCHES * config.batch_size
    rows, draw = np.arange(count), np.random.default_rng(0)
    image = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels = np.broadcast_to(image, (count, side, side, 3))
    classifier = Classifier(build_network(config), config.dropout, CLASSES)
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone = classifier.backbone
    images = ImageSource(pixels, backbone.mean, backbone.std, device)
    answered = np.zeros(answering_batch(device, side), np.int64)
    for _ in images.through(folded(backbone, side), answered, precision):
        pass
    features = draw.standard_normal((count, backbone.embedding), dtype=np.float32) if frozen else None
    return Trainer(
        config=config.training(),
        classifier=classifier,
        images=images,
        labels=draw.integers(0, CLASSES, count),
        train=rows,
        validation=rows[:0],
        precision=precision,
        features=None if features is None else lambda rows, _: features[rows],
    )


def _told(device: torch.device, images_per_second: float) -> dict[str, float]:
    if device.type != "cuda":
        return {"images_per_second": images_per_second, "peak": 0.0, "held": 0.0, "free": 0.0}
    held, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    free, _ = torch.cuda.mem_get_info(device)
    return {"images_per_second": images_per_second, "peak": float(peak), "held": float(held), "free": float(free)}
