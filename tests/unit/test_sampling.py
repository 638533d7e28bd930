"""What the sampler is shown: the same as if it had all trials, in a time that does not grow with them."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.goals import ACCURACY_ALONE
from sweeps.space import Choice, FloatDomain
from sweeps.study_parts import to_distribution
from sweeps.study_sampling import (
    MOST_SHOWN,
    STARTUP_TRIALS,
    _most_telling,
    _sampler,
    _seed_of,
    draw,
)

DISTRIBUTIONS = {
    "dropout": to_distribution(FloatDomain(0.0, 0.7)),
    "head_lr": to_distribution(FloatDomain(1e-4, 1e-2, log=True)),
    "optimizer": to_distribution(Choice(("adam", "adamw"))),
}


def _trials(count: int) -> list[FrozenTrial]:
    """Return trials of every kind: complete, stopped, failed, running, and some that lack a parameter."""
    dice, trials = random.Random(0), []
    for number in range(count):
        settings: dict[str, Any] = {
            "dropout": dice.uniform(0, 0.7),
            "head_lr": 10 ** dice.uniform(-4, -2),
            "optimizer": dice.choice(("adam", "adamw")),
        }
        if number % 11 == 3:
            del settings["dropout"]
        state = (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE)[min(number % 7, 3)]
        value = dice.random()
        trial = create_trial(
            state=state,
            value=value if state is TrialState.COMPLETE else None,
            params=settings,
            distributions={name: DISTRIBUTIONS[name] for name in settings},
            intermediate_values={} if number % 5 == 0 else {1: value / 2, 2: value},
            user_attrs={
                "asked": {"settings": settings, "experiment": None},
                "outcome": {"metrics": {"val_accuracy": value}},
            },
        )
        trial.number = number
        trials.append(trial)
    return trials


def test_draws_are_those_of_a_study_that_holds_the_trials() -> None:
    """Trials that are shown without being stored lead to the settings that optuna draws from a study of its own."""
    trials = _trials(60)
    prepared: dict[int, list[FrozenTrial]] = {}
    for count in (0, 5, 30, 45, 60):
        study = optuna.create_study(direction="maximize", sampler=_sampler(_seed_of(3, count), STARTUP_TRIALS))
        study.add_trials(trials[:count])
        expected = study.ask(dict(DISTRIBUTIONS)).params
        assert draw(trials[:count], DISTRIBUTIONS, 3, count, prepared=prepared) == expected
        assert draw(trials[:count], DISTRIBUTIONS, 3, count) == expected


def test_among_many_trials_the_best_the_latest_and_the_running_are_shown() -> None:
    """However many there are, the sampler sees about MOST_SHOWN, in their order, and all that run."""
    trials = _trials(2000)
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
