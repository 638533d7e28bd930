"""Steps as several trials on a GPU take them, here on the CPU: real networks, batches and optimizers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from carcls.training import shared
from carcls.training.shared import BATCHES, steps

LITE = {"backbone": "efficientnet_lite0", "image_size": 64, "batch_size": 4, "precision": "fp32", "unfreezing": "full"}
SMALL = {"backbone": "scratch", "image_size": 32, "batch_size": 6, "micro_batch": 2, "unfreezing": "full", "depth": 2}
FROZEN = {**LITE, "precision": "auto", "unfreezing": "frozen"}


@pytest.fixture(autouse=True)
def _one_epoch_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time single epochs; threads that wait for each other on a busy machine would take minutes."""
    monkeypatch.setattr(shared, "SECONDS", 1e-9)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("load", [LITE, SMALL, FROZEN])
def test_the_speed_is_that_of_whole_epochs(load: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is timed until all is prepared; then images over seconds are those of an epoch, and no GPU is held."""
    found = steps(load, tmp_path)
    assert next(found)["images_per_second"] == 0.0
    start = time.perf_counter()
    told = next(found)
    seconds = time.perf_counter() - start
    assert told["images_per_second"] * seconds == pytest.approx(BATCHES * load["batch_size"], rel=0.2)
    assert (told["peak"], told["held"], told["free"]) == (0.0, 0.0, 0.0)


def test_a_backbone_that_stays_frozen_costs_its_head(tmp_path: Path) -> None:
    """Its steps are many times as fast as those of one that trains."""
    frozen, full = (steps(load, tmp_path) for load in (FROZEN, LITE))
    fastest = [max(next(found)["images_per_second"] for _ in range(4)) for found in (frozen, full)]
    assert fastest[0] > 5 * fastest[1]
