"""`carsweep reproduce` from the command line to its tables: real Ray, Optuna and MLflow, tiny pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ["transfer/frozen", "retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean", "scratch/basic"]
SMALL = ["image_size=32", "batch_size=8", "epochs=1", "width=4"]
MEASURES = {"accuracy", "f1", "precision", "recall"}


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> dict[str, Any]:
        """The one object on stdout."""
        value: dict[str, Any] = json.loads(self.out)
        return value


def arguments(*words: str, settings: list[str] | None = None) -> list[str]:
    """Return the command line."""
    sets = ["--set", *SMALL, *(settings or [])]
    return [sys.executable, "-m", "sweeps.cli", "reproduce", *words, "--data", "tints", "--name", "mine", *sets]


def run(folder: Path, *words: str, settings: list[str] | None = None) -> Done:
    """Run the command in ``folder`` to its end."""
    command = arguments(*words, settings=settings)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=500)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Return a folder with a data set."""
    folder = tmp_path_factory.mktemp("reproduction")
    draw_tints(folder / "tints", 11, 4)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Done:
    """Reproduce four experiments of all families."""
    return run(folder, "--json", *NAMES, settings=["backbone=efficientnet_lite0"])


def test_an_experiment_that_was_not_run_has_a_row_and_exit_code_1(
    tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Without time to start, the tables are there all the same and say so."""
    draw_tints(tmp_path / "tints", 11, 4)
    late = run(tmp_path, "--json", "scratch/basic", settings=["hours=0.0000001"])
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


def test_what_was_run_otherwise_is_told(finished: Done) -> None:
    """Settings reach the families that they mean something in, and each change has both values."""
    changed = {row["name"]: row["changed"] for row in finished.value["comparisons"]}
    assert changed["transfer/frozen"]["backbone"] == ["resnet50", "efficientnet_lite0"]
    assert changed["scratch/basic"]["width"] == [32, 4]
    assert "backbone" not in changed["scratch/basic"]
    assert "width" not in changed["transfer/frozen"]


def test_the_best_of_a_family_is_the_best_on_validation(finished: Done) -> None:
    """Whatever the test images say; a family of one has one."""
    best = finished.value["best"]
    assert (best["transfer"], best["scratch"]) == ("transfer/frozen", "scratch/basic")
    retrieval = [row for row in finished.value["comparisons"] if row["family"] == "retrieval"]
    chosen = next(row for row in retrieval if row["name"] == best["retrieval"])
    assert chosen["validation_accuracy"] == max(row["validation_accuracy"] for row in retrieval)


def test_the_test_images_are_read_once_and_nothing_is_registered(finished: Done, folder: Path) -> None:
    """Each experiment has one reading on record; no sweep has a winner's reading or a model in the registry."""
    assert finished.code == 0
    for family, count in (("transfer", 1), ("retrieval", 2), ("scratch", 1)):
        sweep = folder / "runs" / f"mine-{family}"
        readings = [json.loads(file.read_text())["readings"] for file in sweep.glob("test-*.json")]
        assert readings == [1] * count
        result = json.loads((sweep / "result.json").read_text())
        assert (result["test"], result["registered"]) == (None, None)
        assert not (sweep / "model").exists()


def test_the_two_resnet_experiments_train_once(finished: Done, folder: Path) -> None:
    """Their extractor is one stage; with the other families' there are three trainings in all."""
    assert finished.code == 0
    log = [json.loads(line) for line in (folder / "runs" / "stages" / "log.jsonl").read_text().splitlines()]
    made = [line for line in log if line["event"] == "made" and line["kind"] == "training"]
    assert len(made) == 3


def test_the_same_command_again_computes_nothing_and_prints_the_tables(finished: Done, folder: Path) -> None:
    """The tables are those of the first time, from what is on disk."""
    kept = {name: (folder / "runs" / "mine" / name).read_text() for name in ("reproduction.md", "reproduction.json")}
    assert json.loads(kept["reproduction.json"]) == finished.value
    log = folder / "runs" / "stages" / "log.jsonl"
    made = log.read_text().count('"made"')
    again = run(folder, *NAMES, settings=["backbone=efficientnet_lite0"])
    assert again.code == 0, again.err
    assert again.out.startswith(kept["reproduction.md"])
    assert log.read_text().count('"made"') == made
    assert {name: (folder / "runs" / "mine" / name).read_text() for name in kept} == kept


@pytest.mark.slow
def test_interrupted_reproduction_goes_on(tmp_path: Path, draw_tints: Callable[..., Path]) -> None:
    """Ctrl-C exits with 130 and prints the command that goes on, which finishes what is left."""
    draw_tints(tmp_path / "tints", 11, 4)
    names, longer = ["scratch/basic", "scratch/regularized"], ["epochs=400"]
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stderr:
        command = arguments("--json", *names, "--concurrency", "1", settings=longer)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, text=True)
        wait_for("epoch 2/", errors, process)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 130, errors.read_text()
    assert json.loads(out) == {"error": "interrupted"}
    assert "resume mine" in errors.read_text()
    assert not (tmp_path / "runs" / "mine" / "reproduction.json").exists()
    done = run(tmp_path, "--json", *names, "--concurrency", "1", settings=longer)
    assert done.code == 0, done.err
    assert all(row["measured"] for row in done.value["comparisons"])


def wait_for(words: str, file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the words are in the file."""
    deadline = time.monotonic() + 200
    while words not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.1)
