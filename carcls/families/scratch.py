"""Scratch: a convolutional network trained from nothing."""

from __future__ import annotations

from collections.abc import Iterable

from carcls.config import SCRATCH, TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import InputError
from carcls.families.classifying import evaluate_on_test, export, refit, run
from carcls.models.classifier import build_classifier

__all__ = ["check_data", "evaluate_on_test", "export", "preflight", "refit", "run"]


def preflight(configs: Iterable[TrialConfig]) -> list[str]:
    """Build every network once, so that one that its images are too small for is found before the sweep.

    Raises:
        InputError: a network would start from weights, or halves its images away.
    """
    for config in configs:
        _require_random(config)
        build_classifier(config, classes=1)
    return []


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


def check_data(configs: Iterable[TrialConfig], data: Dataset) -> None:
    """Accept every data set that could be read."""
