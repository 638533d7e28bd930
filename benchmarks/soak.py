"""Does a sweep survive a long time of bad luck? Ends one of its processes at random every 20 seconds, then checks.

    python benchmarks/soak.py --minutes 30 --file soak.json

A sweep of small trials runs in a folder of its own. Every 20 s the killer ends (SIGKILL) a trial's process or the
command itself; a command that has ended is begun again with `carsweep resume`, with more trials when it was done. When
the time is over the sweep is gone on with in peace. Then the study's journal and result.json must agree trial by trial,
each trial must have one run in MLflow with its end and none may be left RUNNING, and no process may be left a minute
later: after kill -9 Ray's agents notice by themselves that they are alone. What was done and found is written to the
file; the exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from endings import SETTINGS, make_images, processes_of

from sweeps.study.records import read_history

EVERY_SECONDS = 20
TRIALS = 12
EPOCHS = 60
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


def main() -> int:
    """Run the sweep under attack, then check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--file", type=Path, required=True, help="JSON with what was done and found.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, mark = Path(name), f"soak-{os.getpid()}"
        make_images(folder / "data", train=30)
        done = attack(folder, mark, options.minutes * 60, random.Random(options.seed))
        found = {**done, **check(folder / "runs", mark)}
        found["log"] = tail(folder) if found["wrong"] else []
    options.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))
    return int(bool(found["wrong"]))


def attack(folder: Path, mark: str, seconds: float, chance: random.Random) -> dict[str, Any]:
    """Run the sweep and end processes of it until the time is over, then let it finish."""
    end, ends, starts = time.monotonic() + seconds, Counter[str](), 1
    command = start(folder, mark, first=True)
    next_blow = time.monotonic() + EVERY_SECONDS
    while time.monotonic() < end:
        time.sleep(0.5)
        if command.poll() is not None:
            ends[f"command ended with {command.returncode}"] += 1
            command = start(folder, mark, more=command.returncode == 0)
            starts += 1
        if time.monotonic() >= next_blow:
            next_blow += EVERY_SECONDS
            ends[blow(command, mark, chance)] += 1
    command.wait()
    while command.returncode != 0 and starts < 1000:
        command = start(folder, mark)
        starts += 1
        command.wait()
    return {"minutes": round(seconds / 60, 1), "starts": starts, "blows": dict(ends)}


def start(folder: Path, mark: str, *, first: bool = False, more: bool = False) -> subprocess.Popen[bytes]:
    """Begin the sweep, or go on with it."""
    settings = [setting for setting in SETTINGS if not setting.startswith("epochs")]
    if first:
        words = ["run", "scratch", "--name", "soak", "--data", str(folder / "data"), "--trials", str(TRIALS)]
        words += ["--set", *settings, f"epochs={EPOCHS}", "early_stopping.enabled=false"]
    else:
        words = ["resume", "soak", *(["--trials", f"+{TRIALS}"] if more else [])]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.cli", *words],
            cwd=folder,
            env={**os.environ, "CARSWEEP_ENDINGS": mark},
            stdout=log,
            stderr=log,
        )


def blow(command: subprocess.Popen[bytes], mark: str, chance: random.Random) -> str:
    """End the command, or one of its trials' processes; return which."""
    trials = [pid for pid in pids_of(mark) if title(pid).startswith("ray::Impl")]
    if trials and chance.random() < 0.6:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(trials), signal.SIGKILL)
        return "killed a trial's process"
    command.kill()
    command.wait()
    return "killed the command"


def pids_of(mark: str) -> list[int]:
    """Return the processes that have the mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"CARSWEEP_ENDINGS={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def title(pid: int) -> str:
    """Return how a process calls itself."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    return ""


def check(out: Path, mark: str) -> dict[str, Any]:
    """Hold journal, result and MLflow against each other."""
    records = {r.number: r for r in read_history(out / "soak").records}
    result = json.loads((out / "soak" / "result.json").read_text(encoding="utf-8"))
    trials = {trial["number"]: trial for trial in result["trials"]}
    wrong = [f"trials in the journal {sorted(records)}, in result.json {sorted(trials)}"] * (
        records.keys() != trials.keys()
    )
    for number in records.keys() & trials.keys():
        record, trial = records[number], trials[number]
        journal = (record.status, record.epochs, dict(record.metrics))
        told = (trial["status"], trial["epochs"], trial["metrics"])
        wrong += [f"trial {number}: journal {journal}, result.json {told}"] * (journal != told)
    runs = runs_in(out / "mlflow.db")
    wrong += [f"run of trial {number}: RUNNING" for number, status in runs if status == "RUNNING"]
    for number, record in records.items():
        found = [status for trial, status in runs if trial == str(number)]
        wrong += [f"runs of trial {number}: {found}, it is {record.status}"] * (found != [_STATUS[record.status]])
    left = processes_of(mark, patience=60)
    wrong += [f"processes left: {left}"] * bool(left)
    wrong += ["no model is registered"] * (not result["registered"])
    statuses = Counter(record.status for record in records.values())
    epochs = sum(record.epochs for record in records.values())
    return {"trials": dict(statuses), "epochs": epochs, "runs": len(runs), "wrong": wrong}


def runs_in(database: Path) -> list[tuple[str, str]]:
    """Return trial and status of each run; the trial of the sweep's own run is empty."""
    query = "SELECT coalesce((SELECT value FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = 'carsweep.trial'), '')"
    with closing(sqlite3.connect(database)) as connection:
        return [(str(trial), str(status)) for trial, status in connection.execute(f"{query}, status FROM runs r")]


def tail(folder: Path) -> list[str]:
    """Return the last lines of what the commands said."""
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-40:]


if __name__ == "__main__":
    sys.exit(main())
