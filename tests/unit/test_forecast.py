"""What a sweep still takes, against sums done by hand."""

from __future__ import annotations

import random

import pytest

from sweeps.engine.forecast import Account, BudgetStatus
from sweeps.engine.resources import Share
from sweeps.spec.fields import EarlyStopping, survival
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.trial import Spent, Status, TrialRecord

STOPPING = EarlyStopping(min_epochs=1)  # rungs at 1 and 3 of 9 epochs
GPU = {"price": "3600/gpu-hour"}  # a second costs 1


def trial(done: int, seconds: float, status: Status = "complete", **changes: object) -> TrialRecord:
    """A documented trial that came to epoch ``done`` of nine on one core and a GPU."""
    fields = {"number": 0, "settings": {}, "config": {"epochs": 9}, "metrics": {}, "seconds": seconds, "epochs": done}
    spent = Spent(seconds, done, seconds, seconds, wall=seconds)
    return TrialRecord(**{**fields, "experiment": "x", "status": status, "spent": spent, **changes})  # type: ignore[arg-type]


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
    search = {"dropout": Range(0.0, 0.9)}
    fields = {"family": "transfer", "config": {"epochs": 9}, "search": search, "early_stopping": STOPPING}
    share = Share(cpus=1, gpus=1, concurrency=concurrency)
    account = Account(SweepSpec.model_validate({**fields, **changes}), share, trials, seconds, lambda: 0.0)
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


def test_nothing_is_foretold_before_anything_was_measured() -> None:
    """A trial that has not finished an epoch says nothing yet."""
    assert look([trial(0, 5.0, "running")], 3).seconds_left is None


def test_what_is_to_come_are_the_measured_seconds_of_the_expected_epochs() -> None:
    """Two seconds an epoch, 7/3 epochs a trial, three trials on two places: 7 seconds."""
    assert look([trial(9, 18.0)], 3, concurrency=2).seconds_left == pytest.approx(7)


def test_searched_trials_that_run_longer_than_expected_make_the_rest_longer() -> None:
    """Three that ran to their end, beside the expectation, which counts as three: (3 + 3 × 27/7) / 6 times 14/3 s."""
    longer = look([trial(9, 18.0, experiment=None)] * 3, 1)
    assert longer.seconds_left == pytest.approx((3 + 3 * 27 / 7) / 6 * 14 / 3)


def test_reused_trials_do_not_make_the_rest_look_fast() -> None:
    """A trial that was answered from the store has an hour's epochs in no time; the forecast is the same without it."""
    reused = trial(9, 0.1, spent=Spent(0.1, 0, 0.1, 0.1), reused=True)
    assert look([trial(9, 18.0), reused], 2).seconds_left == look([trial(9, 18.0)], 2).seconds_left


def test_a_running_trial_is_counted_from_where_it_stands() -> None:
    """A documented trial at epoch 4 of 9 trains five more; nothing else is to come."""
    assert look([trial(4, 8.0, "running")], 0).seconds_left == pytest.approx(10)


def test_trials_without_epochs_are_foretold_by_their_mean() -> None:
    """Frozen extractors train nothing: 4 and 6 seconds a trial make 5 for each of two, and 2 after 3 of one."""
    trials = [trial(0, seconds) for seconds in (4.0, 6.0)]
    assert look(trials, 2).seconds_left == pytest.approx(10)
    assert look([*trials, trial(0, 3.0, "running")], 0).seconds_left == pytest.approx(2)


def test_money_is_foretold_for_the_share_of_a_trial() -> None:
    """An epoch of 2 s at 3600 a GPU hour costs 2; the next trial of 7/3 epochs costs 14/3."""
    status = look([trial(9, 18.0)], 3, **GPU)
    assert (status.cost_left, status.next_cost) == (pytest.approx(14), pytest.approx(14 / 3))


def test_budgets_limit_what_is_foretold() -> None:
    """Of twenty trials of 14/3 seconds only those are expected that epochs, money or hours allow."""
    done = [trial(9, 18.0)]
    assert look(done, 20, epochs_budget=16).seconds_left == pytest.approx(3 * 14 / 3)
    assert look(done, 20, max_cost=18 + 10.0, **GPU).seconds_left == pytest.approx(2 * 14 / 3)
    assert look(done, 20, seconds=10).seconds_left == pytest.approx(3 * 14 / 3)


def test_waiting_trials_do_not_forbid_each_other() -> None:
    """What the next trial costs counts the first unfinished one and those that run, not all that wait."""
    waiting = [trial(4, 8.0, "running", number=number) for number in range(1, 6)]
    status = look([trial(9, 18.0), *waiting], 0, waiting=True, **GPU)
    assert (status.next_cost, status.cost_left) == (pytest.approx(10), pytest.approx(50))
