"""What is measured once on each kind of machine and kept as a stage: the number format, and what an answer costs.

Beliefs do not hold for number formats. Dense convolutions gain from bf16 on most processors; depthwise ones mostly lose
while they train, and gain where they only answer; by how much depends on the processor, the image size and the library.

What an answer costs depends on the network, the image size and the machine, not on what was learnt: it is measured with
random weights and made-up pixels, so that trials with cached features build no network for it.

Letters: b batch, c classes, s side in pixels.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch

from carcls.config import SCRATCH, TrialConfig
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier, build_network
from carcls.models.folding import folded
from carcls.seeding import make_deterministic
from carcls.stages import StageStore, note_made, write_json
from carcls.training.images import ImageSource, NumberFormat, answering_batch, autocast, pick_device
from carcls.training.memory import halved

PRECISION, PRECISION_VERSION = "precision", 3
GAIN = 1.25
"""By how much bf16 must be faster to be worth its less exact numbers."""
ROUNDS = 4
"""Steps in each format; the first one of each prepares and does not count."""
# Pixels of the batch that is trained on, where two images do not have more and the trial's own batch has not less.
CPU_PIXELS, GPU_PIXELS = 2 * 224**2, 64 * 224**2

COSTS, COSTS_VERSION = "costs", 2
ANSWERED, BATCHES = 4, 5
"""Images of a batch, and batches that are timed after a first one, which finds nothing in the caches."""


def resolve_precision(
    config: TrialConfig, device: torch.device, stages: StageStore, *, frozen: bool = False
) -> NumberFormat:
    """Return the format of the backbone's arithmetic; ``auto`` takes bf16 where that is faster.

    Faster at training it or, where it is ``frozen`` or the trial never unfreezes it, at embedding. The answer is kept
    in the store for the backbone, the image size and the kind of machine. So all trials on a machine agree and share
    their stages, whatever their share of its cores, and whoever comes later gets the same numbers.
    """
    if config.precision != "auto":
        return config.precision
    if not has_bf16(device):
        return "fp32"
    frozen = frozen or not config.trains_backbone
    key = {**_of_network(config, device), "frozen": frozen, "torch": torch.__version__, "version": PRECISION_VERSION}
    answer: NumberFormat = _found(stages, PRECISION, key, partial(_probe, config, device, frozen))["precision"]
    return answer


def _of_network(config: TrialConfig, device: torch.device) -> dict[str, Any]:
    size = {"backbone": config.backbone, "image_size": config.image_size, **config.architecture()}
    return {**size, "machine": machine_name(device)}


def _found(stages: StageStore, kind: str, key: dict[str, Any], measure: Callable[[], Any]) -> dict[str, Any]:
    """Return what was measured, from its stage or anew; no trial would measure it for itself, so finding saves none."""
    file = f"{kind}.json"

    def make(folder: Path) -> None:
        write_json(folder / file, measure())
        note_made(folder, 0.0)

    found: dict[str, Any] = json.loads((stages.get_or_make(kind, key, make) / file).read_text(encoding="utf-8"))
    return found


def _probe(config: TrialConfig, device: torch.device, frozen: bool) -> dict[str, Any]:
    """Time steps in both formats; return which is to be taken, with the best times."""
    make_deterministic()
    backbone = build_network(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone.train(not frozen)
    if frozen:
        backbone = folded(backbone, config.image_size)
        count = answering_batch(device, config.image_size)
    else:
        enough = (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) // config.image_size**2
        count = max(2, min(enough, config.micro_batch or config.batch_size))

    def measure(count: int) -> dict[NumberFormat, float]:
        images = torch.rand((count, 3, config.image_size, config.image_size), device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        return fastest_of(lambda precision: _step_seconds(backbone, images, precision))

    # Dropout inside a backbone draws from the global generators; of those of GPUs, only from this one's.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # A trial that will take bf16 may lack the memory for its batch in fp32.
        fastest, count = halved(measure, count, least=1 if frozen else 2)
    milliseconds = {name: 1000 * value / count for name, value in fastest.items()}
    return {"precision": faster(fastest), "milliseconds_per_image": milliseconds}


def faster(fastest: dict[NumberFormat, float]) -> NumberFormat:
    """Return the format to take, given the seconds of each.

    >>> faster({"fp32": 1.0, "bf16": 0.5}), faster({"fp32": 1.0, "bf16": 0.95})
    ('bf16', 'fp32')
    """
    return "bf16" if fastest["bf16"] * GAIN < fastest["fp32"] else "fp32"


def fastest_of(step: Callable[[NumberFormat], float]) -> dict[NumberFormat, float]:
    """Return the least seconds of a step in each format, taken in turns so that what else runs hits both."""
    formats: tuple[NumberFormat, ...] = get_args(NumberFormat)
    _, *rounds = [{precision: step(precision) for precision in formats} for _ in range(ROUNDS)]
    return {precision: min(seconds[precision] for seconds in rounds) for precision in formats}


def _step_seconds(backbone: Backbone, images: torch.Tensor, precision: NumberFormat) -> float:
    start = _now(images.device)
    with torch.inference_mode(not backbone.training), autocast(images.device, precision):
        embeddings = backbone(images).float()
    if backbone.training:
        embeddings.square().mean().backward()
        backbone.zero_grad(set_to_none=True)
    return _now(images.device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bf16 matrices; not whether it gains by that."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    return any("bf16" in name and able[name] for name in able)


def machine_name(device: torch.device) -> str:
    """Return what the GPU or the processor calls itself."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def costs_of(config: TrialConfig, classes: int, stages: StageStore) -> dict[str, float]:
    """Return what an answer costs on this device with this number of threads; measured when not known yet.

    Args:
        config: the trial.
        classes: c of the head; 0 for a network that only embeds.
        stages: the store.

    Returns:
        ``predict_ms``: milliseconds per image, median over batches of 4, from decoded pixels to logits (or embeddings);
        ``parameters``: weights of the network that answers, those of the head among them when there is one.
    """
    device = pick_device()
    precision = resolve_precision(config, device, stages)
    machine = {"precision": precision, "threads": torch.get_num_threads()}
    key = {**_of_network(config, device), **machine, "classes": classes, "version": COSTS_VERSION}
    found = _found(stages, COSTS, key, partial(_measure_costs, config, classes, device, precision))
    return {"predict_ms": found["milliseconds"], "parameters": float(found["parameters"])}


def count_parameters(config: TrialConfig, classes: int) -> int:
    """Return the parameters of a trial's network, counted on the network itself; with its head when c is not 0.

    Raises:
        InputError: the backbone is unknown to timm, or halves its images away.
    """
    backbone, embedding = _count_backbone(config.network())
    return backbone + (embedding + 1) * classes


@lru_cache(maxsize=256)
def _count_backbone(config: TrialConfig) -> tuple[int, int]:
    """Return the parameters without the head, and the width of the embedding."""
    # Counts without drawing weights; not every network of timm can be built like that.
    with torch.device("meta") if config.backbone == SCRATCH else nullcontext():
        backbone = build_network(config)
    return sum(part.numel() for part in backbone.parameters()), backbone.embedding


def _measure_costs(
    config: TrialConfig, classes: int, device: torch.device, precision: NumberFormat
) -> dict[str, float]:
    classifier = Classifier(build_network(config), 0.0, max(1, classes)).eval()
    classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side, rows = config.image_size, np.arange(ANSWERED)
    pixels = np.random.default_rng(0).integers(0, 256, (ANSWERED, side, side, 3), dtype=np.uint8)  # [b, s, s, 3]
    images = ImageSource(pixels, classifier.backbone.mean, classifier.backbone.std, device)

    def seconds() -> float:
        start = time.perf_counter()
        for embeddings in images.through(classifier.backbone, rows, precision):
            _ = (classifier.answer(embeddings.float()) if classes else embeddings.float()).cpu()
        return time.perf_counter() - start

    _, *found = [seconds() for _ in range(1 + BATCHES)]
    return {"milliseconds": median(found) / ANSWERED * 1000, "parameters": count_parameters(config, classes)}
