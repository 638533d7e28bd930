"""Early stopping: asynchronous successive halving among trials that can be compared, judged from the journal alone.

At a rung (an epoch at which trials are compared) a trial goes on when it is among the best one in ``reduction`` of all
that have come so far, itself included, and the best always does (Li et al., A System for Massively Parallel
Hyperparameter Tuning, 2020). One thing is ours: in the first part of a training a trial is compared with its own kind
only. A head on frozen features leads for some epochs whatever comes later, and would stop whatever is opened. What that
is worth is measured in benchmarks/early_stopping.md.

The verdict is a function of the measurements in the journal, so a driver that dies between a measurement and its
verdict changes nothing: the next one comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from carcls.config import SCRATCH
from sweeps.spec_stopping import EarlyStopping


def is_beaten(trials: Sequence[FrozenTrial], number: int, epoch: int, epochs: int, stopping: EarlyStopping) -> bool:
    """Tell whether a trial should stop after ``epoch``.

    Args:
        trials: all of the sweep; values are compared where they have one of the same epoch.
        number: of the trial, which has reported the epoch.
        epoch: from 1. Where the trial has come further already it was allowed to, and is not judged again.
        epochs: of the whole trial; its rungs depend on them.
        stopping: which epochs are rungs, who is compared, and how many go on.
    """
    trial = next(trial for trial in trials if trial.number == number)
    own = trial.intermediate_values
    if epoch not in stopping.rungs(epochs) or max(own, default=epoch) > epoch:
        return False
    compared = _own_kind(trials, trial) if epoch < stopping.within_kind * epochs else iter(trials)
    values = sorted((t.intermediate_values[epoch] for t in compared if _came_to(t, epoch)), reverse=True)
    return own[epoch] < values[max(1, len(values) // stopping.reduction) - 1]


def _came_to(trial: FrozenTrial, epoch: int) -> bool:
    """Tell whether the trial was measured at the epoch itself, and what it reached there stands.

    A duplicate has only taken over its twin's values; a trial that failed came to nothing, however well it began.
    """
    is_own = "duplicate_of" not in trial.user_attrs.get("asked", {})
    return epoch in trial.intermediate_values and is_own and trial.state is not TrialState.FAIL


def _own_kind(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> Iterator[FrozenTrial]:
    kind = _kind(trial)
    return (other for other in trials if _kind(other) == kind)


def _kind(trial: FrozenTrial) -> Any:
    """Return what decides how fast a trial starts: its unfreezing schedule; None for what is trained from nothing."""
    config = trial.user_attrs["asked"]["config"]
    from_nothing = config["family"] == "scratch" or config["backbone"] == SCRATCH
    return None if from_nothing else config["unfreezing"]
