"""Early stopping: verdicts from measurements alone."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from sweeps.spec_stopping import EarlyStopping
from sweeps.study_rungs import is_beaten


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 3), (2, 2), (1, 4)])
def test_verdicts_are_those_of_optunas_successive_halving(seed: int, min_epochs: int, reduction: int) -> None:
    """Trials that report in any order are stopped where optuna's pruner, which keeps notes of its own, stops them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = SuccessiveHalvingPruner(min_epochs, reduction, min_early_stopping_rate=0)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    order = random.Random(seed)
    running = {trial.number: trial for trial in (study.ask() for _ in range(12))}
    epochs = dict.fromkeys(running, 0)
    stopped = 0
    while running:
        number = order.choice(sorted(running))
        epochs[number] += 1
        running[number].report(order.random(), epochs[number])
        verdict = running[number].should_prune()
        stopping = EarlyStopping(min_epochs=min_epochs, reduction=reduction, within_kind=0.0)
        assert is_beaten(study.get_trials(deepcopy=False), number, epochs[number], 100, stopping) == verdict
        stopped += verdict
        if verdict or epochs[number] == 9:
            del running[number]
    assert stopped


def test_the_scores_of_a_failed_trial_stop_nobody() -> None:
    """A trial that led at a rung and then became NaN came to nothing: whoever is best without it goes on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    stopping = EarlyStopping(min_epochs=1, reduction=3, within_kind=0.0)
    failing, better, worse = (study.ask() for _ in range(3))
    for trial, value in ((failing, 0.9), (better, 0.8), (worse, 0.7)):
        trial.report(value, 1)
    assert is_beaten(study.get_trials(deepcopy=False), better.number, 1, 100, stopping)
    study.tell(failing, state=optuna.trial.TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    assert not is_beaten(trials, better.number, 1, 100, stopping)
    assert is_beaten(trials, worse.number, 1, 100, stopping)
