"""The backbones that trials can name: plain records, no torch.

The figures are facts of the architectures: embedding width, the names of the stages that an unfreezing schedule opens
(from input to output), and multiply-accumulates of one 224×224 image, from which plans estimate time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from carcls.errors import InputError, nearest, shown

Source = Literal["torchvision", "wheel", "timm", "scratch"]


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What is known of a backbone without building it.

    Attributes:
        name: what a config says (``resnet50``, ``timm:convnext_tiny``).
        source: where the weights come from; timm builds all but ``scratch``.
        embedding: width d of the pooled features; 0 where only building it tells (``timm:…``, ``scratch``).
        stages: parts that an unfreezing schedule opens, input first; empty where only building it tells.
        gmacs: 10⁹ multiply-accumulates of one 224×224 image; a guess of 4.0 for ``timm:…`` until it was built once (see
            carcls.models.networks).
        weights_file: name of the official weights, which holds the first digits of their SHA-256 as torch hub's names
            do; empty where there is none of a known name.
        parameters: parameters without the head, in millions (for disk estimates).
        bf16: whether plans take bf16 to be faster on a CPU with AMX; trials measure it (carcls.training.measured).
    """

    name: str
    source: Source
    embedding: int = 0
    stages: tuple[str, ...] = ()
    gmacs: float = 4.0
    weights_file: str = ""
    parameters: float = 25.0
    bf16: bool = True


BACKBONES: tuple[BackboneRecord, ...] = (
    # V1 weights: torchvision's V2 weights give worse frozen features and equal fine-tuning.
    BackboneRecord(
        name="resnet50",
        source="torchvision",
        embedding=2048,
        stages=("stem", "layer1", "layer2", "layer3", "layer4"),
        gmacs=4.09,
        weights_file="resnet50-0676ba61.pth",
        parameters=23.5,
    ),
    BackboneRecord(
        name="densenet121",
        source="torchvision",
        embedding=1024,
        stages=("stem", "denseblock1", "denseblock2", "denseblock3", "denseblock4"),
        gmacs=2.83,
        weights_file="densenet121-a639ec97.pth",
        parameters=7.0,
    ),
    BackboneRecord(
        name="efficientnet_lite0",
        source="wheel",
        embedding=1280,
        stages=("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6", "top"),
        gmacs=0.39,
        weights_file="efficientnet-lite0-57934424.pth",
        parameters=3.4,
        bf16=False,
    ),
    # The trial's settings say what it is made of (see carcls.architecture); the figures are those of their defaults.
    BackboneRecord(name="scratch", source="scratch", gmacs=0.74, parameters=0.4),
)

TIMM_PREFIX = "timm:"


def find_backbone(name: str) -> BackboneRecord:
    """Return the record of ``name``; any ``timm:<model>`` is accepted unseen.

    Raises:
        InputError: the name is unknown; the message lists the known ones and the nearest.
    """
    for record in BACKBONES:
        if record.name == name:
            return record
    if name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX):
        return BackboneRecord(name, "timm")
    raise InputError(
        f"backbone must be a known name or timm:<model>, got {shown(name)}."
        + nearest(name, [record.name for record in BACKBONES])
    )
