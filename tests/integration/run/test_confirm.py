"""`--confirm` and `--refit` with a real Ray, from the command line to the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import run_carsweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Draw two classes that are hard to tell apart; return the folder around them."""
    folder = tmp_path_factory.mktemp("confirm")
    draw_tints(folder / "tints", 16, 6, size=(72, 72), tints=((90, 60, 60), (60, 60, 60)), noise=150)
    return folder


def command(folder: Path, *more: str) -> dict[str, Any]:
    """Run the sweep in ``folder`` to its end; return its object."""
    words = ["run", "transfer", "--data", str(folder / "tints"), "--out", str(folder / "runs"), "--name", "mine"]
    settings = ["--trials", "2", "--set", "backbone=efficientnet_lite0", "image_size=64", "batch_size=8", "epochs=1"]
    done = run_carsweep(folder, [*words, *settings, "experiments=[]", "--json", *more])
    assert done.code == 0, done.err
    return {**done.value, "stderr": done.err}


def test_a_sweep_that_is_done_is_confirmed_and_then_refitted(folder: Path) -> None:
    """The same command with --confirm adds the runs and chooses by them; with --refit it registers a new model of the
    winner's settings; each reading of the test images is counted, and without the options nothing is forgotten.
    """
    plain = command(folder)
    assert (plain["confirmed"], plain["best"]["confirms"], plain["test"]["readings"]) == ([], None, 1)
    assert len(plain["comparison"]) == 1
    confirmed = command(folder, "--confirm", "2x2")
    runs = [trial for trial in confirmed["trials"] if trial["confirms"] is not None]
    assert len(runs) == 4
    winner = confirmed["confirmed"][0]
    assert confirmed["best"]["confirms"] == winner["number"]
    assert confirmed["best"]["number"] in winner["runs"]
    assert confirmed["best"]["params"]["seed"] != 0
    scores = [trial["metrics"]["val_accuracy"] for trial in runs if trial["confirms"] == winner["number"]]
    assert winner["mean"] == pytest.approx(sum(scores) / 2)
    assert (confirmed["test"]["readings"], confirmed["test"]["models"]) == (2, 2)
    assert "no difference shown" in confirmed["stderr"]
    again = command(folder)
    assert again["confirmed"] == confirmed["confirmed"]
    assert again["registered"] == confirmed["registered"]
    refit = command(folder, "--refit")
    assert refit["test"]["refit"]
    assert refit["test"]["models"] == 3
    assert int(refit["registered"]["version"]) == int(confirmed["registered"]["version"]) + 1
    assert "so it has no validation score" in refit["stderr"]
    (folder / "runs" / "mine" / "result.json").write_text('{"sweep": "mi')
    after = command(folder)
    assert "result.json cannot be read" in after["stderr"]
    assert after["test"] == refit["test"]
    assert after["registered"]["version"] == refit["registered"]["version"]
