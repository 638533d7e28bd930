"""What answering costs: parameters of the network that answers, and milliseconds per image from pixels to answer.

Time depends on the network, the image size and the machine, not on what was learnt: it is measured once for each, with
random weights and made-up pixels, and kept as a stage, so that trials with cached features build no network for it.

Letters: b batch, c classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

import numpy as np
import torch

from carcls.config import SCRATCH, TrialConfig
from carcls.models.classifier import Classifier, build_network
from carcls.stages import StageStore, write_json
from carcls.training.device import NumberFormat, machine_name, pick_device
from carcls.training.images import ImageSource
from carcls.training.loop import image_logits
from carcls.training.precision import resolve_precision
from carcls.unfreezing import stays_frozen

KIND = "costs"
FILE = "costs.json"
VERSION = 2
BATCH = 4
# Batches that are timed: at least so many, and more as long as the seconds are not over.
LEAST_BATCHES, MOST_BATCHES, ENOUGH_SECONDS = 3, 9, 0.4


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one answer.

    Attributes:
        milliseconds: per image, median over batches of 4, from decoded pixels to logits (or to embeddings).
        parameters: weights of the network that answers, a head with c classes included when there is one.
    """

    milliseconds: float
    parameters: int


def costs_of(config: TrialConfig, classes: int, stages: StageStore) -> Costs:
    """Return what an answer costs on this device with this number of threads; measured when not known yet.

    Args:
        config: the trial.
        classes: c of the head; 0 for a network that only embeds.
        stages: the store.
    """
    device = pick_device()
    training = config.training()
    frozen = stays_frozen(training.unfreezing, training.epochs)
    precision = resolve_precision(config, device, stages, frozen=frozen)
    key = {
        "backbone": config.backbone,
        "image_size": config.image_size,
        **config.architecture(),
        "classes": classes,
        "precision": precision,
        "machine": machine_name(device),
        "threads": torch.get_num_threads(),
        "version": VERSION,
    }
    folder = stages.get_or_make(KIND, key, lambda work: _measure(work, config, classes, device, precision))
    known = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Costs(known["milliseconds"], known["parameters"])


def count_parameters(config: TrialConfig, classes: int) -> int:
    """Return the parameters of a trial's network, counted on the network itself; with its head when c is not 0.

    Raises:
        InputError: the backbone is unknown to timm, or halves its images away.
    """
    backbone, embedding = _count_backbone(config.network())
    return backbone + ((embedding + 1) * classes)


@lru_cache(maxsize=256)
def _count_backbone(config: TrialConfig) -> tuple[int, int]:
    """Return the parameters without the head, and the width of the embedding."""
    if config.backbone == SCRATCH:
        with torch.device("meta"):  # counts without drawing weights; not every network of timm can
            backbone = build_network(config)
    else:
        backbone = build_network(config)
    return sum(part.numel() for part in backbone.parameters()), backbone.embedding


def _measure(folder: Path, config: TrialConfig, classes: int, device: torch.device, precision: NumberFormat) -> None:
    classifier = Classifier(build_network(config), 0.0, max(1, classes)).eval()
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side, rows = config.image_size, np.arange(BATCH)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)  # [b, s, s, 3]
    images = ImageSource(pixels, classifier.backbone.mean, classifier.backbone.std, device)

    def answer() -> None:
        if classes:
            image_logits(classifier, images, rows, precision)
        else:
            for embeddings in images.through(classifier.backbone, rows, precision):
                embeddings.float().cpu()

    milliseconds = median(_batch_seconds(answer)) / BATCH * 1000
    write_json(folder / FILE, {"milliseconds": milliseconds, "parameters": count_parameters(config, classes)})


def _batch_seconds(answer: Callable[[], None]) -> list[float]:
    answer()  # the first batch finds nothing in the caches
    seconds: list[float] = []
    while len(seconds) < LEAST_BATCHES or (len(seconds) < MOST_BATCHES and sum(seconds) < ENOUGH_SECONDS):
        start = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - start)
    return seconds
