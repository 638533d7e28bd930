"""Real sweeps, killed and gone on with: the command line, real processes, real training, a real store of runs."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRIALS = 6
KILLS = 20
# What the wall clock says is never the same twice.
_TIMED = ("seconds", "fit_seconds", "predict_seconds", "ms_per_query", "predict_ms")
SETTINGS = [
    "backbone=efficientnet_lite0",
    "precision=fp32",
    "image_size=32",
    "batch_size=16",
    "epochs=3",
    "experiments=[transfer/frozen,transfer/finetuned]",
    "early_stopping.min_epochs=1",
    "early_stopping.within_kind=0.0",
    "early_stopping.reduction=2",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Return class folders of noise with a faint tint."""
    tints = ((20, 0, 0), (0, 20, 0), (0, 0, 20))
    return draw_tints(tmp_path_factory.mktemp("pictures"), 18, 6, size=(40, 40), tints=tints, noise=200)


def carsweep(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, its output in ``log.txt``."""
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.cli", *words], cwd=folder, stdout=log, stderr=log, text=True
        )


def begin(folder: Path, pictures: Path, concurrency: int = 1) -> subprocess.Popen[str]:
    """Start the sweep ``mine`` in ``folder``, or go on with it where it has begun."""
    if (folder / "runs" / "mine" / "sweep.json").is_file():
        return carsweep(folder, "resume", "mine")
    where = ["--data", str(pictures), "--name", "mine", "--trials", str(TRIALS), "--concurrency", str(concurrency)]
    return carsweep(folder, "run", "transfer", *where, "--cpus-per-trial", "1", "--set", *SETTINGS)


def ends_well(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a command to end with what it was to do."""
    assert process.wait(timeout=400) == 0, (folder / "log.txt").read_text()


def wait_for(words: str, folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the log has some words."""
    deadline = time.monotonic() + 200
    while words not in (log := (folder / "log.txt").read_text()):
        assert process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.1)


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """Return what the sweep's result tells of each trial, without times."""
    result = json.loads((folder / "runs" / "mine" / "result.json").read_text())
    return [_timeless(trial) for trial in result["trials"]]


def _timeless(trial: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: value for name, value in trial["metrics"].items() if name not in _TIMED}
    return {**{name: value for name, value in trial.items() if name not in _TIMED}, "metrics": metrics}


def finished_in_journal(folder: Path) -> dict[int, tuple[str, float | None]]:
    """Return the trials that the journal has an end of: status and accuracy by number."""
    words = [sys.executable, "-m", "sweeps.cli", "status", "mine", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "NAME must be of a sweep" in done.stderr, done.stderr  # killed before it had begun
        return {}
    from sweeps.study.records import read_history

    records = read_history(folder / "runs" / "mine").records
    return {r.number: (r.status, r.metrics.get("val_accuracy")) for r in records if r.status != "running"}


def runs_by_status(folder: Path) -> dict[str, int]:
    """Count the runs in the tracking database."""
    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        return dict(database.execute("select status, count(*) from runs group by status").fetchall())


def kill_after(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill -9 the driver after a while; tell whether it was still at work."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(pictures: Path, tmp_path: Path) -> None:
    """Wherever the driver is killed, the sweep goes on to the trials and metrics of one that nothing disturbed.

    One worker, so that the order of the trials is the same. No run of MLflow stays open.
    """
    start = time.monotonic()
    ends_well(tmp_path, begin(tmp_path, pictures))
    seconds = time.monotonic() - start
    expected = trials_of(tmp_path)
    assert len(expected) == TRIALS
    assert {trial["status"] for trial in expected} <= {"complete", "pruned"}
    moments = random.Random(20)
    killed = 0
    for attempt in range(2 * KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        start = time.monotonic()
        if kill_after(begin(folder, pictures), moments.uniform(0.02, 0.95) * seconds):
            killed += 1
        else:  # with what the first sweep left in the caches a later one is faster
            seconds = time.monotonic() - start
        ends_well(folder, begin(folder, pictures))
        assert trials_of(folder) == expected, attempt
        assert set(runs_by_status(folder)) <= {"FINISHED", "KILLED"}, attempt
        if killed == KILLS:
            break
    assert killed == KILLS


@pytest.mark.slow
def test_kill_9_with_several_workers_loses_and_doubles_nothing(pictures: Path, tmp_path: Path) -> None:
    """Killed again and again, a sweep with two workers keeps each trial that ended, and ends with its trials."""
    moments = random.Random(2)
    process = begin(tmp_path, pictures, concurrency=2)
    for _ in range(4):
        kill_after(process, moments.uniform(8, 30))
        before = finished_in_journal(tmp_path)
        process = begin(tmp_path, pictures, concurrency=2)
    ends_well(tmp_path, process)
    trials = trials_of(tmp_path)
    after = {trial["number"]: (trial["status"], trial["metrics"].get("val_accuracy")) for trial in trials}
    assert after.items() >= before.items()
    assert len(trials) == len(after) == TRIALS
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in trials}) == TRIALS
    assert not {"RUNNING", "FAILED"} & set(runs_by_status(tmp_path))
    log = (tmp_path / "log.txt").read_text()
    ended = [line.split(" | ")[0] for line in log.splitlines() if line.startswith("trial ") and " | " in line]
    assert len({line.split()[1] for line in ended}) == TRIALS


@pytest.mark.slow
def test_a_sweep_is_stopped_extended_and_changed_from_another_terminal(pictures: Path, tmp_path: Path) -> None:
    """Stop leaves it resumable; resume ends it; +2 trials in a changed space are two more, and none is run again."""
    process = begin(tmp_path, pictures)
    wait_for("epoch 1/3", tmp_path, process)
    second = begin(tmp_path, pictures)
    assert second.wait(timeout=60) == 2
    stopper = carsweep(tmp_path, "stop", "mine")
    assert stopper.wait(timeout=120) == 0, (tmp_path / "log.txt").read_text()
    assert process.wait(timeout=30) == 130
    log = (tmp_path / "log.txt").read_text()
    assert f"process {process.pid} on" in log
    assert "carsweep resume mine" in log or "carsweep' resume mine" in log
    ends_well(tmp_path, carsweep(tmp_path, "resume", "mine"))
    before = trials_of(tmp_path)
    assert len(before) == TRIALS
    more = ["--trials", "+2", "--set", "space.dropout.low=0.5", "space.dropout.high=0.6"]
    ends_well(tmp_path, carsweep(tmp_path, "resume", "mine", *more))
    after = trials_of(tmp_path)
    assert after[:TRIALS] == before
    assert all(0.5 <= trial["params"]["dropout"] <= 0.6 for trial in after[TRIALS:])
    assert len(after) == TRIALS + 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_running_epoch_finish(pictures: Path, tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM the exit code is 130, and the journal has the epoch that was running."""
    process = begin(tmp_path, pictures)
    wait_for("epoch 1/3", tmp_path, process)
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == 130
    assert "Stopping after the epochs that run" in (tmp_path / "log.txt").read_text()
    ends_well(tmp_path, carsweep(tmp_path, "resume", "mine"))
    assert len(trials_of(tmp_path)) == TRIALS
