"""How many processes share a card, measured on it as a sweep does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sweeps.engine.probing import measure
from sweeps.engine.session import RaySession

LITE = {"backbone": "efficientnet_lite0", "image_size": 224, "batch_size": 32, "unfreezing": "full"}


@pytest.mark.gpu
def test_processes_on_a_card_tell_their_memory_and_their_speed(session: RaySession, tmp_path: Path) -> None:
    """Two take about as much each as one, their contexts included, of what is free; nobody is left on the card."""
    session.connect(tmp_path / "ray.log")
    torch.cuda.init()
    free = torch.cuda.mem_get_info()[0]
    readings = measure(LITE, tmp_path / "stages", most=2, all_counts=True)
    alone, both = readings[1], readings[2]
    assert min(alone.images_per_second, both.images_per_second) > 100
    assert 2**29 < alone.memory < 8 * 2**30
    assert both.memory == pytest.approx(alone.memory, rel=0.1)
    assert alone.card == pytest.approx(free, rel=0.05)
