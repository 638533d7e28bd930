"""Objectives and constraints from the command line, on the demo cars, with real Ray, Optuna and MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run_carsweep

from sweeps.spec.objectives import Goals

pytestmark = pytest.mark.slow
SMALL = ["--set", "epochs=1", "image_size=32", "unfreezing=frozen", "search.backbone=[efficientnet_lite0,resnet50]"]


def run(folder: Path, name: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """Run a small retrieval sweep of random networks; return its exit code, its object and its stderr."""
    words = ["run", "retrieval", "--out", str(folder), "--name", name, "--weights", "random", "--seed", "2", "--json"]
    done = run_carsweep(folder, [*words, *SMALL, *more])
    return done.code, done.value, done.err


def test_two_objectives_and_limits_end_to_end(tmp_path: Path) -> None:
    """The front is that of the metrics, nothing too large runs, and where nothing fits nothing is registered."""
    asked = ["--objective", "accuracy,predict_time", "--constraint", "parameters <= 10M", "--trials", "6"]
    code, result, err = run(tmp_path, "two", *asked)
    assert code == 0, err
    assert "Early stopping is off" in err
    assert "Pareto front of accuracy and predict_time" in err
    complete = {t["number"]: t["metrics"] for t in result["trials"] if t["status"] == "complete"}
    goals = Goals.parse(result["objectives"], result["constraints"])
    front = [complete[number] for number in result["pareto"]]
    assert result["best"]["metrics"]["val_accuracy"] == max(metrics["val_accuracy"] for metrics in complete.values())
    assert result["best"]["number"] in result["pareto"]
    for metrics in complete.values():
        assert any(all(o.loss(best[o.metric]) <= o.loss(metrics[o.metric]) for o in goals.objectives) for best in front)
    refused = [trial for trial in result["trials"] if trial["status"] == "pruned"]
    assert all(trial["epochs"] == 0 and "parameters 23.5M > 10.0M" in trial["reason"] for trial in refused)
    assert all(metrics["parameters"] < 10e6 for metrics in complete.values())
    board = json.loads((tmp_path / "two" / "leaderboard.json").read_text(encoding="utf-8"))
    assert board["pareto"] == result["pareto"]

    assert run(tmp_path, "two", *asked)[1] == result
    code, _, err = run(tmp_path, "two", *asked[:2], "--constraint", "parameters <= 5M", "--trials", "6")
    assert (code, "begun with other settings" in err) == (2, True)

    code, nothing, err = run(tmp_path, "none", "--constraint", "predict_ms <= 0.001ms", "--trials", "3")
    assert (code, nothing["best"], nothing["registered"], nothing["test"]) == (1, None, None, None)
    assert "No trial keeps the constraints (predict_ms <= 0.001" in err
    assert "The nearest was trial" in err
