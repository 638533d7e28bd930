"""Which numbers a backbone computes with: the faster ones, as measured once on each kind of machine.

Beliefs do not hold here. Dense convolutions gain from bf16 on most processors; depthwise ones mostly lose while they
train, and gain where they only answer; by how much depends on the processor, the image size and the library.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from carcls.config import TrialConfig
from carcls.models.backbones import Backbone
from carcls.models.classifier import build_network
from carcls.models.folding import folded
from carcls.seeding import make_deterministic
from carcls.stages import StageStore, note_made, write_json
from carcls.training.device import NumberFormat, autocast, has_bf16, machine_name
from carcls.training.images import answering_batch

KIND = "precision"
FILE = "precision.json"
VERSION = 3
GAIN = 1.25
"""By how much bf16 must be faster to be worth its less exact numbers."""
ENOUGH_SECONDS = 2.0
LEAST_ROUNDS = 3
# Pixels of the batch that is trained on, where two images do not have more and the trial's own batch has not less.
CPU_PIXELS, GPU_PIXELS = 2 * 224**2, 64 * 224**2


def resolve_precision(
    config: TrialConfig, device: torch.device, stages: StageStore, *, frozen: bool = False
) -> NumberFormat:
    """Return the format of the backbone's arithmetic; ``auto`` takes bf16 where that is faster.

    Faster at training it or, where it is ``frozen``, at embedding. The answer is kept in the store for the backbone,
    the image size and the kind of machine. So all trials on a machine agree and share their stages, whatever their
    share of its cores, and whoever comes later gets the same numbers.
    """
    if config.precision != "auto":
        return config.precision
    if not has_bf16(device):
        return "fp32"
    key = {
        "backbone": config.backbone,
        **config.architecture(),
        "image_size": config.image_size,
        "frozen": frozen,
        "machine": machine_name(device),
        "torch": torch.__version__,
        "version": VERSION,
    }
    folder = stages.get_or_make(KIND, key, lambda work: _probe(work, config, device, frozen))
    answer: NumberFormat = json.loads((folder / FILE).read_text(encoding="utf-8"))["precision"]
    return answer


def _probe(folder: Path, config: TrialConfig, device: torch.device, frozen: bool) -> None:
    """Time steps in both formats, in turns, and write which is to be taken, with the best times."""
    make_deterministic()
    backbone = build_network(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone.train(not frozen)
    if frozen:
        backbone = folded(backbone, config.image_size)
        count = answering_batch(device, config.image_size)
    else:
        enough = (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) // config.image_size**2
        count = max(2, min(enough, config.micro_batch or config.batch_size))
    shape = (count, 3, config.image_size, config.image_size)
    with torch.random.fork_rng():  # dropout inside a backbone draws from the global generators
        images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        seconds = compare(lambda precision: _step_seconds(backbone, images, precision))
    fastest = {name: min(times) for name, times in seconds.items()}
    milliseconds = {name: 1000 * value / count for name, value in fastest.items()}
    write_json(folder / FILE, {"precision": faster(fastest), "milliseconds_per_image": milliseconds})
    note_made(folder, 0.0)  # nobody would measure it for a single trial, so that finding it saves nobody anything


def faster(fastest: dict[NumberFormat, float]) -> NumberFormat:
    """Return the format to take, given the seconds of each.

    >>> faster({"fp32": 1.0, "bf16": 0.5}), faster({"fp32": 1.0, "bf16": 0.95})
    ('bf16', 'fp32')
    """
    return "bf16" if fastest["bf16"] * GAIN < fastest["fp32"] else "fp32"


def compare(step: Callable[[NumberFormat], float]) -> dict[NumberFormat, list[float]]:
    """Return seconds of steps in both formats, taken in turns so that what else the machine does hits both.

    The first step of each prepares and does not count. It ends when three rounds agree, or after two seconds.
    """
    formats: tuple[NumberFormat, ...] = get_args(NumberFormat)
    start = time.perf_counter()
    for precision in formats:
        step(precision)
    seconds: dict[NumberFormat, list[float]] = {precision: [] for precision in formats}
    while True:
        for precision in formats:
            seconds[precision].append(step(precision))
        if time.perf_counter() - start > ENOUGH_SECONDS or _is_clear(seconds):
            return seconds


def _is_clear(seconds: dict[NumberFormat, list[float]]) -> bool:
    """Tell whether each round says the same."""
    rounds = [faster({"fp32": fp32, "bf16": bf16}) for fp32, bf16 in zip(seconds["fp32"], seconds["bf16"], strict=True)]
    return len(rounds) >= LEAST_ROUNDS and len(set(rounds)) == 1


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
