"""Early stopping: verdicts from measurements alone."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from sweeps.spec.fields import EarlyStopping
from sweeps.study.rungs import Curve, is_beaten


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
        curves = {trial.number: Curve("full", trial.intermediate_values) for trial in study.get_trials()}
        assert is_beaten(curves, number, epochs[number], 100, stopping) == verdict
        stopped += verdict
        if verdict or epochs[number] == 9:
            del running[number]
    assert stopped


def test_early_epochs_are_compared_within_their_kind() -> None:
    """A trial that opens its backbone is not stopped by frozen ones in its first half, and is later."""
    curves = {0: Curve("frozen", {2: 0.9, 6: 0.9}), 1: Curve("full", {2: 0.5}), 2: Curve("full", {2: 0.5, 6: 0.6})}
    stopping = EarlyStopping(min_epochs=2, reduction=3, within_kind=0.5)
    assert not is_beaten(curves, 1, 2, 10, stopping)
    assert is_beaten(curves, 2, 6, 10, stopping)
