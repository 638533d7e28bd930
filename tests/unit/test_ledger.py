"""The books of a sweep: by a clock that the test turns, over sittings, deaths and torn lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeps.budget import Prices, Spent
from sweeps.ledger import Ledger
from sweeps.record import Status, TrialRecord
from sweeps.resources import Share
from sweeps.spec import SweepSpec
from sweeps.spec_loading import load_spec
from sweeps.spending import FILE, SpendingLog, read_spending, spent_by, spent_dict
from sweeps.winner import with_time

SHARE = Share(cpus=2, gpus=0.5, concurrency=2)


@dataclass
class Clock:
    """Shows what it was set to, in seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def record(number: int, status: Status = "running", **changes: object) -> TrialRecord:
    """A trial of four epochs."""
    fields = {"metrics": {}, "epochs": 0, "seconds": 0.0, "experiment": None, "settings": {}, "config": {"epochs": 4}}
    return TrialRecord(number=number, status=status, **{**fields, **changes})  # type: ignore[arg-type]


def open_ledger(folder: Path, clock: Clock, records: list[TrialRecord] = [], **budgets: object) -> Ledger:  # noqa: B006
    """Sit down to the sweep in ``folder``."""
    spending = read_spending(folder)
    spec: SweepSpec = load_spec("transfer", overrides=budgets)
    return Ledger(spec, SHARE, SpendingLog(folder, spending.sittings + 1), records, spending, clock=clock)


def train(ledger: Ledger, clock: Clock, number: int, epochs: int, seconds: float = 10.0) -> None:
    """Let a trial begin and report."""
    ledger.ask(number, 4, searched=True)
    ledger.start(number)
    for epoch in range(1, epochs + 1):
        clock.now += seconds
        ledger.beat(number, epoch, trained=True)


def test_every_report_is_on_disk_with_the_trials_share(tmp_path: Path) -> None:
    """After two epochs of ten seconds a kill loses nothing: 20 s, on two cores and half a GPU."""
    clock = Clock()
    train(open_ledger(tmp_path, clock), clock, 0, 2)
    assert read_spending(tmp_path).trials == {0: Spent(20.0, 2, 40.0, 10.0)}
    assert read_spending(tmp_path).wall == 20.0


def test_a_sweep_that_goes_on_remembers_what_it_spent(tmp_path: Path) -> None:
    """The second sitting counts on: epochs, seconds and wall time of both; an epoch that is told again is free."""
    clock = Clock()
    train(open_ledger(tmp_path, clock), clock, 0, 2)
    again = open_ledger(tmp_path, clock, [record(0)])
    again.ask(0, 4, searched=True)
    again.start(0)
    again.beat(0, 1, trained=False)
    again.beat(0, 2, trained=False)
    clock.now += 15
    again.beat(0, 3, trained=True)
    assert again.standing(0).spent == Spent(35.0, 3, 70.0, 17.5)
    assert read_spending(tmp_path).trials[0] == Spent(35.0, 3, 70.0, 17.5)
    assert (read_spending(tmp_path).wall, read_spending(tmp_path).sittings) == (35.0, 2)


def test_a_gpu_that_a_trial_could_not_use_is_not_booked(tmp_path: Path) -> None:
    """Its process is; a GPU that the next one can use counts from then on."""
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    train(ledger, clock, 0, 0)
    clock.now += 10
    ledger.end(0, saw_gpu=False)
    assert read_spending(tmp_path).trials == {0: Spent(10.0, 0, 20.0, 0.0)}
    train(ledger, clock, 0, 1)
    assert read_spending(tmp_path).trials == {0: Spent(20.0, 1, 40.0, 5.0)}


def test_attempts_of_processes_that_died_cost_too(tmp_path: Path) -> None:
    """Ten seconds until a process died and ten of the next one are twenty."""
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.ask(0, 4, searched=True)
    for _ in range(2):
        ledger.start(0)
        clock.now += 10
        ledger.end(0)
        clock.now += 100  # nothing runs meanwhile
    assert ledger.standing(0).spent.seconds == 20


def test_torn_lines_are_passed_over_and_not_written_onto(tmp_path: Path) -> None:
    """A line that a dying machine left torn costs that line alone."""
    clock = Clock()
    train(open_ledger(tmp_path, clock), clock, 0, 2)
    whole = (tmp_path / FILE).read_bytes()
    for cut in range(len(whole) - 40, len(whole)):
        (tmp_path / FILE).write_bytes(whole[:cut])
        train(open_ledger(tmp_path, clock), clock, 1, 1)
        spending = read_spending(tmp_path)
        assert spending.trials[1] == Spent(10.0, 1, 20.0, 5.0)
        assert spending.trials[0].epochs in (1, 2)


def test_the_epochs_of_all_trials_end_a_sweep(tmp_path: Path) -> None:
    """With a budget of five a trial may start after four epochs, and none after five."""
    clock = Clock()
    ledger = open_ledger(tmp_path, clock, epochs_budget=5)
    train(ledger, clock, 0, 4)
    assert ledger.used_up(9) == ""
    train(ledger, clock, 1, 1)
    assert ledger.used_up(9) == "epochs"


def test_a_trial_that_would_cost_too_much_does_not_start(tmp_path: Path) -> None:
    """An epoch costs 1, a trial of four 4: with 12 in all a third one may start, and beside it no other."""
    clock = Clock()
    never_stopped = {"early_stopping": {"enabled": False}, "epochs": 4}
    ledger = open_ledger(tmp_path, clock, price="720/gpu-hour", max_cost=12.0, **never_stopped)
    for number in (0, 1):
        train(ledger, clock, number, 4)
        ledger.settle(record(number, "complete", epochs=4))
    standing = ledger.standing(9)
    assert standing.forecast is not None
    assert (standing.cost, standing.forecast.next_cost) == (pytest.approx(8), pytest.approx(4))
    assert ledger.used_up(9) == ""
    train(ledger, clock, 2, 1)
    assert ledger.used_up(9) == "cost"


def test_how_far_a_sweep_is_counts_earlier_sittings(tmp_path: Path) -> None:
    """Ended trials and the best one are those of the whole sweep; a pruned trial is never the best."""
    records = [
        record(0, "complete", metrics={"val_accuracy": 0.6}),
        record(1, "pruned", metrics={"val_accuracy": 0.9}),
        record(2),
    ]
    standing = open_ledger(tmp_path, Clock(), records).standing(3)
    assert (standing.ended, standing.best) == (2, (0, 0.6))


def test_the_best_is_the_one_that_would_win(tmp_path: Path) -> None:
    """The first objective decides among trials that keep the constraints; a run with a fresh seed is none of them."""
    metrics = [(0.9, 9.0, 9e6), (0.8, 5.0, 1e6), (0.7, 3.0, 2e6), (0.7, 2.0, 9e6), (0.1, 1.0, 1e6)]
    names = ("val_accuracy", "predict_ms", "parameters")
    records = [
        record(number, "complete", metrics=dict(zip(names, measured, strict=True)), confirms=2 if number == 4 else None)
        for number, measured in enumerate(metrics)
    ]
    goals = {"objectives": ["predict_time", "accuracy"], "constraints": ["parameters <= 5M"]}
    assert open_ledger(tmp_path, Clock(), records, **goals).standing(3).best == (2, 3.0)
    assert open_ledger(tmp_path, Clock(), records).standing(3).best == (0, 0.9)


def test_an_interrupted_trial_shows_its_time(tmp_path: Path) -> None:
    """A trial that told no time before the sweep stopped took what the books say; one that ended took what it told."""
    clock = Clock()
    train(open_ledger(tmp_path, clock), clock, 0, 2)
    spending = read_spending(tmp_path)
    assert with_time(record(0), spending).seconds == 20.0
    assert with_time(record(0, "failed"), spending).seconds == 20.0
    assert with_time(record(0, "complete", seconds=19.5), spending).seconds == 19.5


def test_a_sweep_without_the_file_is_counted_from_its_journal() -> None:
    """Trials of older sweeps took what the last attempt took; what the store answered trained nothing."""
    nothing = read_spending(Path("/nowhere"))
    assert spent_by(record(0, "complete", seconds=9.0, epochs=3), nothing) == Spent(9.0, 3)
    assert spent_by(record(0, "complete", seconds=9.0, epochs=3, reused=True), nothing) == Spent(9.0, 0)
    assert spent_by(record(0, "complete", seconds=9.0, epochs=3, sibling_of=4), nothing) == Spent()


def test_the_result_tells_what_was_spent_on_what(tmp_path: Path) -> None:
    """Seconds, epochs and money of all, and of each status; the hourly price of the sweep is in the whole only."""
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    train(ledger, clock, 0, 2)
    ledger.end(0)
    train(ledger, clock, 1, 1)
    records = [record(0, "complete"), record(1, "pruned")]
    spent = spent_dict(records, read_spending(tmp_path), Prices(gpu_hour=3600, hour=3600))
    assert (spent["seconds"], spent["epochs"], spent["cost"], spent["currency"]) == (30.0, 3, 15.0 + 30.0, "$")
    assert spent["by_status"]["pruned"] == {"seconds": 10.0, "epochs": 1, "cost": 5.0}
    assert spent_dict(records, read_spending(tmp_path), None)["cost"] is None
