"""Transfer: a pretrained backbone, dropout and a linear head, trained as the config says."""

from __future__ import annotations

from collections.abc import Iterable

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.families.classifying import evaluate_on_test, export, refit, run
from carcls.models.classifier import build_classifier
from carcls.models.weights import resolve_weights

__all__ = ["check_data", "evaluate_on_test", "export", "preflight", "refit", "run"]


def preflight(configs: Iterable[TrialConfig]) -> list[str]:
    """Build every backbone once with its weights; return what the user should know."""
    notes = []
    for config in {(config.backbone, config.weights, config.image_size): config for config in configs}.values():
        build_classifier(config, classes=1)
        if resolve_weights(config.backbone, config.weights).kind == "random":
            notes.append(f"{config.backbone} starts from random weights: nothing is transferred.")
    return notes


def check_data(configs: Iterable[TrialConfig], data: Dataset) -> None:
    """Accept every data set that could be read."""
