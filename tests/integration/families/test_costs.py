"""What answering costs: counted on the real network, timed once, and part of every complete trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_trials import one_thread

from carcls.config import TrialConfig
from carcls.families import known_costs
from carcls.models.classifier import build_classifier
from carcls.stages import StageStore
from carcls.training import measured
from carcls.training.measured import costs_of, count_parameters

SMALL = TrialConfig(backbone="scratch", image_size=32, depth=2, width=8)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        SMALL.model_copy(update={"residual": True, "batch_norm": True, "stem": "resnet", "head_pooling": "average"}),
        SMALL.model_copy(update={"image_size": 64}),
        TrialConfig(backbone="efficientnet_lite0", image_size=32, weights="random"),
        TrialConfig(backbone="timm:resnet10t", image_size=32, weights="random", dropout=0.4),
    ],
    ids=str,
)
def test_parameters_are_those_of_the_network_that_is_trained(config: TrialConfig) -> None:
    """The count that is known before a trial is that of the classifier it builds, with its head for the classes."""
    built = sum(part.numel() for part in build_classifier(config, classes=7).parameters())
    assert known_costs(config, 7) == {"parameters": built}
    head = (build_classifier(config, classes=7).backbone.embedding + 1) * 7
    assert known_costs(config.model_copy(update={"family": "retrieval"}), 7) == {"parameters": built - head}


def test_resnet50_has_its_published_parameters() -> None:
    """torchvision gives 25,557,032 parameters for ResNet-50 with a head for 1,000 classes."""
    assert count_parameters(TrialConfig(backbone="resnet50"), 1000) == 25_557_032


def test_a_network_is_timed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that differ in training alone share the measurement, and build no network for it."""
    stages = StageStore(tmp_path)
    first = costs_of(SMALL, 5, stages)
    monkeypatch.setattr(measured, "build_network", lambda _: pytest.fail("a network was built again"))
    again = costs_of(SMALL.model_copy(update={"dropout": 0.5, "head_lr": 0.1, "epochs": 3}), 5, stages)
    assert again == first
    assert first["predict_ms"] > 0
    assert first["parameters"] == count_parameters(SMALL, 5)


def test_time_grows_with_the_picture(tmp_path: Path) -> None:
    """Sixty-four times the pixels take longer, whatever else the machine does."""
    stages = StageStore(tmp_path)
    sides = [SMALL.model_copy(update={"width": 32, "image_size": side}) for side in (32, 256)]
    with one_thread():
        small, large = (costs_of(config, 0, stages)["predict_ms"] for config in sides)
    assert large > 4 * small
