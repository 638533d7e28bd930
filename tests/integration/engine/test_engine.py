"""The engine with a real Ray, a real study and a light runner."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers import Diary, asked_of, complete, importable, light_work, log_of

from carcls.config import TrialConfig
from carcls.errors import OutputError
from sweeps.engine.budget import BudgetStatus
from sweeps.engine.engine import Confirm, EngineResult, run_trials
from sweeps.engine.resources import Machine
from sweeps.engine.session import RaySession
from sweeps.engine.task import run_task
from sweeps.lock import ask_to_stop
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice, Range
from sweeps.spec.spec import SweepSpec
from sweeps.study.confirmation import Repeat, repeats_of
from sweeps.study.journal import Journal
from sweeps.study.study import Study
from sweeps.trial import TrialRecord

RUNNER = """
import json, os, threading, time
from pathlib import Path
from carcls.errors import NonFiniteLoss
from carcls.outcome import Measurement, Outcome

def load(path):
    return json.loads(Path(path).read_text())

def note(data, **what):
    line = json.dumps({"pid": os.getpid(), "time": time.time(), **what})
    with open(data["log"], "a") as file:
        file.write(line + "\\n")

def pid(data, stages):
    return os.getpid()

def run(config, data, stages, report):
    key = f"{config.dropout:.6f}"
    for epoch in range(1, config.epochs + 1):
        note(data, key=key, epoch=epoch, what="begin", folder=os.getcwd())
        time.sleep(data.get("sleep", 0.0))
        note(data, key=key, epoch=epoch, what="end", threads=os.environ["OMP_NUM_THREADS"])
        spoil = data.get("spoil", {}).get(key, "")
        if epoch == 2:
            if spoil == "failure":
                raise NonFiniteLoss("train_loss became NaN in epoch 2")
            if spoil == "death" and not Path(data["log"] + key).exists():
                Path(data["log"] + key).touch()
                os._exit(1)
        accuracy = float("nan") if spoil == "nan" and epoch == 2 else (1 - config.dropout) * epoch / config.epochs
        report(Measurement(epoch, {"val_accuracy": accuracy, "val_loss": 1.0 / epoch}))
    metrics = {"val_accuracy": 1 - config.dropout, "val_loss": 0.5}
    return Outcome(metrics, config.epochs, 0.0, False, "transfer/model", "p.npz")
"""


@pytest.fixture(scope="module")
def runner_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the light runner, where trial processes look for modules."""
    with importable(tmp_path_factory.mktemp("runner"), "quick_runner", RUNNER) as folder:
        yield folder


@pytest.fixture(scope="module", autouse=True)
def session(runner_folder: Path) -> Iterator[None]:
    """One Ray for all tests: 4 CPUs and one GPU in its books."""
    with RaySession(machine=Machine(4, 1)) as session:
        session.connect(runner_folder / "ray.log")
        yield


def wait_for_cpus(count: float) -> None:
    """Wait until Ray has just so many CPUs to give; fail after a while."""
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0.0) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def spec_of(**changes: Any) -> SweepSpec:
    """Five trials of three epochs, two at a time, never pruned; with changes."""
    fields = {
        "family": "transfer",
        "trials": 5,
        "concurrency": 2,
        "gpus_per_trial": 0.0,
        "config": {"epochs": 3},
        "search": {"dropout": Range(0.1, 0.9)},
        "early_stopping": EarlyStopping(enabled=False),
    }
    return SweepSpec.model_validate({**fields, **changes})


def run(
    folder: Path,
    spec: SweepSpec,
    observer: Any = None,
    on_status: Callable[[BudgetStatus], None] = lambda _: None,
    confirm: Confirm | None = None,
    **data: Any,
) -> EngineResult:
    """Run the sweep under ``folder`` with the light runner; ``data`` is what the runner gets as its data set."""
    with light_work(folder, spec, "quick_runner", data) as work:
        return run_trials(work, [observer or Diary()], confirm=confirm, on_status=on_status)


def confirmed_once(records: Sequence[TrialRecord]) -> list[Repeat]:
    """Confirm the first trial with one fresh seed."""
    return repeats_of(0, TrialConfig.model_validate(dict(records[0].config)), 0, 1)


def most_at_a_time(folder: Path) -> int:
    """The largest number of epochs that ran together."""
    running, most = 0, 0
    for line in sorted(log_of(folder), key=lambda line: line["time"]):
        running += 1 if line["what"] == "begin" else -1
        most = max(most, running)
    return most


def test_every_trial_is_told_and_watched_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes do them all, in the driver's folder; each trial is announced to its end; nothing is printed."""
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    diary = Diary()
    result = run(tmp_path, spec_of(cpus_per_trial=2.0), diary)
    assert [record.status for record in result.records] == ["complete"] * 5
    assert not result.interrupted
    for record in result.records:
        assert record.metrics == {"val_accuracy": pytest.approx(1 - record.settings["dropout"]), "val_loss": 0.5}
        assert (record.epochs, record.model, record.predictions) == (3, "transfer/model", "p.npz")
        heard = [what for what, number in diary.news if number == record.number]
        assert heard == ["started", "epoch", "epoch", "epoch", "finished"]
    assert sorted(diary.finished, key=lambda r: r.number) == list(result.records)
    assert "".join(capfd.readouterr()) == ""
    assert "mlflow" not in sys.modules  # its import takes a second; Tune does it for callbacks of its user's
    log = log_of(tmp_path)
    assert len({line["pid"] for line in log}) <= 2
    assert {record.worker for record in result.records} == {f"{platform.node()} pid {line['pid']}" for line in log}
    assert {line["threads"] for line in log if "threads" in line} == {"2"}
    assert {line["folder"] for line in log if "folder" in line} == {str(Path.cwd())}


def test_beaten_trials_stop_at_their_step_but_documented_ones_never(tmp_path: Path) -> None:
    """Experiments come first and run all epochs; a pruned trial runs no epoch more, and each epoch is told once."""
    names = ("transfer/frozen", "transfer/frozen-augmented", "transfer/finetuned")
    halving = EarlyStopping(min_epochs=1, reduction=2, within_kind=0.0)
    spec = spec_of(trials=9, experiments=names, fixed={"epochs": 5}, early_stopping=halving)
    diary = Diary()
    result = run(tmp_path, spec, diary, sleep=0.03)
    assert [record.experiment for record in result.records] == [*names, *[None] * 6]
    assert [(r.status, r.epochs) for r in result.records[:3]] == [("complete", 5)] * 3
    pruned = [record for record in result.records if record.status == "pruned"]
    assert pruned
    log = log_of(tmp_path)
    for record in pruned:
        key = f"{record.settings['dropout']:.6f}"
        assert record.epochs == max(line["epoch"] for line in log if line["key"] == key) < 5
    for record in result.records:
        assert [e for n, e in diary.epochs if n == record.number] == list(range(1, record.epochs + 1))
    for pid in {line["pid"] for line in log}:
        steps = [line["what"] for line in log if line["pid"] == pid]
        assert steps == ["begin", "end"] * (len(steps) // 2)


def test_trials_whose_loss_or_metric_is_not_finite_fail_with_their_reason(tmp_path: Path) -> None:
    """They came so far; others go on, and one death of a process costs nothing: each epoch is announced once."""
    spoil = {0.1: "nan", 0.2: "failure", 0.3: "death", 0.4: ""}
    diary = Diary()
    spec = spec_of(trials=4, search={"dropout": Choice(tuple(spoil))})
    result = run(tmp_path, spec, diary, spoil={f"{key:.6f}": value for key, value in spoil.items()})
    ends = {spoil[r.settings["dropout"]]: (r.status, r.epochs, r.failure, r.reason) for r in result.records}
    assert ends == {
        "nan": ("failed", 1, "diverged", "val_accuracy became NaN or infinite after epoch 2"),
        "failure": ("failed", 1, "diverged", "train_loss became NaN in epoch 2"),
        "death": ("complete", 3, "", ""),
        "": ("complete", 3, "", ""),
    }
    assert len(diary.finished) == len(result.records)
    for record in result.records:
        assert [epoch for number, epoch in diary.epochs if number == record.number] == list(range(1, record.epochs + 1))


def test_a_quarter_of_a_gpu_runs_four_at_a_time(tmp_path: Path) -> None:
    """With gpus_per_trial 0.25 one GPU carries four trials at a time, no more."""
    spec = spec_of(trials=6, concurrency=None, gpus_per_trial=0.25, config={"epochs": 6})
    run(tmp_path, spec, sleep=0.5)
    assert most_at_a_time(tmp_path) == 4


def test_one_trial_at_a_time_asks_what_the_study_alone_asks_and_can_be_extended(tmp_path: Path) -> None:
    """With concurrency 1 the seed decides every trial, over an extension too; a finished sweep starts nothing."""
    small = spec_of(concurrency=1, trials=9, config={"epochs": 1}, near=0.0)
    large = small.model_copy(update={"trials": 12})
    more, nothing = Diary(), Diary()
    run(tmp_path, small)
    result = run(tmp_path, large, more)
    run(tmp_path, large, nothing)
    with Study.open(tmp_path / "alone", large) as study:
        for asked in asked_of(study):
            complete(study, asked, {"val_accuracy": 1 - asked.config.dropout, "val_loss": 0.5})
        alone = [record.settings for record in study.records()]
    assert [record.settings for record in result.records] == alone
    assert [record.number for record in more.finished] == [9, 10, 11]
    assert nothing.news == []


def test_after_the_hours_nothing_starts_but_what_confirms_and_what_runs_finishes(tmp_path: Path) -> None:
    """Trials that the deadline overtakes end complete; the sweep is out of time only if it still owes some."""
    spec = spec_of(trials=9, hours=4 / 3600, config={"epochs": 10})
    result = run(tmp_path, spec, confirm=confirmed_once, sleep=0.5)
    assert [(record.epochs, record.confirms) for record in result.records] == [(10, None), (10, None), (10, 0)]
    assert (result.used_up, result.interrupted) == ("hours", False)
    result = run(tmp_path, spec.model_copy(update={"trials": 4}), sleep=0.5)
    assert ([record.status for record in result.records], result.used_up) == (["complete"] * 5, "")


def test_epochs_that_are_used_up_leave_what_confirms(tmp_path: Path) -> None:
    """A larger budget runs it."""
    for budget, confirmed, used_up in ((6, [], "epochs"), (9, [0], "")):
        result = run(tmp_path, spec_of(trials=2, epochs_budget=budget), confirm=confirmed_once)
        assert [record.confirms for record in result.records] == [None, None, *confirmed]
        assert result.used_up == used_up


def test_epochs_and_money_are_counted_over_sessions_and_end_the_sweep(tmp_path: Path) -> None:
    """With 7 epochs three trials of three start; the next session remembers 9, and a larger budget goes on."""
    spec = spec_of(trials=9, concurrency=1, cpus_per_trial=1.0, price="3600/cpu-hour")
    heard: list[BudgetStatus] = []
    for budget, trials, used_up in (
        ({"epochs_budget": 7}, 3, "epochs"),
        ({"epochs_budget": 7}, 3, "epochs"),
        ({"epochs_budget": 10}, 4, "epochs"),
        ({"max_cost": 4 * 1.5}, 4, "cost"),
    ):
        result = run(tmp_path, spec.model_copy(update=budget), sleep=0.5, on_status=heard.append)
        assert (len(result.records), result.used_up) == (trials, used_up)
        assert (heard[-1].spent.epochs, heard[-1].ended) == (3 * trials, trials)
    spent = sum(record.spent.seconds for record in result.records)
    assert spent >= 12 * 0.5
    assert heard[-1].cost == pytest.approx(spent, rel=0.1)


def test_deaths_and_failures_are_paid_too(tmp_path: Path) -> None:
    """A trial whose process died is charged for both attempts: the epoch before the death is trained twice."""
    spec = spec_of(trials=1, search={}, config={"epochs": 3, "dropout": 0.25})
    (record,) = run(tmp_path, spec, sleep=0.2, spoil={"0.250000": "death"}).records
    assert record.spent.epochs == 4
    assert record.spent.seconds >= 5 * 0.2


def test_what_comes_after_the_trials_is_computed_in_the_process_of_the_last_one(tmp_path: Path) -> None:
    """It has loaded everything; what confirms the search ran in it, too. Where it dies another one is started."""
    cpus = ray.cluster_resources()["CPU"]
    with light_work(tmp_path, spec_of(trials=1, cpus_per_trial=4.0), "quick_runner", {}) as work:
        run_trials(work, [Diary()], confirm=confirmed_once)
        pid = run_task(work, "quick_runner:pid", {})
        assert [line["pid"] for line in log_of(tmp_path)] == [pid] * 12
        os.kill(pid, signal.SIGKILL)
        another = run_task(work, "quick_runner:pid", {})
        assert another != pid
        assert run_task(work, "quick_runner:pid", {}) == another
    wait_for_cpus(cpus)


def test_of_several_processes_the_last_one_alone_is_kept(tmp_path: Path) -> None:
    """The others end with the trials. A sweep whose trials get more than it has gets another process."""
    cpus = ray.cluster_resources()["CPU"]
    with light_work(tmp_path, spec_of(trials=4, cpus_per_trial=1.0), "quick_runner", {"sleep": 0.5}) as work:
        run_trials(work, [Diary()])
        pids = {line["pid"] for line in log_of(tmp_path)}
        assert len(pids) == 2
        wait_for_cpus(cpus - 1)
        assert run_task(work, "quick_runner:pid", {}) in pids
        larger = replace(work, spec=spec_of(trials=4, cpus_per_trial=2.0))
        assert run_task(larger, "quick_runner:pid", {}) not in pids
        wait_for_cpus(cpus - 2)
    wait_for_cpus(cpus)


def test_a_stop_at_once_waits_for_no_epoch_and_leaves_the_trials_to_the_next_run(tmp_path: Path) -> None:
    """Processes in an epoch of a minute end within seconds; the next run is handed the same trials first."""

    class Stopper(Diary):
        def trial_changed(self, record: TrialRecord) -> None:
            super().trial_changed(record)
            if len(self.news) == 2:
                ask_to_stop(tmp_path / "sweep", now=True)

    spec, start = spec_of(trials=4), time.monotonic()
    result = run(tmp_path, spec, Stopper(), sleep=60.0)
    assert time.monotonic() - start < 50
    assert ([record.status for record in result.records], result.interrupted) == (["running"] * 2, True)
    with Study.open(tmp_path / "sweep", spec) as study:
        assert [asked.number for asked in asked_of(study)] == [0, 1, 2, 3]


def test_an_observer_that_fails_ends_the_sweep_resumably(tmp_path: Path) -> None:
    """An exception of the observer's comes out of the engine as it is, and no trial is blamed for it."""

    class Broken(Diary):
        def trial_changed(self, record: TrialRecord) -> None:
            if record.epochs:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(tmp_path, spec_of(trials=3), Broken())
    with Study.open(tmp_path / "sweep", spec_of(trials=3)) as study:
        assert "failed" not in {record.status for record in study.records()}
        assert study.has_work


def test_a_journal_that_cannot_be_written_ends_the_sweep_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune's traceback is no part of them, whatever the study was told, and the sweep goes on later."""
    append = Journal.append
    for kind in ("user_attrs", "step", "user_attr"):  # a trial that is asked, an epoch, an end
        folder = tmp_path / kind
        folder.mkdir()

        def full(journal: Journal, log: Mapping[str, Any], kind: str = kind) -> None:
            if kind in log and (kind == "user_attrs" or "trial_id" in log):
                raise OutputError("no room")
            append(journal, log)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", full)
            with pytest.raises(OutputError) as raised:
                run(folder, spec_of(trials=2))
        assert str(raised.value) == "no room"
        with Study.open(folder / "sweep", spec_of(trials=2)) as study:
            assert "failed" not in {record.status for record in study.records()}
            assert study.has_work
