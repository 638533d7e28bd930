"""Small sweeps as MLflow has them, for the tests of tracking."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from mlflow.entities import Run

from carcls.data.config import DataSummary
from carcls.outcome import Measurement
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.tracking.mirror import Mirror
from sweeps.tracking.mirror import mirror_of as tracking_mirror
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.store import Tracking, check_tracking
from sweeps.tracking.updates import Update
from sweeps.trial import TrialRecord


def mirror_of(tracking: Tracking, sweep_id: str, warnings: list[str] | None = None) -> Mirror:
    """Return the mirror of a small sweep, which is warned by a line in ``warnings``."""
    sweep = Update(
        sweep_id,
        tags={"mlflow.note.content": "scaled down"},
        params={"data_digest": "abc", "seed": 0},
        files={"spec.yaml": "trials: 3\n"},
    )
    runs = SweepRuns(tracking, family="transfer", sweep_id=sweep_id, name=sweep_id)
    return Mirror(runs, sweep, (warnings if warnings is not None else []).append)


def record(
    number: int, status: Any = "running", *, accuracies: Sequence[float] = (0.25, 0.5), reason: str = ""
) -> TrialRecord:
    """Return what the study knows of a trial, with an accuracy for each epoch, and a metric that is not logged."""
    points = tuple(
        Measurement(epoch, {"val_accuracy": accuracy, "val_loss": 1.0, "val_recall_macro": 0.1, "seconds": 2.0})
        for epoch, accuracy in enumerate(accuracies, start=1)
    )
    return TrialRecord(
        number=number,
        experiment="transfer/frozen" if number == 0 else None,
        settings={"dropout": 0.1 * number},
        config={"epochs": 2, "dropout": 0.1 * number},
        status=status,
        metrics=points[-1].metrics if points else {},
        epochs=len(points),
        seconds=4.0,
        reason=reason,
        history=points,
    )


def all_runs_of(tracking: Tracking, sweep_id: str) -> list[Run]:
    """Return all runs that MLflow has of a sweep, whatever they are."""
    query = f"tags.`carsweep.sweep_id` = '{sweep_id}'"
    found: list[Run] = tracking.client().search_runs([tracking.experiment("transfer")], query, max_results=1000)
    return found


def runs_of(tracking: Tracking, sweep_id: str) -> tuple[Run, dict[int, Run]]:
    """Return the parent run and the child runs by number, and insist that none is there twice."""
    found = all_runs_of(tracking, sweep_id)
    (parent,) = [run for run in found if run.data.tags["carsweep.role"] == "sweep"]
    children = [run for run in found if run.data.tags["carsweep.role"] == "trial"]
    numbers = {int(run.data.tags["carsweep.trial"]): run for run in children}
    assert len(numbers) == len(children)
    return parent, numbers


def history(tracking: Tracking, run: Run, metric: str = "val_accuracy") -> list[tuple[int, float]]:
    """Return (step, value) of every stored point."""
    return [(m.step, m.value) for m in tracking.client().get_metric_history(run.info.run_id, metric)]


def tracked_sweep(folder: Path, trials: int) -> Tracking:
    """Make a database in a folder that has the interrupted trials of a sweep ``s1``; its runs are closed."""
    tracking = check_tracking(None, folder)
    mirror = mirror_of(tracking, "s1")
    for number in range(trials):
        mirror.trial_changed(record(number, accuracies=()))
    assert mirror.close("complete")
    return tracking


def searched_record(spec: SweepSpec, number: int) -> TrialRecord:
    """Return an ended trial of a search, drawn by its number: it learns up to an accuracy that is its number's."""
    random = Random(number)
    drawn = {name: domain.draw(random) for name, domain in spec.search.items()}
    config, best, epochs = (
        spec.searched_config(drawn).model_dump(),
        random.betavariate(4, 3),
        6 if number % 3 == 0 else 2,
    )
    history = tuple(
        Measurement(epoch, {
            "val_accuracy": best * (1 - 0.6**epoch), "val_top5": 1 - 0.5 * (1 - best) * 0.6**epoch,
            "val_loss": 4 * (1 - best) * 0.8**epoch, "train_loss": 4 * 0.7**epoch, "seconds": 10.0,
        })
        for epoch in range(1, epochs + 1)
    )  # fmt: skip
    status: Any = "complete" if epochs == 6 else "pruned"
    return TrialRecord(
        number=number,
        experiment=None,
        settings=drawn,
        config=config,
        status=status,
        metrics=history[-1].metrics,
        epochs=epochs,
        seconds=10.0 * epochs,
        reason="" if status == "complete" else "stopped after epoch 2: others were better by then",
        history=history,
        began=time.time() - 20.0 * (200 - number),
    )


def mirrored_sweep(out: Path, family: str, name: str, trials: int) -> list[TrialRecord]:
    """Leave the file of a finished sweep in ``out``, and its runs in the database there; return its trials."""
    spec = load_spec(family, overrides={"name": name, "trials": trials}, demo=True)
    write_file(out / name, "sweep", None, [spec])  # one that is there keeps its id
    data = DataSummary("pictures", "0123456789abcdef", 300, 20, {"train": 200, "validation": 50, "test": 50})
    mirror = tracking_mirror(spec, out / name, check_tracking(None, out), data, print)
    records = [searched_record(spec, number) for number in range(trials)]
    mirror.bring_in_line(records)
    best = max((one for one in records if one.status == "complete"), key=lambda one: one.metrics["val_accuracy"])
    mirror.summarise(records, best=best.number, metrics={"test_accuracy": 0.5}, outcome=f"trial {best.number} wins")
    assert mirror.close("complete", 300.0)
    return records


_BEGIN = """
import os, sys, time
from pathlib import Path
from sweeps.tracking.moves import moving
from sweeps.tracking import promotion
from sweeps.tracking.store import check_tracking

tracking = check_tracking(sys.argv[1], Path(sys.argv[2]))
tracking.client()
print("ready", flush=True)
sys.stdin.readline()
"""
_ALONE = """
for _ in range({times}):
    with moving(tracking, "carsweep-transfer"):
        marker = os.open("inside", os.O_CREAT | os.O_EXCL)
        time.sleep(0.02)
        os.close(marker)
        os.unlink("inside")
print("done")
"""


def at_once(code: str, tracking: Tracking, count: int) -> list[str]:
    """Run code with ``tracking`` in so many processes that begin in the same instant; return what each prints."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        command = [sys.executable, "-c", _BEGIN + code, tracking.uri, folder]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": folder}
        running = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(count)]
        assert [one.stdout.readline() for one in running] == ["ready\n"] * count
        for one in running:
            one.stdin.write("go\n")
            one.stdin.flush()
        return [one.communicate()[0].strip() for one in running]


def alone_together(tracking: Tracking, count: int, times: int) -> list[str]:
    """Take the lock of the aliases in processes that would notice another one in it; return what each prints."""
    return at_once(_ALONE.format(times=times), tracking, count)
