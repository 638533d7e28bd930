"""A sweep's runs in MLflow, in a real SQLite database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracked import history, mirror_of, record, runs_of

from carcls.errors import TrackingError
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.store import Tracking, check_tracking


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One database for all tests here; each test has a sweep of its own."""
    return check_tracking(None, tmp_path_factory.mktemp("runs with space"))


def test_sweep_becomes_a_parent_run_and_a_child_run_for_each_trial(tracking: Tracking, tmp_path: Path) -> None:
    """Complete and pruned trials end FINISHED, failed ones FAILED, under a parent that sums them up."""
    mirror = mirror_of(tracking, "whole")
    for number in range(3):
        mirror.trial_changed(record(number, accuracies=()))
        mirror.trial_changed(record(number, accuracies=(0.25,)))
    ended = replace(record(0, "complete"), metrics={**record(0).metrics, "predict_ms": 3.0})
    failed = record(2, "failed", accuracies=(0.25,), reason="loss is not finite")
    records = [ended, record(1, "pruned", accuracies=(0.25,)), failed]
    for one in records:
        mirror.trial_changed(one)
    leaderboard = tmp_path / "leaderboard.json"
    leaderboard.write_text("[]", encoding="utf-8")
    assert mirror.flush()
    mirror.summarise(
        records,
        best=0,
        metrics={"test_accuracy": 0.4},
        outcome="trial 0 wins",
        files=[leaderboard, tmp_path / "none.html"],
    )
    assert mirror.close("complete")

    parent, trials = runs_of(tracking, "whole")
    assert {number: run.info.status for number, run in trials.items()} == {0: "FINISHED", 1: "FINISHED", 2: "FAILED"}
    assert [trials[n].data.tags["carsweep.state"] for n in range(3)] == ["complete", "pruned", "failed"]
    assert trials[2].data.tags["carsweep.reason"] == "loss is not finite"
    assert trials[0].info.run_name == "trial 0 · transfer/frozen"
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    assert trials[0].data.params == {"epochs": "2", "dropout": "0.0"}
    assert history(tracking, trials[0], "val_accuracy") == [(1, 0.25), (2, 0.5)]
    assert history(tracking, trials[0], "predict_ms") == [(2, 3.0)]
    assert set(trials[0].data.metrics) == {"val_accuracy", "val_loss", "seconds", "predict_ms"}
    assert (parent.info.status, parent.data.params) == ("FINISHED", {"data_digest": "abc", "seed": "0"})
    counts = {f"trials_{status}": 1.0 for status in ("complete", "pruned", "failed")}
    assert parent.data.metrics == {"best_val_accuracy": 0.5, "test_accuracy": 0.4, **counts}
    assert parent.data.tags["carsweep.best_run_id"] == trials[0].info.run_id
    files = {file.path for file in tracking.client().list_artifacts(parent.info.run_id)}
    assert files == {"spec.yaml", "packages.txt", "leaderboard.json"}


def test_resumed_sweep_goes_on_in_the_same_runs(tracking: Tracking) -> None:
    """After Ctrl-C nothing is RUNNING; run again, the same runs go on, and a point reported again is stored once."""
    mirror, again = mirror_of(tracking, "resumed"), mirror_of(tracking, "resumed")
    mirror.trial_changed(record(0, accuracies=(0.25,)))
    assert mirror.close("interrupted")
    parent, trials = runs_of(tracking, "resumed")
    assert (parent.info.status, trials[0].info.status) == ("KILLED", "KILLED")
    assert trials[0].data.tags["carsweep.state"] == "interrupted"
    again.bring_in_line([record(0, accuracies=(0.25,))])
    assert again.flush()
    assert runs_of(tracking, "resumed")[1][0].info.status == "KILLED"
    again.trial_changed(record(0, accuracies=(0.25,)))
    assert again.flush()
    assert runs_of(tracking, "resumed")[1][0].info.status == "RUNNING"
    again.trial_changed(record(0, "complete"))
    assert again.close("complete")
    after, trials_after = runs_of(tracking, "resumed")
    assert (after.info.run_id, trials_after[0].info.run_id) == (parent.info.run_id, trials[0].info.run_id)
    assert (after.info.status, trials_after[0].info.status) == ("FINISHED", "FINISHED")
    assert trials_after[0].data.tags["carsweep.reason"] == ""
    assert history(tracking, trials_after[0], "val_accuracy") == [(1, 0.25), (2, 0.5)]


def test_a_fresh_database_is_made_when_the_first_trial_has_begun(tmp_path: Path) -> None:
    """A sweep that ends before is not held up by MLflow, and no trial is; then runs are written as ever."""
    tracking = check_tracking(None, tmp_path)
    mirror, start = mirror_of(tracking, "fresh"), time.perf_counter()
    assert mirror_of(tracking, "nothing").close("failed")
    assert list(tmp_path.iterdir()) == []
    mirror.trial_changed(record(0, accuracies=(0.25,)))
    assert time.perf_counter() - start < 0.1
    mirror.trial_changed(record(1, accuracies=()))
    mirror.trial_changed(record(0, "complete", accuracies=(0.25,)))
    assert mirror.close("interrupted")
    parent, trials = runs_of(tracking, "fresh")
    assert parent.info.status == "KILLED"
    assert {number: run.info.status for number, run in trials.items()} == {0: "FINISHED", 1: "KILLED"}


def test_a_deleted_experiment_is_told_at_the_next_event(tmp_path: Path) -> None:
    """A database that turns out to be unusable ends the sweep with the reason; closing is quick and raises nothing."""
    tracking, warnings = check_tracking(None, tmp_path), list[str]()
    tracking.client().delete_experiment(tracking.experiment("transfer"))
    mirror = mirror_of(tracking, "undone", warnings)
    mirror.trial_changed(record(0, accuracies=()))
    assert not mirror.flush()
    with pytest.raises(TrackingError, match=r"must be active.*mlflow experiments restore"):
        mirror.trial_changed(record(0, accuracies=(0.25,)))
    with pytest.raises(TrackingError, match="must be active"):
        mirror.bring_in_line([record(0, "complete")])
    start = time.perf_counter()
    assert not mirror.close("failed")
    assert time.perf_counter() - start < 0.5
    assert warnings == []


def test_two_threads_that_close_a_sweep_leave_no_run_open(tracking: Tracking) -> None:
    """When Ray is lost, whoever watches it closes the runs, and perhaps the main thread at the same time."""
    warnings: list[str] = []
    mirror = mirror_of(tracking, "closed by two", warnings)
    mirror.trial_changed(record(0))
    first = threading.Thread(target=mirror.close, args=("failed",))
    first.start()
    start = time.monotonic()
    mirror.close("interrupted")
    first.join()
    mirror.close("interrupted")
    assert time.monotonic() - start < 10
    parent, trials = runs_of(tracking, "closed by two")
    assert parent.info.status in ("FAILED", "KILLED")
    assert trials[0].info.status == "KILLED"
    assert warnings == []


KILLED_SWEEP = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tracked import mirror_of, record
from sweeps.tracking.store import check_tracking
mirror = mirror_of(check_tracking(None, Path(sys.argv[1])), "killed")
for number in (0, 1, 2):
    mirror.trial_changed(record(number, accuracies=(0.25,)))
mirror.trial_changed(record(0, "complete"))
assert mirror.flush()
print("written", flush=True)
time.sleep(600)
"""


def test_kill_leaves_no_run_open_once_the_sweep_is_run_again(tracking: Tracking) -> None:
    """kill -9 leaves open runs; the mirror makes the missing ones, closes the open ones, and doubles none."""
    out = Path(tracking.uri.removeprefix("sqlite:///")).parent
    command = [sys.executable, "-c", KILLED_SWEEP, str(out), str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "written\n"
        os.kill(driver.pid, signal.SIGKILL)
    parent, trials = runs_of(tracking, "killed")
    assert {run.info.status for run in (parent, trials[1], trials[2])} == {"RUNNING"}

    mirror = mirror_of(tracking, "killed")
    # Trial 1 ended before the kill and MLflow did not hear of it; of 2 the study knows nothing; 3 never reached MLflow.
    mirror.bring_in_line([record(0, "complete"), record(1, "complete"), record(3, "pruned", accuracies=(0.25,))])
    assert mirror.close("complete")
    parent, trials = runs_of(tracking, "killed")
    assert parent.info.status == "FINISHED"
    states = {number: run.info.status for number, run in trials.items()}
    assert states == {0: "FINISHED", 1: "FINISHED", 2: "KILLED", 3: "FINISHED"}
    assert history(tracking, trials[1], "val_accuracy") == [(1, 0.25), (2, 0.5)]
    assert trials[3].data.params["dropout"] == "0.3"
    assert trials[3].data.tags["carsweep.state"] == "pruned"


def test_outage_is_made_good_within_the_sweep(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written waits; one warning; a server that answers again while it is closed gets all, once."""
    monkeypatch.setattr("sweeps.tracking.mirror.RETRY_SECONDS", 0.5)
    warnings: list[str] = []
    mirror = mirror_of(tracking, "outage", warnings)
    assert mirror.flush()
    answers, write = threading.Event(), SweepRuns.write

    def failing_write(self: SweepRuns, number: int | None, update: Any) -> None:
        if not answers.is_set():
            raise ConnectionError("http://ann:s3cret@host went away")
        write(self, number, update)

    monkeypatch.setattr(SweepRuns, "write", failing_write)
    accuracies = [epoch / 10 for epoch in range(1, 6)]
    for epoch in range(6):
        mirror.trial_changed(record(0, accuracies=accuracies[:epoch]))
        assert not mirror.flush()
    mirror.trial_changed(record(0, "complete", accuracies=accuracies))
    threading.Timer(0.25, answers.set).start()
    assert mirror.close("complete")
    (warning,) = warnings
    assert "s3cret" not in warning
    _, trials = runs_of(tracking, "outage")
    assert history(tracking, trials[0], "val_accuracy") == [(e, e / 10) for e in range(1, 6)]


def _store_of(tracking: Tracking, sweep_id: str) -> SweepRuns:
    runs = SweepRuns(tracking, family="transfer", sweep_id=sweep_id, name=sweep_id)
    runs.read()
    return runs


def _seen(tracking: Tracking, sweep_id: str) -> dict[int, tuple[Any, ...]]:
    """Return status, metrics, parameters and accuracies by trial, as MLflow has them."""
    return {
        number: (run.info.status, run.data.metrics, run.data.params, history(tracking, run))
        for number, run in runs_of(tracking, sweep_id)[1].items()
    }


def test_runs_written_together_are_as_if_written_one_by_one(tracking: Tracking) -> None:
    """One transaction for all leaves what a request for each does; a database can do it."""
    alone, together = _store_of(tracking, "alone"), _store_of(tracking, "together")
    records = [record(number, "complete") for number in range(5)]
    for one in records:
        alone.mirror(one)
    assert together.write_together([partial(together.mirror, one) for one in records])
    assert _seen(tracking, "together") == _seen(tracking, "alone")
    assert _seen(tracking, "together")[3][3] == [(1, 0.25), (2, 0.5)]


def test_a_later_mlflow_with_other_names_is_written_to_one_by_one(tracking: Tracking) -> None:
    """The transaction needs names of MLflow that are not public."""
    runs, written = _store_of(tracking, "later"), list[int]()
    assert runs.write_together([lambda: written.append(1)])
    runs._client = SimpleNamespace(_renamed=None)
    assert not runs.write_together([lambda: written.append(2)])
    assert written == [1]


def test_what_another_thread_writes_is_in_no_transaction_of_ours(tracking: Tracking) -> None:
    """A model is registered while trials are mirrored; both write to one store of MLflow's."""
    mine, other = _store_of(tracking, "mine"), _store_of(tracking, "other")

    def fail() -> None:
        thread = threading.Thread(target=other.mirror, args=(record(0, "complete"),))
        thread.start()
        thread.join(20)
        mine.mirror(record(0, "complete"))
        raise ConnectionError

    assert not mine.write_together([fail])
    assert (set(_seen(tracking, "mine")), set(_seen(tracking, "other"))) == (set(), {0})


def test_a_point_that_is_there_already_loses_nothing_of_what_is_written_with_it(tracking: Tracking) -> None:
    """MLflow would roll the transaction back over it; then nothing is written together, and all of it one by one."""
    _store_of(tracking, "again").mirror(record(1), runs_now=True)
    runs = _store_of(tracking, "again")
    writes = [partial(runs.mirror, record(number, "complete")) for number in range(3)]
    assert not runs.write_together(writes)
    assert set(_seen(tracking, "again")) == {n for n in range(3) if runs.trial(n)} == {1}
    for write in writes:
        write()
    assert {(status, len(points)) for status, _, _, points in _seen(tracking, "again").values()} == {("FINISHED", 2)}


def test_what_mlflow_refuses_holds_up_no_other_run(tracking: Tracking) -> None:
    """Of a thousand trials that end at once all are there but for one it refuses and one deleted by hand; told once."""
    warnings: list[str] = []
    mirror = mirror_of(tracking, "refusal", warnings)
    mirror.trial_changed(record(3, accuracies=()))
    assert mirror.flush()
    tracking.client().delete_run(runs_of(tracking, "refusal")[1][3].info.run_id)
    for number in range(60):
        mirror.trial_changed(replace(record(number, "complete"), config={"bad\nname" if number == 7 else "epochs": 2}))
    assert mirror.close("complete")
    found = _seen(tracking, "refusal")
    assert {status for n, (status, *_) in found.items() if n != 7} == {"FINISHED"}
    assert set(range(60)) - set(found) == {3}
    (warning,) = warnings
    assert "trial 3" in warning
