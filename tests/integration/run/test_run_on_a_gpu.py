"""A whole sweep on a fake GPU, from the command line: the trials are real and compute on the CPU (``fake_site``).

Not run on a card: what is shown is who takes the GPU, and with how much of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_card import GIB, Card, FakeCards
from helpers import run_carsweep

WORDS = (
    "run", "transfer", "--trials", "2", "--weights", "random", "--name", "on-a-gpu", "--gpus-per-trial", "0.25",
    "--refit", "--set", "image_size=32", "epochs=1", "backbone=efficientnet_lite0", "precision=auto",
)  # fmt: skip


def test_a_sweep_takes_a_gpu_in_its_trials_processes_only(
    fake_cards: FakeCards, draw_tints: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials, refit, test evaluation and export have a share; the command itself does not even load PyTorch.

    The card is busy, which is told. The test evaluation needs more than the share: it gets twice as much in another
    process, then all, is counted once, and the model is registered.
    """
    fake_cards.tell(Card(processes=((4242, "/usr/bin/python", 60 * GIB),)))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "fake_site"), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_TEST_MIB", str(75 * GIB))
    data = draw_tints(tmp_path / "pictures", 6, 2)
    done = run_carsweep(tmp_path, [*WORDS, "--data", str(data), "--json"])
    assert done.code == 0, done.err
    assert done.err.count("GPU 0 (NVIDIA H200) has 80 of 140 GiB free: python (pid 4242) holds 60 GiB; ") == 1
    for more in ("0.5 of a GPU", "a whole GPU"):
        assert done.err.count(f"out of memory after the trials; trying again with {more}") == 1
    told = fake_cards.told
    loaded = [event["value"] for event in told if event["event"] == "loaded"]
    assert len(loaded) >= 3
    assert not any("sweeps.cli" in words for words in loaded)
    assert {event["value"] for event in told if event["event"] == "picked"} == {"cuda"}
    assert [*dict.fromkeys(event["value"] for event in told if event["event"] == "limit")] == [0.25, 0.5, 1.0]
    assert {event["visible"] for event in told} == {"0"}
    result = json.loads(done.out)
    assert result["registered"]
    assert (result["test"]["evaluations"], result["test"]["refit"]) == (1, True)
    assert all(trial["status"] == "complete" for trial in result["trials"])
