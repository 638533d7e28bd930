"""What can be said of trials before anything expensive starts, without loading torch where nothing is in doubt.

A network of the catalog with its published weights, or with random ones, fits every image size that a trial can have.
Any other is built once, which loads torch and perhaps timm for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from carcls.catalog import find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import InputError
from carcls.models.weights import WeightsSource, are_official, resolve_weights
from carcls.unfreezing import ONE_IMAGE_REFUSED, open_stages, stays_frozen


def preflight(configs: Iterable[TrialConfig]) -> list[str]:
    """Check, before anything expensive starts, that what the trials need can be had; return notes for the user.

    Raises:
        WeightsError: pretrained weights cannot be had.
        InputError: a backbone is unknown to timm, does not fit the image size, cannot pool as the trial asks, or cannot
            train on batches of one image.
    """
    notes: list[str] = []
    for config in {c.digest: c for c in configs}.values():
        if config.family == "scratch":
            _require_random(config)
        weights = resolve_weights(config.backbone, config.weights)
        _check_network(_network_of(config), weights)
        _check_batches(config)
        note = f"{config.backbone} starts from random weights: nothing is transferred."
        if config.family != "scratch" and weights.kind == "random" and note not in notes:
            notes.append(note)
    return notes


def check_data(configs: Iterable[TrialConfig], data: Dataset) -> None:
    """Check, before anything is trained, that the trials' settings fit the data set.

    Raises:
        InputError: a trial asks for more neighbours than the gallery holds.
    """
    held = len(data.splits.train)
    for config in configs:
        if config.family == "retrieval" and config.k > held:
            raise InputError(
                f"k must be at most {held}, the training images that form the gallery, got {config.k!r}. Lower k."
            )


def _network_of(config: TrialConfig) -> TrialConfig:
    """Return the trial reduced to what decides which network it needs."""
    names = ("backbone", "weights", "image_size", "pooling")
    return TrialConfig(**{name: getattr(config, name) for name in names}, **config.architecture())


@lru_cache(maxsize=256)
def _check_network(network: TrialConfig, weights: WeightsSource) -> None:
    """Build it once, however many trials use it, unless it is known to work; other weights are another key."""
    catalogued = find_backbone(network.backbone).embedding > 0
    if catalogued and (weights.kind == "random" or are_official(network.backbone, weights)):
        return
    from carcls.models.classifier import build_classifier
    from carcls.models.pooling import require_pooling

    require_pooling(network, build_classifier(network, classes=1).backbone)


def _check_batches(config: TrialConfig) -> None:
    """Refuse batches of one image where the network, as far as it is ever opened, cannot train on them."""
    training = config.training()
    if training.batch_size > 1 or stays_frozen(training.unfreezing, training.epochs):
        return
    names = ("backbone", "image_size", "unfreezing", "epochs")
    network = TrialConfig(**{name: getattr(training, name) for name in names}, **training.architecture())
    if not _trains_on_one_image(network):
        raise InputError(ONE_IMAGE_REFUSED.format(backbone=network.backbone, side=network.image_size))


@lru_cache(maxsize=256)
def _trains_on_one_image(network: TrialConfig) -> bool:
    from carcls.models.classifier import build_classifier
    from carcls.models.unfreeze import open_backbone, trains_on_one_image

    classifier = build_classifier(network.with_settings({"weights": "random"}), classes=1)
    stages = len(classifier.backbone.stage_modules)
    open_backbone(classifier, open_stages(network.unfreezing, network.epochs - 1, network.epochs, stages))
    return trains_on_one_image(classifier.backbone, network.image_size)


def _require_random(config: TrialConfig) -> None:
    """Refuse weights, which would be loaded for another backbone and ignored by ``scratch``."""
    if config.weights == "random" or (config.backbone == SCRATCH and config.weights == "auto"):
        return
    if config.backbone == SCRATCH:
        raise InputError(
            f"weights must be random for a network that is trained from nothing, got {config.weights!r}. "
            "Leave --weights out."
        )
    raise InputError(
        f"backbone must be {SCRATCH}, or have random weights, in the scratch family, got {config.backbone!r} with "
        f"weights {config.weights!r}. Use --set backbone={SCRATCH} or --weights random; or carsweep run transfer."
    )
