"""Early stopping: verdicts of the study, from its journal alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from carcls.outcome import Measurement
from sweeps.spec.space import FloatDomain
from sweeps.spec.spec import SweepSpec
from sweeps.study.study import Study


def spec_of(epochs: int, stopping: dict[str, Any], **changes: Any) -> SweepSpec:
    """Return a search over the dropout."""
    fields = {"family": "transfer", "trials": 12, "near": 0.0, "search": {"dropout": FloatDomain(0.0, 0.5)}, **changes}
    return SweepSpec.model_validate({**fields, "config": {"epochs": epochs}, "early_stopping": stopping})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 3), (2, 2), (1, 4)])
def test_verdicts_are_those_of_optunas_successive_halving(
    seed: int, min_epochs: int, reduction: int, tmp_path: Path
) -> None:
    """Trials that report in any order are stopped where optuna's pruner, which keeps notes of its own, stops them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = SuccessiveHalvingPruner(min_epochs, reduction, min_early_stopping_rate=0)
    theirs = optuna.create_study(direction="maximize", pruner=pruner)
    order, stopped = random.Random(seed), 0
    spec = spec_of(100, {"min_epochs": min_epochs, "reduction": reduction, "within_kind": 0.0})
    with Study.open(tmp_path, spec) as study:
        running = {asked.number: theirs.ask() for asked in iter(study.ask, None) if asked is not None}
        epochs = dict.fromkeys(running, 0)
        while running:
            number, accuracy = order.choice(sorted(running)), order.random()
            epochs[number] += 1
            running[number].report(accuracy, epochs[number])
            verdict = study.report(number, Measurement(epochs[number], {"val_accuracy": accuracy}))
            assert verdict == running[number].should_prune()
            stopped += verdict
            if verdict or epochs[number] == 9:
                del running[number]
    assert stopped


def test_early_epochs_are_compared_within_their_kind(tmp_path: Path) -> None:
    """A trial that opens its backbone is not stopped by frozen ones in its first half, and is later."""
    starts = ({"unfreezing": "frozen"}, {"unfreezing": "full"}, {"unfreezing": "full", "dropout": 0.1})
    stopping = {"min_epochs": 2, "reduction": 3, "within_kind": 0.5}
    with Study.open(tmp_path, spec_of(10, stopping, starts=starts)) as study:
        frozen, lower, higher = (asked.number for asked in (study.ask() for _ in starts) if asked is not None)

        def report(number: int, epoch: int, accuracy: float) -> bool:
            return study.report(number, Measurement(epoch, {"val_accuracy": accuracy}))

        assert not any(report(frozen, epoch, 0.9) for epoch in (2, 6))
        assert not report(lower, 2, 0.5)
        assert not report(higher, 2, 0.5)
        assert report(higher, 6, 0.6)
