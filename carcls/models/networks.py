"""What is known of the network that a trial needs: from the catalog, or by building it once.

A network of the catalog with its published weights, or with random ones, fits every image size that a trial can have.
Any other is built, which loads torch and timm for seconds; what that tells is kept as a stage of the store, so
that it is not asked again as long as its weights are the same. No torch where nothing is in doubt.
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
_FILE, _VERSION = "network.json", 1
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
    names = ("backbone", "weights", "image_size")
    key = {name: getattr(config, name) for name in names} | {"timm": version("timm"), "version": _VERSION}
    kept = _kept(store, key)
    weights = _weights_as_kept(kept) or resolve_weights(config.backbone, config.weights, download=download)
    record = find_backbone(config.backbone)
    if record.embedding and (weights.path is None or are_official(config.backbone, weights)):
        return Network(record, weights, _POOLINGS)
    if kept is None or kept["digest"] != weights.digest:
        kept = built = _build(config, weights)
        stages = StageStore(store)
        stages.forget(KIND, key)
        stages.get_or_make(KIND, key, lambda work: write_json(work / _FILE, built))
    figures = {name: kept[name] for name in ("embedding", "gmacs", "parameters")}
    return Network(replace(record, stages=tuple(kept["stages"]), **figures), weights, kept["poolings"])


def _kept(store: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    if not store.is_dir():
        return None
    try:
        text = (StageStore(store).folder(KIND, key) / _FILE).read_text(encoding="utf-8")
        return dict(json.loads(text))
    except (OSError, ValueError):
        return None


def _weights_as_kept(kept: dict[str, Any] | None) -> WeightsSource | None:
    """Return the weights where the network's were when it was built; otherwise only timm could tell where they are."""
    path = Path(kept["file"]) if kept and kept["file"] else None
    return WeightsSource.of_file(path) if path and path.is_file() else None


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
            found = backbone.eval().to("meta").every_pooling(torch.zeros(1, 3, side, side, device="meta"))
    except Exception as error:  # whatever a network of timm trips over
        body: Any = backbone.body
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"image_size must be one that {config.backbone} takes, got {side} ({reason}). "
            f"Use --set image_size={body.pretrained_cfg['input_size'][-1]}, or another backbone."
        ) from None
    # Where "auto" finds the file of a timm model, only timm can tell.
    by_timm = weights.path is not None and config.weights == "auto" and find_backbone(config.backbone).source == "timm"
    return {
        "embedding": backbone.embedding,
        "stages": [name for name, _ in backbone.stage_paths],
        "gmacs": counter.get_total_flops() / 2e9 * (_SIDE / side) ** 2,
        "parameters": sum(part.numel() for part in backbone.parameters()) / 1e6,
        "poolings": list(found),
        "digest": weights.digest,
        "file": str(weights.path) if by_timm else None,
    }
