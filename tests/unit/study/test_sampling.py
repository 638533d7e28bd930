"""What the sampler is shown: the same as if it had all trials, in a time that does not grow with them."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.spec.objectives import ACCURACY_ALONE
from sweeps.spec.space import Choice, Domain, Range
from sweeps.study.sampling import (
    MOST_SHOWN,
    STARTUP_TRIALS,
    Sampler,
    _most_telling,
    _tpe,
    seed_of,
    to_distribution,
)
from sweeps.trial import Status, TrialRecord

SEARCH: dict[str, Domain] = {
    "dropout": Range(0.0, 0.7),
    "head_lr": Range(1e-4, 1e-2, log=True),
    "optimizer": Choice(("adam", "adamw")),
}
DISTRIBUTIONS = {name: to_distribution(domain) for name, domain in SEARCH.items()}


def _records(count: int) -> list[TrialRecord]:
    """Return trials of every kind: complete, stopped, failed, running, and some that lack a parameter."""
    dice, records = random.Random(0), []
    for number in range(count):
        settings: dict[str, Any] = {
            "dropout": dice.uniform(0, 0.7),
            "head_lr": 10 ** dice.uniform(-4, -2),
            "optimizer": dice.choice(("adam", "adamw")),
        }
        if number % 11 == 3:
            del settings["dropout"]
        statuses: tuple[Status, ...] = ("pruned", "failed", "running", "complete")
        metrics = {"val_accuracy": dice.random()}
        epochs = 0 if number % 5 == 0 else 2
        records.append(TrialRecord(number, None, settings, {}, statuses[min(number % 7, 3)], metrics, epochs, 1.0))
    return records


def _trial(record: TrialRecord) -> FrozenTrial:
    """Return the trial as a study of Optuna would have it, with all it has measured."""
    value = record.metrics["val_accuracy"]
    trial = create_trial(
        state=TrialState["FAIL" if record.status == "failed" else record.status.upper()],
        value=value if record.status == "complete" else None,
        params=dict(record.settings),
        distributions={name: DISTRIBUTIONS[name] for name in record.settings},
        intermediate_values={1: value / 2, 2: value} if record.epochs else {},
    )
    trial.number = record.number
    return trial


def test_draws_are_those_of_a_study_that_holds_the_trials() -> None:
    """Trials that are shown without being stored lead to the settings that optuna draws from a study of its own."""
    records = _records(60)
    sampler = Sampler(SEARCH, 3)
    for count in (0, 5, 30, 45, 60):
        study = optuna.create_study(direction="maximize", sampler=_tpe(seed_of(3, count), STARTUP_TRIALS))
        study.add_trials([_trial(record) for record in records[:count]])
        expected = study.ask(dict(DISTRIBUTIONS)).params
        assert sampler.draw(records[:count], count) == expected
        assert Sampler(SEARCH, 3).draw(records[:count], count) == expected


def test_among_many_trials_the_best_the_latest_and_the_running_are_shown() -> None:
    """However many there are, the sampler sees about MOST_SHOWN, in their order, and all that run."""
    trials = [_trial(record) for record in _records(2000)]
    shown = _most_telling(trials, ACCURACY_ALONE)
    numbers = [trial.number for trial in shown]
    running = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: trial.values[0], reverse=True)[:20]
    assert numbers == sorted(numbers)
    assert set(running) <= set(numbers)
    assert {trial.number for trial in best} <= set(numbers)
    assert set(range(1800, 2000)) <= set(numbers)
    assert len(set(numbers) - set(running)) <= MOST_SHOWN
    assert _most_telling(trials[:MOST_SHOWN], ACCURACY_ALONE) == trials[:MOST_SHOWN]
