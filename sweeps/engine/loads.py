"""What the trials of a sweep ask of a GPU: for each backbone the most that any of them may. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from carcls.architecture import architecture_of
from carcls.catalog import find_backbone
from carcls.config import ARCHITECTURE_SETTINGS, SCRATCH, TrialConfig
from carcls.errors import InputError

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

MOST_LOADS = 4
"""Backbones of a sweep whose trials are measured, the heaviest."""
Load = dict[str, Any]
"""Settings of a TrialConfig, as JSON has them: what memory and speed of a step depend on."""
_SETTINGS = ("image_size", "batch_size", "micro_batch", "backbone", "precision", "unfreezing", *ARCHITECTURE_SETTINGS)


def loads_of(spec: SweepSpec) -> list[Load]:
    """Return the loads of a sweep, the heaviest first: one for each backbone.

    It has the largest images and batches that any trial of the backbone may have, and the backbone trains if it does in
    any of them: whatever is drawn asks for no more. The optimizer is Adam, which keeps the most.
    """
    by_backbone: dict[str, list[TrialConfig]] = {}
    for config in spec.configs_to_check(*_SETTINGS):
        by_backbone.setdefault(config.backbone, []).append(config)
    loads = [_heaviest(configs) for configs in by_backbone.values()]
    return sorted(loads, key=lambda load: _arithmetic(TrialConfig.model_validate(load)), reverse=True)[:MOST_LOADS]


def _heaviest(configs: Sequence[TrialConfig]) -> Load:
    training = [config for config in configs if config.trains_backbone]
    counted = training or configs
    parts, formats = [config.micro_batch for config in counted], {config.precision for config in counted}
    return {
        "backbone": counted[0].backbone,
        "image_size": max(config.image_size for config in counted),
        "batch_size": max(config.batch_size for config in counted),
        "micro_batch": None if None in parts else max(part or 0 for part in parts),
        "precision": formats.pop() if len(formats) == 1 else "fp32",
        "unfreezing": "full" if training else "frozen",
        **max(counted, key=lambda config: (_arithmetic(config), config.batch_norm)).architecture(),
    }


def _arithmetic(config: TrialConfig) -> float:
    """Return about how many multiply-accumulates a batch takes; 0 where the network cannot be."""
    if config.backbone != SCRATCH:
        return config.batch_size * find_backbone(config.backbone).gmacs * 1e9 * (config.image_size / 224) ** 2
    try:
        return config.batch_size * architecture_of(config).macs(config.image_size)
    except InputError:
        return 0.0


def load_text(load: Load) -> str:
    """Return a load in words.

    >>> load_text({"backbone": "resnet50", "image_size": 224, "batch_size": 64, "unfreezing": "frozen"})
    'resnet50 224 px batch 64 frozen'
    """
    words = [load["backbone"], f"{load['image_size']} px", f"batch {load['batch_size']}"]
    words += [f"in parts of {load['micro_batch']}"] if load.get("micro_batch") else []
    return " ".join([*words, *(["frozen"] if load["unfreezing"] == "frozen" else [])])
