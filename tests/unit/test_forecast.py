"""What a sweep still takes, against sums done by hand."""

from __future__ import annotations

import random

import pytest

from sweeps.budget import Budget, Prices, Spent
from sweeps.forecast import Forecast, Halving, Pace, Rest, expected_epochs, forecast

RUNGS = Halving((1, 3), reduction=3)


def rest_of(trials: int, *, concurrency: int = 1, seconds: float = float("inf")) -> Rest:
    """New trials of nine epochs, each on one core and a GPU."""
    return Rest(trials, planned=9, concurrency=concurrency, cpus=1, gpus=1, seconds=seconds)


def full(epochs: int, seconds: float) -> Pace:
    """A documented trial that ran to its end."""
    return Pace(epochs, epochs, Spent(seconds, epochs, seconds, seconds), ended=True, searched=False)


def look(trials: list[Pace], rest: Rest, halving: Halving = RUNGS, budget: Budget | None = None) -> Forecast:
    """Return the forecast that must be there."""
    spent = sum((trial.spent for trial in trials), Spent())
    found = forecast(trials, rest, halving, budget or Budget(), spent, spent.seconds)
    assert found is not None
    return found


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
    assert expected_epochs(9, RUNGS, done) == pytest.approx(sum(ends) / len(ends), abs=0.1)


def test_nothing_is_foretold_before_anything_was_measured() -> None:
    """A trial that has not finished an epoch says nothing yet."""
    assert forecast([Pace(9, 0, Spent(5.0), ended=False)], rest_of(3), RUNGS, Budget(), Spent(5.0), 5.0) is None


def test_what_is_to_come_are_the_measured_seconds_of_the_expected_epochs() -> None:
    """Two seconds an epoch, 7/3 epochs a trial, three trials on two places: 7 seconds."""
    found = look([full(9, 18.0)], rest_of(3, concurrency=2))
    assert (found.trials, found.epochs, found.seconds) == (3, pytest.approx(7), pytest.approx(7))


def test_reused_trials_do_not_make_the_rest_look_fast() -> None:
    """A trial that was answered from the store has an hour's epochs in no time; the forecast is the same without it."""
    reused = Pace(9, 9, Spent(0.1, 0, 0.1, 0.1), ended=True, fresh=False)
    assert look([full(9, 18.0), reused], rest_of(2)) == look([full(9, 18.0)], rest_of(2))


def test_a_running_trial_is_counted_from_where_it_stands() -> None:
    """A documented trial at epoch 4 of 9 trains five more; nothing else is to come."""
    running = Pace(9, 4, Spent(8.0, 4, 8.0, 8.0), ended=False, searched=False)
    assert look([running], rest_of(0)).seconds == pytest.approx(10)


def test_trials_without_epochs_are_foretold_by_their_mean() -> None:
    """Frozen extractors train nothing: 4 and 6 seconds a trial make 5 for each of two."""
    trials = [Pace(9, 0, Spent(s, 0, s, s), ended=True) for s in (4.0, 6.0)]
    assert look(trials, rest_of(2)).seconds == pytest.approx(10)


def test_money_is_foretold_for_the_share_of_a_trial() -> None:
    """An epoch of 2 s at 3600 a GPU hour costs 2; the next trial of 7/3 epochs costs 14/3."""
    found = look([full(9, 18.0)], rest_of(3), budget=Budget(prices=Prices(gpu_hour=3600)))
    assert (found.cost, found.next_cost) == (pytest.approx(14), pytest.approx(14 / 3))


def test_budgets_limit_what_is_foretold() -> None:
    """Of twenty trials only those are expected that epochs, money or hours allow."""
    done = [full(9, 18.0)]
    prices = Prices(gpu_hour=3600)
    assert look(done, rest_of(20), budget=Budget(epochs=16)).trials == 3
    assert look(done, rest_of(20), budget=Budget(max_cost=18 + 10.0, prices=prices)).trials == 2
    assert look(done, rest_of(20, seconds=10)).trials == 3


def test_waiting_trials_do_not_forbid_each_other() -> None:
    """What the next trial costs counts the first unfinished one and those that run, not all that wait."""
    waiting = [Pace(9, 4, Spent(8.0, 4, 8.0, 8.0), ended=False, searched=False, waiting=True) for _ in range(5)]
    found = look([*waiting, full(9, 18.0)], rest_of(0), budget=Budget(prices=Prices(gpu_hour=3600)))
    assert (found.next_cost, found.cost) == (pytest.approx(10), pytest.approx(50))
