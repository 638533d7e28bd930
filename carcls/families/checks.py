"""What can be said of trials before anything expensive starts, without loading torch where nothing is in doubt."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from carcls.catalog import BackboneRecord
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.models.networks import Network, know_network
from carcls.models.weights import LATER, RANDOM
from carcls.unfreezing import ONE_IMAGE_REFUSED, open_stages, stays_frozen


def preflight(
    configs: Iterable[TrialConfig], store: Path, *, download: bool = True
) -> tuple[list[str], dict[str, BackboneRecord]]:
    """Check, before anything expensive starts, that what the trials need can be had.

    Args:
        configs: of the trials.
        store: folder of the stages, where it is kept what networks are.
        download: whether weights that can only be downloaded are fetched now.

    Returns:
        Notes for the user, and the figures of each backbone by name.

    Raises:
        WeightsError: pretrained weights cannot be had.
        InputError: a backbone is unknown to timm, does not fit the image size, cannot pool as the trial asks, or cannot
            train on batches of one image.
    """
    notes: list[str] = []
    known: dict[TrialConfig, Network] = {}
    for config in {c.digest: c for c in configs}.values():
        if config.family == "scratch":
            _require_random(config)
        needed = config.network()
        network = known.get(needed) or know_network(needed, store, download=download)
        known[needed] = network
        _require_pooling(config, network)
        _check_batches(config)
        notes += [note for note in _notes_of(config, network) if note not in notes]
    return notes, {config.backbone: network.record for config, network in known.items()}


def _notes_of(config: TrialConfig, network: Network) -> list[str]:
    if network.weights == LATER:
        return [f"The weights of {config.backbone} are not on this machine yet; the sweep downloads them first."]
    if config.family != "scratch" and network.weights == RANDOM:
        return [f"{config.backbone} starts from random weights: nothing is transferred."]
    return []


def _require_pooling(config: TrialConfig, network: Network) -> None:
    if config.pooling not in network.poolings:
        raise InputError(
            f"pooling must be average for {config.backbone}, which has no feature maps to pool, got "
            f"{config.pooling!r}. Use --set pooling=average, or another backbone."
        )


def _check_batches(config: TrialConfig) -> None:
    """Refuse batches of one image where the network, as far as it is ever opened, cannot train on them."""
    training = config.training()
    if training.batch_size > 1 or stays_frozen(training.unfreezing, training.epochs):
        return
    random = training.network().model_copy(update={"weights": "random"})
    if not _trains_on_one_image(random, training.unfreezing, training.epochs):
        raise InputError(ONE_IMAGE_REFUSED.format(backbone=training.backbone, side=training.image_size))


@lru_cache(maxsize=256)
def _trains_on_one_image(network: TrialConfig, unfreezing: str, epochs: int) -> bool:
    from carcls.models.classifier import build_classifier, trains_on_one_image

    classifier = build_classifier(network, classes=1)
    stages = len(classifier.backbone.stage_paths)
    classifier.open_backbone(open_stages(unfreezing, epochs - 1, epochs, stages))
    return trains_on_one_image(classifier.backbone, network.image_size)


def _require_random(config: TrialConfig) -> None:
    """Refuse weights, which would be loaded for another backbone and ignored by ``scratch``."""
    if config.weights == "random" or (config.backbone == SCRATCH and config.weights == "auto"):
        return
    if config.backbone == SCRATCH:
        raise InputError(
            f"weights must be random for a network that is trained from scratch, got {config.weights!r}. "
            "Leave --weights out."
        )
    raise InputError(
        f"backbone must be {SCRATCH}, or have random weights, in the scratch family, got {config.backbone!r} with "
        f"weights {config.weights!r}. Use --set backbone={SCRATCH} or --weights random; or carsweep run transfer."
    )
