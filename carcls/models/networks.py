"""What is known of the network that a trial needs: from the catalog, or by building it once.

A network of the catalog with its published weights, or with random ones, fits every image size that a trial can have.
Any other is built, which loads torch and timm for seconds; what that tells is a stage of the store. No torch where
nothing is in doubt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.models.weights import RANDOM, WeightsSource, are_official, resolve_weights
from carcls.stages import StageStore, write_json

KIND = "network"
_FILE, _VERSION = "network.json", 2
_POOLINGS = ("average", "max", "gem")
# The image size for which the catalog tells multiply-accumulates.
_SIDE = 224


@dataclass(frozen=True, slots=True)
class Network:
    """What a trial's network is.

    Attributes:
        record: its figures; exact ones where it was built.
        weights: that it starts from; a file that is there fits.
        poolings: that it can do.
    """

    record: BackboneRecord
    weights: WeightsSource
    poolings: Sequence[str]


def know_network(config: TrialConfig, store: Path, *, download: bool = True) -> Network:
    """Return what is known of a trial's network; builds it where that is not known, and keeps what that tells.

    Args:
        config: the trial.
        store: folder of the stages; made when something is to be kept.
        download: whether weights that can only be downloaded are fetched now.

    Raises:
        WeightsError: its weights cannot be had, or do not fit.
        InputError: it is unknown to timm, or does not take images of that size.
    """
    if config.backbone == SCRATCH:
        architecture_of(config)
        return Network(find_backbone(SCRATCH), RANDOM, _POOLINGS[:1])
    record = find_backbone(config.backbone)
    weights = resolve_weights(config.backbone, config.weights, download=download)
    if record.embedding and (weights.path is None or are_official(config.backbone, weights)):
        return Network(record, weights, _POOLINGS)
    key = {"backbone": config.backbone, "weights": weights.digest, "image_size": config.image_size}
    key |= {"timm": version("timm"), "version": _VERSION}
    folder = StageStore(store).get_or_make(KIND, key, lambda work: write_json(work / _FILE, _build(config, weights)))
    found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    poolings, stages = found.pop("poolings"), tuple(found.pop("stages"))
    return Network(replace(record, stages=stages, **found), weights, poolings)


def _build(config: TrialConfig, weights: WeightsSource) -> dict[str, Any]:
    """Build the network with its weights, and send one image through it that has a shape and no pixels.

    Raises:
        InputError: it does not take images of the trial's size.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from carcls.models.classifier import build_backbone_of

    backbone, side = build_backbone_of(config, weights), config.image_size
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            poolings = backbone.eval().to("meta").every_pooling(torch.zeros(1, 3, side, side, device="meta"))
    except Exception as error:  # whatever a network of timm trips over
        body: Any = backbone.body
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"image_size must be one that {config.backbone} takes, got {side} ({reason}). "
            f"Use --set image_size={body.pretrained_cfg['input_size'][-1]}, or another backbone."
        ) from None
    return {
        "embedding": backbone.embedding,
        "stages": [name for name, _ in backbone.stage_paths],
        "gmacs": counter.get_total_flops() / 2e9 * (_SIDE / side) ** 2,
        "parameters": sum(part.numel() for part in backbone.parameters()) / 1e6,
        "poolings": list(poolings),
    }
