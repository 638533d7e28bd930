"""Prices, budgets, what trials take by a clock that the test turns, and what they still will: sums done by hand."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carcls.errors import SpecError
from carcls.outcome import Measurement
from sweeps.engine.budget import Account, BudgetStatus
from sweeps.engine.resources import Share
from sweeps.results.result import spent_dict
from sweeps.spec.fields import EarlyStopping, Prices, parse_price, survival
from sweeps.spec.loading import load_spec
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.study.records import read_history, read_older_spending
from sweeps.study.study import Asked, Study
from sweeps.trial import NOTHING, Spent, Status, TrialRecord

SHARE = Share(cpus=2, gpus=0.5, concurrency=2)
HELD = (SHARE.cpus, SHARE.gpus)
SPEC = SweepSpec(family="transfer", trials=3, config={"epochs": 4}, search={"dropout": Range(0.0, 0.9)})


@dataclass
class Clock:
    """Shows what it was set to, in seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Session:
    """A driver's session of the sweep in a folder, as far as it measures what trials take."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.study, self.clock = Study.open(folder, SPEC), clock
        self.account = Account(SPEC, SHARE, self.study.records(), clock=clock)
        self.study.note_spending(self.account.read)

    def begin(self) -> Asked:
        """Let a process take up the next trial."""
        asked = self.study.ask()
        assert asked is not None
        self.account.start(asked.number, *HELD)
        return asked

    def report(self, number: int, epoch: int, seconds: float, *, trained: bool = True) -> None:
        """Let the trial report an epoch after so many seconds."""
        self.clock.now += seconds
        if trained:
            self.account.train(number)
        self.study.report(number, Measurement(epoch, {"val_accuracy": 0.5}, trained))


def record(number: int, status: Status = "running", **changes: object) -> TrialRecord:
    """A trial of four epochs."""
    fields = {"metrics": {}, "epochs": 0, "seconds": 0.0, "experiment": None, "settings": {}, "config": {"epochs": 4}}
    return TrialRecord(**{"number": number, "status": status, **fields, **changes})  # type: ignore[arg-type]


def trained(number: int, status: Status, epochs: int, seconds: float = 10.0, **changes: object) -> TrialRecord:
    """A trial that trained so many epochs, each in ``seconds``."""
    spent = SHARE.spend(epochs * seconds, epochs)
    return record(number, status, epochs=epochs, spent=spent, **changes)


def status_of(*records: TrialRecord, **budgets: object) -> BudgetStatus:
    """Return the status of a sweep with nine trials to come."""
    spec = load_spec("transfer", overrides=budgets)
    return Account(spec, SHARE, records, clock=Clock()).status(9)


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        ("2.5/gpu-hour", Prices(gpu_hour=2.5)),
        (" .05 / cpu-hour", Prices(cpu_hour=0.05)),
        ("€3/hour", Prices(hour=3.0, currency="€")),
        ("2/gpu-hour+0.1/cpu-hour+1/hour", Prices(2.0, 0.1, 1.0)),
    ],
)
def test_prices_are_read(text: str, prices: Prices) -> None:
    """Amount, unit and currency are what the text says; several prices add up."""
    assert parse_price(text) == prices


@pytest.mark.parametrize(
    "text", ["2.5", "2.5/day", "-1/hour", "1e3/hour", "x/gpu-hour", "", "1/hour+2/hour", "$1/hour+€1/gpu-hour"]
)
def test_what_is_no_price_is_a_mistake(text: str) -> None:
    """A mistake in a price is told with what it should look like, not taken for another price."""
    with pytest.raises(ValueError, match="price must"):
        parse_price(text)


def test_a_trial_costs_its_share_and_a_sweep_its_hours() -> None:
    """Half an hour on half a GPU and four cores, in a sweep of two hours: 0.25, 2 and 2 hours are paid."""
    spent = Share(cpus=4, gpus=0.5, concurrency=2).spend(1800, epochs=3, wall=7200)
    assert Prices(gpu_hour=8, cpu_hour=0.5, hour=10).cost_of(spent) == pytest.approx(0.25 * 8 + 2 * 0.5 + 2 * 10)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"max_cost": 40.0}, "must come with a price"),
        ({"price": "2/day"}, "AMOUNT/gpu-hour"),
        ({"disk": "20"}, "a size in kB, MB, GB or TB"),
        ({"epochs_budget": -1}, "at least 0"),
    ],
)
def test_budgets_that_cannot_be_meant_are_mistakes_of_the_spec(overrides: dict[str, object], words: str) -> None:
    """Each is told in one sentence before anything starts."""
    with pytest.raises(SpecError, match=words):
        load_spec("transfer", overrides=overrides)


def test_budgets_are_no_part_of_what_a_sweep_is() -> None:
    """A sweep may be given other budgets: its digest stays."""
    bare = load_spec("transfer")
    spec = load_spec("transfer", overrides={"epochs_budget": 9, "price": "2/gpu-hour", "max_cost": 5.0, "disk": "20GB"})
    assert spec.digest == bare.digest
    assert (spec.epochs_budget, spec.max_cost, spec.prices) == (9, 5.0, Prices(gpu_hour=2.0))


def test_every_report_is_in_the_journal_with_the_trials_share(tmp_path: Path) -> None:
    """After two epochs of ten seconds a kill loses nothing: 20 s, on two cores and half a GPU."""
    session = Session(tmp_path, Clock())
    session.clock.now += 5  # before the first trial
    number = session.begin().number
    for epoch in (1, 2):
        session.report(number, epoch, 10.0)
    (killed,) = read_history(tmp_path).records
    assert (killed.spent, killed.seconds) == (Spent(20.0, 2, 40.0, 10.0, wall=25.0), 20.0)


def test_a_sweep_that_goes_on_remembers_what_it_spent(tmp_path: Path) -> None:
    """The second session counts on: epochs, seconds and wall time of both; an epoch that is told again is free."""
    session = Session(tmp_path, Clock())
    number = session.begin().number
    for epoch in (1, 2):
        session.report(number, epoch, 10.0)
    again = Session(tmp_path, Clock(0.0))
    assert again.begin().number == number
    for epoch in (1, 2):
        again.report(number, epoch, 0.0, trained=False)
    again.report(number, 3, 15.0)
    assert again.study.record(number).spent == Spent(35.0, 3, 70.0, 17.5, wall=35.0)
    again.clock.now += 5
    again.study.tell_complete(number, {"metrics": {"val_accuracy": 0.5}, "epochs": 4, "seconds": 19.5})
    (ended,) = read_history(tmp_path).records
    assert (ended.spent, ended.seconds) == (Spent(40.0, 3, 80.0, 20.0, wall=40.0), 19.5)


@pytest.mark.parametrize("way", ["released", "given back", "failed"])
def test_what_a_trial_took_after_its_last_epoch_is_in_the_journal(tmp_path: Path, way: str) -> None:
    """Also where the trial ends otherwise than with a report: it is left for the next session, lost, or failed."""
    session = Session(tmp_path, Clock())
    number = session.begin().number
    session.clock.now += 10
    if way == "released":
        session.study.release()
    elif way == "given back":
        session.study.hand_back(number, counted=True, why="killed")
    else:
        session.study.tell_failed(number, "a bug", "bug")
    assert read_history(tmp_path).records[0].spent.seconds == 10.0


def test_every_attempt_costs_its_share_but_no_gpu_that_it_could_not_use() -> None:
    """The time between attempts is nobody's; a GPU that the next one can use counts from then on."""
    clock = Clock()
    account = Account(SPEC, SHARE, [], clock=clock)
    assert account.read(0) is None
    spent = [Spent(10.0, 0, 20.0, 0.0, wall=10.0), Spent(20.0, 0, 60.0, 5.0, wall=120.0)]
    for cpus, saw_gpu, so_far in ((2, False, spent[0]), (4, True, spent[1])):
        account.start(0, cpus, 0.5)
        clock.now += 4
        account.status(1)  # somebody who looks in between changes nothing
        assert account.read(0) is not None
        clock.now += 6
        account.stop(0, saw_gpu=saw_gpu)
        assert account.read(0) == so_far
        clock.now += 100


def test_a_trial_that_is_handed_out_again_begins_anew(tmp_path: Path) -> None:
    """What it may have open since then is not cleared away; of the time between two sessions nobody has anything."""
    first = Session(tmp_path, Clock())
    number = first.begin().number
    began = first.study.record(number).began
    second = Session(tmp_path, Clock())
    assert second.study.record(number).began == began
    second.begin()
    assert second.study.record(number).began > began


def test_what_older_versions_wrote_is_counted_on(tmp_path: Path) -> None:
    """Of spending.jsonl the last line of each trial and session counts; lines that a dying machine tore do not."""
    times = [(1, 0, 4.0, 1, 9.0), (1, 0, 6.0, 2, 11.0), (1, 1, 1.0, 0, 12.0), (2, 1, 5.0, 1, 7.0)]
    names = ("sitting", "trial", "seconds", "epochs", "wall")
    lines = [{**dict(zip(names, line, strict=True)), "cpu_seconds": 2.0, "gpu_seconds": 0.0} for line in times]
    torn = ['{"sitting": 2, "trial": 0, "seco', "\0\0\0", "7", "[]"]
    (tmp_path / "spending.jsonl").write_text("\n".join([*map(json.dumps, lines), *torn]))
    spent = {0: Spent(6.0, 2, 2.0, wall=19.0), 1: Spent(6.0, 1, 4.0, wall=19.0)}
    assert read_older_spending(tmp_path) == spent
    with Study.open(tmp_path, SPEC) as study:
        study.ask()
    session = Session(tmp_path, Clock())
    session.begin()
    session.report(0, 1, 10.0)
    assert read_history(tmp_path).records[0].spent == Spent(16.0, 3, 22.0, 5.0, wall=29.0)


def test_of_the_oldest_sweeps_the_journal_tells_what_the_last_attempt_took(tmp_path: Path) -> None:
    """What the store answered trained nothing, and took the time of looking it up."""
    with Study.open(tmp_path, SPEC) as study:
        for reused in (False, True):
            asked = study.ask()
            assert asked is not None
            study.tell_complete(
                asked.number, {"metrics": {"val_accuracy": 0.5}, "epochs": 3, "seconds": 9.0, "reused": reused}
            )
        study.tell_complete(study.ask().number, {"metrics": {"val_accuracy": 0.5}, "epochs": 0})  # type: ignore[union-attr]
    assert [one.spent for one in read_history(tmp_path).records] == [Spent(9.0, 3), Spent(9.0), NOTHING]


def test_the_epochs_of_all_trials_end_a_sweep() -> None:
    """With a budget of five a trial may start after four epochs, and none after five."""
    for last, used_up in ((0, ""), (1, "epochs")):
        records = [trained(0, "complete", 4), trained(1, "running", last)]
        spec = load_spec("transfer", overrides={"epochs_budget": 5})
        assert Account(spec, SHARE, records).used_up(9) == used_up


def test_a_trial_that_would_cost_too_much_does_not_start() -> None:
    """An epoch costs 1, a trial of four 4: with 12 in all a third one may start, and beside it no other."""
    never_stopped = {"early_stopping": {"enabled": False}, "epochs": 4}
    budgets = {"price": "720/gpu-hour", "max_cost": 12.0, **never_stopped}
    records = [trained(number, "complete", 4) for number in (0, 1)]
    status = status_of(*records, **budgets)
    assert (status.cost, status.next_cost) == (pytest.approx(8), pytest.approx(4))
    account = Account(load_spec("transfer", overrides=budgets), SHARE, records)
    assert account.used_up(9) == ""
    account.note(trained(2, "running", 1))
    assert account.used_up(9) == "cost"


def test_reports_and_records_make_the_same_status() -> None:
    """Whoever was told of every trial as it ran has the sums of one that reads all records at once."""
    ends = [trained(0, "complete", 4, metrics={"val_accuracy": 0.6}), trained(1, "pruned", 1), trained(2, "running", 2)]
    spec = load_spec("transfer")
    told = Account(spec, SHARE, [], clock=Clock())
    for end in ends:
        for epochs in range(end.epochs):
            told.note(trained(end.number, "running", epochs))
        told.note(end)
    assert told.status(3) == Account(spec, SHARE, ends, clock=Clock()).status(3)
    assert told.status(3).spent.epochs == 7


def test_how_far_a_sweep_is_counts_earlier_sessions() -> None:
    """Ended trials and the best one are those of the whole sweep; a pruned trial is never it, a derived one may be."""
    records = [
        record(0, "complete", metrics={"val_accuracy": 0.6}),
        record(1, "pruned", metrics={"val_accuracy": 0.9}, epochs=1),
        record(2),
        record(3, "complete", metrics={"val_accuracy": 0.5}, derived_from=0),
        record(4, "complete", metrics={"val_accuracy": 0.7}, derived_from=0),
    ]
    status = status_of(*records[:4])
    assert (status.ended, status.best) == (2, records[0])
    status = status_of(*records)
    assert (status.ended, status.best) == (2, records[4])


def test_the_best_is_the_one_that_would_win() -> None:
    """The first objective decides among trials that keep the constraints; a run with a fresh seed is none of them."""
    metrics = [(0.9, 9.0, 9e6), (0.8, 5.0, 1e6), (0.7, 3.0, 2e6), (0.7, 2.0, 9e6), (0.1, 1.0, 1e6)]
    names = ("val_accuracy", "predict_ms", "parameters")
    records = [
        record(number, "complete", metrics=dict(zip(names, measured, strict=True)), confirms=2 if number == 4 else None)
        for number, measured in enumerate(metrics)
    ]
    goals = {"objectives": ["predict_time", "accuracy"], "constraints": ["parameters <= 5M"]}
    assert status_of(*records, **goals).best == records[2]
    assert status_of(*records).best == records[0]


def test_the_result_tells_what_was_spent_on_what() -> None:
    """Seconds, epochs and money of all, and of each status; the hourly price of the sweep is in the whole only."""
    records = [
        record(0, "complete", spent=Spent(20.0, 2, 40.0, 10.0, wall=20.0)),
        record(1, "pruned", spent=Spent(10.0, 1, 20.0, 5.0, wall=30.0)),
        record(2, "complete", derived_from=0),
    ]
    spent = spent_dict(records, Prices(gpu_hour=3600, hour=3600))
    assert (spent["seconds"], spent["epochs"], spent["cost"], spent["currency"]) == (30.0, 3, 15.0 + 30.0, "$")
    assert spent["by_status"]["pruned"] == {"seconds": 10.0, "epochs": 1, "cost": 5.0}
    assert spent_dict(records, None)["cost"] is None


STOPPING = EarlyStopping(min_epochs=1)  # rungs at 1 and 3 of 9 epochs
GPU = {"price": "3600/gpu-hour"}  # a second costs 1


def trial(done: int, seconds: float, status: Status = "complete", number: int = 0, **changes: object) -> TrialRecord:
    """A documented trial that came to epoch ``done`` of nine on one core and a GPU."""
    spent = Spent(seconds, done, seconds, seconds, wall=seconds)
    fields = {"config": {"epochs": 9}, "experiment": "x", "epochs": done, "seconds": seconds, "spent": spent}
    return record(number, status, **{**fields, **changes})


def look(
    trials: list[TrialRecord],
    left: int,
    *,
    waiting: bool = False,
    concurrency: int = 1,
    seconds: float = float("inf"),
    **changes: object,
) -> BudgetStatus:
    """Return the status of a sweep of nine epochs a trial; ``waiting`` trials have not begun again."""
    spec = SPEC.model_copy(update={"config": {"epochs": 9}, "early_stopping": STOPPING, **changes})
    account = Account(spec, Share(cpus=1, gpus=1, concurrency=concurrency), trials, seconds, lambda: 0.0)
    for one in trials:
        if one.status == "running" and not waiting:
            account.note(one)
    return account.status(left)


@pytest.mark.parametrize("done", [0, 1, 2, 3, 8])
def test_expected_epochs_are_the_mean_of_trials_that_survive_each_rung_by_chance(done: int) -> None:
    """The closed form agrees with ten thousand trials of which each rung lets one in three go on."""
    dice, ends = random.Random(0), []
    for _ in range(10_000):
        end = 9
        for rung in (1, 3):
            if rung > done and dice.random() > 1 / 3:
                end = rung
                break
        ends.append(end)
    assert done + sum(survival(STOPPING, 9, done)) == pytest.approx(sum(ends) / len(ends), abs=0.1)


ONE = trial(9, 18.0)  # two seconds an epoch, so a new one of 7/3 expected epochs takes 14/3 seconds
REUSED = trial(9, 0.1, spent=Spent(0.1, 0, 0.1, 0.1), reused=True)


@pytest.mark.parametrize(
    ("trials", "left", "options", "seconds"),
    [
        # A trial that has not finished an epoch says nothing yet.
        ([trial(0, 5.0, "running")], 3, {}, None),
        ([ONE], 3, {"concurrency": 2}, 7),
        # Three that ran to their end, beside the expectation, which counts as three.
        ([trial(9, 18.0, experiment=None)] * 3, 1, {}, (3 + 3 * 27 / 7) / 6 * 14 / 3),
        # One that was answered from the store has an hour's epochs in no time, and makes the rest no faster.
        ([ONE, REUSED], 2, {}, 28 / 3),
        # A documented trial at epoch 4 of 9 trains five more; nothing else is to come.
        ([trial(4, 8.0, "running")], 0, {}, 10),
        # Frozen extractors train nothing, and take the mean of those that ended.
        ([trial(0, 4.0), trial(0, 6.0)], 2, {}, 10),
        ([trial(0, 4.0), trial(0, 6.0), trial(0, 3.0, "running")], 0, {}, 2),
        # Of twenty trials no more is expected than epochs, money or hours allow.
        ([ONE], 20, {"epochs_budget": 16}, 14),
        ([ONE], 20, {"max_cost": 18 + 10.0, **GPU}, 10),
        ([ONE], 20, {"seconds": 10}, 10),
    ],
)
def test_what_is_to_come_is_foretold(
    trials: list[TrialRecord], left: int, options: dict[str, Any], seconds: float | None
) -> None:
    """By the measured seconds of the expected epochs."""
    found = look(trials, left, **options).seconds_left
    assert found == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("trials", "left", "costs"),
    [
        ([ONE], 3, (14, 14 / 3)),
        # The next trial is the first unfinished one, beside those that run, not all that wait.
        ([ONE, *(trial(4, 8.0, "running", number=number) for number in range(1, 6))], 0, (50, 10)),
    ],
)
def test_money_is_foretold_for_the_share_of_a_trial(
    trials: list[TrialRecord], left: int, costs: tuple[float, float]
) -> None:
    """An epoch of 2 s at 3600 a GPU hour costs 2."""
    status = look(trials, left, waiting=True, **GPU)
    assert (status.cost_left, status.next_cost) == (pytest.approx(costs[0]), pytest.approx(costs[1]))
