"""`carsweep reproduce` from the command line to its tables: real Ray, Optuna and MLflow, tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Done, run_carsweep, stages_made

NAMES = ["transfer/frozen", "retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean", "scratch/basic"]
SMALL = ["image_size=32", "batch_size=8", "epochs=1", "width=4"]
MEASURES = {"accuracy", "f1", "precision", "recall"}


def run(folder: Path, *words: str, sets: str, stop_at: str | None = None) -> Done:
    """Run the command in ``folder``."""
    command = ["reproduce", *words, "--data", "tints", "--name", "mine", "--set", *SMALL, sets]
    return run_carsweep(folder, command, stop_at=stop_at)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Return a folder with a data set."""
    folder = tmp_path_factory.mktemp("reproduction")
    draw_tints(folder / "tints", 11, 4)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Done:
    """Reproduce four experiments of all families."""
    return run(folder, "--json", *NAMES, sets="backbone=efficientnet_lite0")


def test_an_experiment_that_was_not_run_has_a_row_and_exit_code_1(
    tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Without time to start, the tables are there all the same and say so."""
    draw_tints(tmp_path / "tints", 11, 4)
    late = run(tmp_path, "--json", "scratch/basic", sets="hours=0.0000001")
    assert late.code == 1, late.err
    (row,) = late.value["comparisons"]
    assert (row["measured"], row["status"], row["reason"]) == ({}, "missing", "it was not run")
    assert late.value["best"] == {}
    assert "basic: no result: it was not run." in (tmp_path / "runs/mine/reproduction.md").read_text()


def test_each_experiment_is_measured_beside_its_documented_numbers(finished: Done) -> None:
    """Every experiment has the documentation's measures on all test images, within their interval."""
    assert finished.code == 0, finished.err
    rows = {row["name"]: row for row in finished.value["comparisons"]}
    assert list(rows) == NAMES
    assert finished.value["images"]["test"] == 12
    for name, row in rows.items():
        extra = {"fit_seconds", "predict_seconds"} if name.startswith("retrieval/") else {"loss"}
        assert set(row["measured"]) == MEASURES | extra
        low, high = row["interval"]
        assert 0 <= low <= row["measured"]["accuracy"] <= high <= 1
        assert row["measured"]["recall"] == pytest.approx(row["measured"]["accuracy"])
    assert rows["scratch/basic"]["documented"]["accuracy"] == 0.0888


def test_the_best_of_a_family_is_the_best_on_validation(finished: Done) -> None:
    """Test images choose nothing; changes have both values."""
    rows, best = finished.value["comparisons"], finished.value["best"]
    assert rows[0]["changed"]["backbone"] == ["resnet50", "efficientnet_lite0"]
    assert (best["transfer"], best["scratch"]) == ("transfer/frozen", "scratch/basic")
    scores = {row["name"]: row["validation_accuracy"] for row in rows if row["family"] == "retrieval"}
    assert scores[best["retrieval"]] == max(scores.values())


def test_images_are_read_once_what_is_equal_trains_once_and_nothing_is_registered(finished: Done, folder: Path) -> None:
    """One reading of each experiment, none of a winner; the two ResNet experiments have one extractor."""
    assert finished.code == 0
    assert stages_made(folder / "runs", "training") == 3
    for family, count in (("transfer", 1), ("retrieval", 2), ("scratch", 1)):
        sweep = folder / "runs" / f"mine-{family}"
        readings = [json.loads(file.read_text())["readings"] for file in sweep.glob("test-*.json")]
        assert readings == [1] * count
        result = json.loads((sweep / "result.json").read_text())
        assert (result["test"], result["registered"]) == (None, None)
        assert not (sweep / "model").exists()


def test_the_same_command_again_computes_nothing_and_prints_the_tables(finished: Done, folder: Path) -> None:
    """The tables are those of the first time, from what is on disk."""
    kept = {name: (folder / "runs" / "mine" / name).read_text() for name in ("reproduction.md", "reproduction.json")}
    assert json.loads(kept["reproduction.json"]) == finished.value
    made = stages_made(folder / "runs")
    again = run(folder, *NAMES, sets="backbone=efficientnet_lite0")
    assert again.code == 0, again.err
    assert again.out.startswith(kept["reproduction.md"])
    assert stages_made(folder / "runs") == made
    assert {name: (folder / "runs" / "mine" / name).read_text() for name in kept} == kept


@pytest.mark.slow
def test_interrupted_reproduction_goes_on(tmp_path: Path, draw_tints: Callable[..., Path]) -> None:
    """Ctrl-C exits with 130 and prints the command that goes on, which finishes what is left."""
    draw_tints(tmp_path / "tints", 11, 4)
    words = ["--json", "scratch/basic", "scratch/regularized", "--concurrency", "1"]
    stopped = run(tmp_path, *words, sets="epochs=400", stop_at="epoch 2/")
    assert (stopped.code, stopped.value) == (130, {"error": "interrupted"}), stopped.err
    assert "resume mine" in stopped.err
    assert not (tmp_path / "runs" / "mine" / "reproduction.json").exists()
    done = run(tmp_path, *words, sets="epochs=400")
    assert done.code == 0, done.err
    assert all(row["measured"] for row in done.value["comparisons"])
