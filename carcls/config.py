"""What a trial is: its settings and its seed, validated once when built, with a digest.

The names are flat on purpose: a setting is called the same on the command line (``--set dropout=0.3``), in a spec,
on the leaderboard and in MLflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from carcls.catalog import BACKBONES, FAMILIES, find_backbone, find_family
from carcls.errors import InputError
from carcls.unfreezing import NAMED, parse_unfreezing, stays_frozen

Optimizer = Literal["adam", "adamw", "sgd"]
LrSchedule = Literal["constant", "step", "cosine", "onecycle"]
Crop = Literal["none", "random", "resized"]
Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["cross_entropy", "cosine"]
Stem = Literal["none", "stride2", "resnet"]
HeadPooling = Literal["flatten", "average", "max"]
Pooling = Literal["average", "max", "gem"]
Whitening = Literal["none", "pca", "lda"]
Distance = Literal["euclidean", "cosine"]
Vote = Literal["uniform", "distance", "softmax"]

# The network that is trained from scratch.
SCRATCH = "scratch"


class Part(Enum):
    """What a setting is about, where not every trial has it: in the metadata of its field.

    Attributes:
        PRETRAINED: a backbone with weights, which is unfrozen.
        ARCHITECTURE: the network that is trained from scratch.
        TRAINING: what only a training notices; where none takes place, it cannot matter.
        NEIGHBOURS: how embeddings become answers; no training depends on it.
    """

    PRETRAINED = "pretrained"
    ARCHITECTURE = "architecture"
    TRAINING = "training"
    NEIGHBOURS = "neighbours"


def digest_of(value: Any, length: int = 16) -> str:
    """Return ``length`` hexadecimal digits of SHA-256 over the canonical JSON of ``value``.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that refuses the texts that ``check`` raises for, and leaves the others as they are."""

    def checked(text: str) -> str:
        try:
            check(text)
        except InputError as error:
            raise ValueError(str(error)) from None  # which pydantic collects
        return text

    return AfterValidator(checked)


def _forms(*values: str) -> Any:
    """Return what names the values of a text, for whoever asks for its schema; what a user fills in is in capitals."""
    return Field(json_schema_extra={"enum": [*values]})


Family = Annotated[str, _checked_by(find_family)]


class TrialConfig(BaseModel):
    """One trial. Defaults are the documented shared settings of the transfer family.

    What is said of a setting here is what ``carsweep explain`` tells of it.

    Attributes:
        family: which family runs it.
        seed: everything random in the trial comes from it.
        backbone: the network before the head; ``timm:MODEL`` is any that timm has, ``scratch`` the convolutional one
            that the settings from depth to head_pooling describe.
        weights: of the backbone: ``auto`` (pretrained), ``random``, or a path to a state dict or a folder with one.
        image_size: side of the square input in pixels.
        dropout: probability before the linear head.
        unfreezing: which stages of the backbone train from which epoch on. ``frozen`` is none, ``full`` all,
            ``progressive`` one more at a time until half of the epochs; ``2:1,6:all`` is the last stage from epoch 2 on
            and all from 6.
        optimizer: what takes the steps of the training.
        momentum: share of its last step that SGD keeps.
        head_lr: peak learning rate of the head, or of all that is trained from scratch.
        backbone_lr: peak learning rate of the backbone, once it is unfrozen.
        weight_decay: as the optimizer defines it (L2 for Adam and SGD, decoupled for AdamW).
        lr_schedule: how the learning rates change over a training. ``step`` multiplies by step_gamma every step_epochs;
            ``cosine`` decays to zero after warmup_epochs of linear warm-up; ``onecycle`` rises for 30% of the steps and
            falls to zero.
        step_epochs: epochs after which the learning rates are multiplied by step_gamma.
        step_gamma: what they are multiplied by.
        warmup_epochs: epochs in which the learning rates rise from zero.
        label_smoothing: share of the target spread over all classes.
        clip_norm: gradient norm is cut to this; 0 cuts nothing.
        crop: which part of a training image is seen. ``random`` takes a 7/8 window at a random place (what Resize(256)
            then RandomCrop(224) does); ``resized`` takes a window of crop_scale…1 of the area with aspect 3/4…4/3; both
            are resized to image_size.
        crop_scale: least share of the area that a ``resized`` crop takes.
        flip: mirror half of the images.
        rotation: largest angle in degrees, either way.
        jitter: largest relative change of brightness, contrast and saturation.
        augmentation_strength: multiplies crop, flip, rotation and jitter; 0 is no augmentation at all, 1 as written.
        loss: what the training minimizes: ``cross_entropy``, or ``cosine``: cosine loss plus a tenth of cross entropy
            (Barz and Denzler 2020).
        epochs: passes over the training images.
        batch_size: images of one step of the training.
        micro_batch: a batch goes through the network in parts of at most so many images, whose gradients are added up
            before the step (of 2, an odd batch has a part of 3); None takes it whole. Without dropout and BatchNorm the
            step is the same; BatchNorm takes its statistics of each part, so the trained model is another, and has a
            stage of its own. A trial that ran out of memory is tried again with it.
        processes: among them each batch is divided (torch's DistributedDataParallel) once the backbone is unfrozen.
            With GPUs it is the number of those that a trial gets, one for each process (``--gpus-per-trial``). Each
            part is an equal share of the batch, and cut further by micro_batch; the step is that of the whole batch.
            BatchNorm takes its statistics of each part, and dropout draws other masks, so the trained model is another
            one, with a stage of its own.
        sync_batch_norm: with several processes on GPUs, let BatchNorm take its statistics of all parts.
        precision: number format of the network. ``auto`` uses bf16 autocast where a measurement on the machine shows it
            to be faster. ``fp32`` is float32 on GPUs too, without TF32.
        depth: convolutional blocks of the scratch network, each halving the picture's side.
        width: channels of its first block; each further block has twice as many, at most 512.
        batch_norm: BatchNorm after each of its convolutions.
        residual: a second convolution in each block, and a shortcut around both.
        stem: what comes before the blocks: nothing, a 3×3 convolution with stride 2, or ResNet's 7×7 and pooling.
        head_pooling: how its last feature map becomes an embedding: laid out flat, or pooled globally.
        pooling: of the extractor's last feature map into an embedding; the training always uses the network's own,
            which is the average.
        l2_normalize: bring embeddings to length 1.
        whitening: of embeddings, by ``pca`` or ``lda``, fitted on the gallery alone, before the normalisation.
        whitening_dim: components that whitening keeps, at most as many as there are.
        k: neighbours that vote.
        distance: how far embeddings lie apart: ``euclidean``, or ``cosine`` (1 - cosine similarity).
        vote: weight of a neighbour: the same for all, 1 / distance, or exp(-distance / temperature).
        temperature: of the softmax vote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    family: Family = "transfer"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    backbone: Annotated[str, _checked_by(find_backbone), _forms(*BACKBONES, "timm:MODEL"), Part.PRETRAINED] = "resnet50"
    weights: Annotated[str, _forms("auto", "random", "PATH"), Part.PRETRAINED] = "auto"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 224
    dropout: Annotated[float, Field(ge=0.0, le=0.95), Part.TRAINING] = 0.0
    unfreezing: Annotated[str, _checked_by(parse_unfreezing), _forms(*NAMED, "EPOCH:STAGES"), Part.PRETRAINED] = (
        "frozen"
    )
    optimizer: Annotated[Optimizer, Part.TRAINING] = "adam"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0), Part.TRAINING] = 0.9
    head_lr: Annotated[float, Field(gt=0.0, le=10.0), Part.TRAINING] = 1e-3
    backbone_lr: Annotated[float, Field(gt=0.0, le=10.0), Part.PRETRAINED, Part.TRAINING] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0), Part.TRAINING] = 0.0
    lr_schedule: Annotated[LrSchedule, Part.TRAINING] = "step"
    step_epochs: Annotated[int, Field(ge=1, le=10_000), Part.TRAINING] = 7
    step_gamma: Annotated[float, Field(gt=0.0, le=1.0), Part.TRAINING] = 0.1
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000), Part.TRAINING] = 0
    loss: Annotated[Loss, Part.TRAINING] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0), Part.TRAINING] = 0.0
    clip_norm: Annotated[float, Field(ge=0.0, allow_inf_nan=False), Part.TRAINING] = 0.0
    crop: Annotated[Crop, Part.TRAINING] = "none"
    crop_scale: Annotated[float, Field(gt=0.0, le=1.0), Part.TRAINING] = 0.35
    flip: Annotated[bool, Part.TRAINING] = False
    rotation: Annotated[float, Field(ge=0.0, le=180.0), Part.TRAINING] = 0.0
    jitter: Annotated[float, Field(ge=0.0, lt=1.0), Part.TRAINING] = 0.0
    augmentation_strength: Annotated[float, Field(ge=0.0, le=3.0), Part.TRAINING] = 1.0
    epochs: Annotated[int, Field(ge=1, le=10_000), Part.TRAINING] = 10
    batch_size: Annotated[int, Field(ge=1, le=4096), Part.TRAINING] = 32
    micro_batch: Annotated[Annotated[int, Field(ge=1, le=4096)] | None, Part.TRAINING] = None
    processes: Annotated[int, Field(ge=1, le=1024), Part.TRAINING] = 1
    sync_batch_norm: Annotated[bool, Part.TRAINING] = False
    precision: Precision = "auto"
    depth: Annotated[int, Field(ge=1, le=7), Part.ARCHITECTURE] = 4
    width: Annotated[int, Field(ge=4, le=256), Part.ARCHITECTURE] = 32
    batch_norm: Annotated[bool, Part.ARCHITECTURE] = False
    residual: Annotated[bool, Part.ARCHITECTURE] = False
    stem: Annotated[Stem, Part.ARCHITECTURE] = "none"
    head_pooling: Annotated[HeadPooling, Part.ARCHITECTURE] = "flatten"
    pooling: Annotated[Pooling, Part.NEIGHBOURS] = "average"
    l2_normalize: Annotated[bool, Part.NEIGHBOURS] = False
    whitening: Annotated[Whitening, Part.NEIGHBOURS] = "none"
    whitening_dim: Annotated[int, Field(ge=1, le=8192), Part.NEIGHBOURS] = 256
    k: Annotated[int, Field(ge=1, le=100_000), Part.NEIGHBOURS] = 10
    distance: Annotated[Distance, Part.NEIGHBOURS] = "euclidean"
    vote: Annotated[Vote, Part.NEIGHBOURS] = "uniform"
    temperature: Annotated[float, Field(gt=0.0, le=100.0), Part.NEIGHBOURS] = 0.07

    @property
    def is_from_scratch(self) -> bool:
        """Whether all of the network is trained, from random weights."""
        return not FAMILIES[self.family].pretrained or self.backbone == SCRATCH

    @property
    def has_neighbours(self) -> bool:
        """Whether the neighbours of its embeddings answer, in place of a head."""
        return FAMILIES[self.family].neighbours

    @property
    def trains_backbone(self) -> bool:
        """Whether more than a head is trained at any time."""
        return self.is_from_scratch or not stays_frozen(self.unfreezing, self.epochs)

    @property
    def augments(self) -> bool:
        """Whether training images are changed at all."""
        return self.augmentation_strength > 0 and (
            self.crop != "none" or self.flip or self.rotation > 0 or self.jitter > 0
        )

    @property
    def trains(self) -> bool:
        """Whether anything is trained at all: neighbours also answer where the extractor stays as it was."""
        return not self.has_neighbours or self.unfreezing != "frozen" or self.is_from_scratch

    def neutral(self) -> frozenset[str]:
        """Return the settings that cannot matter in this trial, whatever their values; ``MATTERS`` has the rules."""
        return frozenset(name for names, _, is_so in MATTERS if not is_so(self) for name in names)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm; that of a backbone is taken for granted."""
        return self.backbone != SCRATCH or self.batch_norm

    def canonical(self) -> dict[str, Any]:
        """Return the settings with those that cannot matter set to their defaults, so that equal trials are equal."""
        neutral = self.neutral()
        settings: dict[str, Any] = self.model_dump()
        for name in HOW_COMPUTED:  # so that digests are those of before there were any
            if name in neutral or settings[name] == default_of(name):
                del settings[name]
        return {name: default_of(name) if name in neutral else value for name, value in settings.items()}

    def training(self) -> TrialConfig:
        """Return the trial as its training sees it: whoever trains alike, in whatever family, gets an equal config.

        What only comes into play after training has its default; what is trained from scratch is unfrozen from the
        start, with one learning rate for everything.
        """
        changes: dict[str, Any] = {name: default_of(name) for name in ("family", *NEIGHBOUR_SETTINGS)}
        if self.is_from_scratch:
            changes |= {"unfreezing": "full", "backbone_lr": self.head_lr}
        return self.model_copy(update=changes)  # defaults, and a rate that was checked

    def training_settings(self) -> dict[str, Any]:
        """Return what of the settings the trained model depends on; with data and weights they are its key."""
        settings = self.training().canonical()
        return {name: value for name, value in settings.items() if name not in _NOT_OF_TRAINING}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that two trials share exactly when their canonical settings agree."""
        return digest_of(self.canonical())

    def architecture(self) -> dict[str, Any]:
        """Return the settings that describe the scratch network; none for a backbone whose name says what it is."""
        return {name: getattr(self, name) for name in ARCHITECTURE_SETTINGS} if self.backbone == SCRATCH else {}

    def network(self) -> TrialConfig:
        """Return the trial reduced to what decides which network it needs, with which weights."""
        names = ("backbone", "weights", "image_size")
        return TrialConfig.model_construct(**{name: getattr(self, name) for name in names}, **self.architecture())


def settings_of(part: Part) -> tuple[str, ...]:
    """Return the settings that are about a part of a trial, in their order.

    >>> settings_of(Part.PRETRAINED)
    ('backbone', 'weights', 'unfreezing', 'backbone_lr')
    """
    return tuple(name for name, field in TrialConfig.model_fields.items() if part in field.metadata)


ARCHITECTURE_SETTINGS = settings_of(Part.ARCHITECTURE)
NEIGHBOUR_SETTINGS = settings_of(Part.NEIGHBOURS)
# Settings that matter in some trials only: which, in which trials in words, and the same of a trial. The words name
# settings as they are called.
MATTERS: tuple[tuple[tuple[str, ...], str, Callable[[TrialConfig], bool]], ...] = (
    (("weights",), "backbone is not scratch", lambda t: t.backbone != SCRATCH),
    (ARCHITECTURE_SETTINGS, "backbone is scratch", lambda t: t.backbone == SCRATCH),
    (("unfreezing",), "backbone is not scratch", lambda t: not t.is_from_scratch),
    (("backbone_lr",), "unfreezing is not frozen", lambda t: not t.is_from_scratch and t.unfreezing != "frozen"),
    (settings_of(Part.TRAINING), "something is trained: not in retrieval with unfreezing=frozen", lambda t: t.trains),
    (("processes",), "more than a head is trained: unfreezing is not frozen", lambda t: t.trains_backbone),
    (
        ("sync_batch_norm",),
        "processes is above 1, and what they train has BatchNorm",
        lambda t: t.processes > 1 and t.trains_backbone and t.has_batch_norm,
    ),
    (
        ("crop", "flip", "rotation", "jitter", "augmentation_strength"),
        "augmentation_strength is above 0, and crop, flip, rotation or jitter change images",
        lambda t: t.augments,
    ),
    (
        ("crop_scale",),
        "crop is resized, and augmentation_strength above 0",
        lambda t: t.augments and t.crop == "resized",
    ),
    (("momentum",), "optimizer is sgd", lambda t: t.optimizer == "sgd"),
    (("step_epochs", "step_gamma"), "lr_schedule is step", lambda t: t.lr_schedule == "step"),
    (("warmup_epochs",), "lr_schedule is cosine", lambda t: t.lr_schedule == "cosine"),
    (NEIGHBOUR_SETTINGS, "neighbours answer, as in retrieval", lambda t: t.has_neighbours),
    (("whitening_dim",), "whitening is not none", lambda t: t.whitening != "none"),
    (("temperature",), "vote is softmax", lambda t: t.vote == "softmax"),
)
# What says how a step is computed: left out of canonical settings where it has its default, or cannot matter.
HOW_COMPUTED = ("micro_batch", "processes", "sync_batch_norm")
# The weights are named by their digest, and the family that asks does not matter.
_NOT_OF_TRAINING = ("family", "weights", *NEIGHBOUR_SETTINGS)


def default_of(name: str) -> Any:
    """Return the default of a trial's setting.

    >>> default_of("k")
    10
    """
    return TrialConfig.model_fields[name].default
