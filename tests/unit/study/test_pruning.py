"""Early stopping: verdicts of the study, from its journal alone."""

from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path

import optuna
import pytest
from helpers import ask, asked_of, study_spec
from optuna.pruners import SuccessiveHalvingPruner

from carcls.outcome import Measurement
from sweeps.spec.fields import EarlyStopping
from sweeps.study.study import Study


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("min_epochs", "reduction"), [(1, 3), (2, 2), (1, 4)])
def test_verdicts_are_those_of_optunas_successive_halving(
    seed: int, min_epochs: int, reduction: int, tmp_path: Path
) -> None:
    """Trials that report in any order are stopped where optuna's pruner, which keeps notes of its own, stops them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = SuccessiveHalvingPruner(min_epochs, reduction, min_early_stopping_rate=0)
    theirs = optuna.create_study(direction="maximize", pruner=pruner)
    order, count = random.Random(seed), 0
    stopping = {"min_epochs": min_epochs, "reduction": reduction, "within_kind": 0.0}
    spec = study_spec(trials=12, near=0.0, config={"epochs": 100}, early_stopping=stopping)
    with Study.open(tmp_path, spec) as study:
        running = {asked.number: theirs.ask() for asked in asked_of(study)}
        epochs = dict.fromkeys(running, 0)
        while running:
            number, accuracy = order.choice(sorted(running)), order.random()
            epochs[number] += 1
            running[number].report(accuracy, epochs[number])
            verdict = study.report(number, Measurement(epochs[number], {"val_accuracy": accuracy}))
            assert verdict == running[number].should_prune()
            count += verdict
            if verdict or epochs[number] == 9:
                del running[number]
    assert count


def stopped(study: Study, number: int, epoch: int, accuracy: float) -> bool:
    """Report an epoch; tell whether the trial should stop."""
    return study.report(number, Measurement(epoch, {"val_accuracy": accuracy}))


spec_of = partial(study_spec, trials=6, early_stopping={"min_epochs": 1, "reduction": 3, "within_kind": 0.0})


def test_a_trial_that_others_beat_is_stopped_at_its_rung(tmp_path: Path) -> None:
    """The record keeps the epoch and the last measurement.

    A trial that led there and then became NaN came to nothing: whoever is best without it goes on.
    """
    with Study.open(tmp_path, spec_of()) as study:
        failing, good, bad = (ask(study).number for _ in range(3))
        assert not stopped(study, failing, 1, 0.99)
        assert stopped(study, failing, 2, math.nan)
        assert not stopped(study, good, 1, 0.9)
        assert stopped(study, bad, 1, 0.1)
        study.tell_pruned(bad)
        record = study.record(bad)
    assert (record.status, record.epochs, record.metrics) == ("pruned", 1, {"val_accuracy": 0.1})
    assert record.reason == "stopped after epoch 1: others were better by then"


def test_who_is_never_stopped(tmp_path: Path) -> None:
    """Documented experiments, though others are measured by them; whoever finished its last epoch; all, when asked."""
    names = ("transfer/frozen", "transfer/frozen-augmented")
    with Study.open(tmp_path / "documented", spec_of(experiments=names)) as study:
        good, bad, searched = (ask(study).number for _ in range(3))
        assert not stopped(study, good, 1, 0.9)
        assert not any(stopped(study, bad, epoch, 0.01) for epoch in range(1, 10))
        assert stopped(study, searched, 1, 0.5)
    for name, changes in (("last", {"config": {"epochs": 2}}), ("never", {"early_stopping": {"enabled": False}})):
        with Study.open(tmp_path / name, spec_of(**changes)) as study:
            good, bad = ask(study).number, ask(study).number
            stopped(study, good, 1, 0.9)
            assert stopped(study, bad, 1, 0.1) == (name == "last")
            assert not stopped(study, bad, 2, 0.1)


def test_early_epochs_are_compared_within_their_kind(tmp_path: Path) -> None:
    """A trial that opens its backbone is not stopped by frozen ones in its first half, and is later."""
    starts = ({"unfreezing": "frozen"}, {"unfreezing": "full"}, {"unfreezing": "full", "dropout": 0.1})
    stopping = {"min_epochs": 2, "reduction": 3, "within_kind": 0.5}
    with Study.open(tmp_path, study_spec(config={"epochs": 10}, starts=starts, early_stopping=stopping)) as study:
        frozen, lower, higher = (ask(study).number for _ in starts)
        assert not any(stopped(study, frozen, epoch, 0.9) for epoch in (2, 6))
        assert not stopped(study, lower, 2, 0.5)
        assert not stopped(study, higher, 2, 0.5)
        assert stopped(study, higher, 6, 0.6)


def test_rungs_are_powers_of_the_reduction() -> None:
    """They rise by the reduction and end before the last epoch; none when stopping is off."""
    assert EarlyStopping(min_epochs=2, reduction=3).rungs(20) == (2, 6, 18)
    assert EarlyStopping(min_epochs=1, reduction=2).rungs(4) == (1, 2)
    assert EarlyStopping(enabled=False).rungs(10) == ()
