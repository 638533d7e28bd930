"""Early stopping: asynchronous successive halving, judged from the journal alone.

At a rung (an epoch at which trials are compared) a trial goes on when it is among the best one in ``reduction`` of all
that have come so far, itself included, and the best always does (Li et al., A System for Massively Parallel
Hyperparameter Tuning, 2020). The verdict is a function of the measurements in the journal, so a driver that dies
between a measurement and its verdict changes nothing: the next one comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from sweeps.spec import EarlyStopping


def is_beaten(trials: Sequence[FrozenTrial], number: int, epoch: int, stopping: EarlyStopping) -> bool:
    """Tell whether a trial should stop after ``epoch``.

    Args:
        trials: all of the sweep; values are compared where they have one of the same epoch.
        number: of the trial, which has reported the epoch.
        epoch: from 1. Where the trial has come further already it was allowed to, and is not judged again.
        stopping: which epochs are rungs, and how many go on.
    """
    own = next(trial for trial in trials if trial.number == number).intermediate_values
    if epoch not in stopping.rungs(epoch + 1) or max(own, default=epoch) > epoch:
        return False
    values = sorted((t.intermediate_values[epoch] for t in trials if epoch in t.intermediate_values), reverse=True)
    return own[epoch] < values[max(1, len(values) // stopping.reduction) - 1]
