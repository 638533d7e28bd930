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

from collections.abc import Mapping
from typing import Any, NamedTuple

from carcls.config import SCRATCH
from sweeps.spec.fields import EarlyStopping


class Curve(NamedTuple):
    """What a trial has measured: accuracies by epoch, from 1; ``kind`` decides how fast it starts."""

    kind: str | None
    accuracies: Mapping[int, float]


def is_beaten(curves: Mapping[int, Curve], number: int, epoch: int, epochs: int, stopping: EarlyStopping) -> bool:
    """Tell whether a trial should stop after ``epoch``.

    Args:
        curves: by number, of all trials that the trial may be compared with, and its own.
        number: of the trial, which has reported the epoch.
        epoch: from 1. Where the trial has come further already it was allowed to, and is not judged again.
        epochs: of the whole trial; its rungs depend on them.
        stopping: which epochs are rungs, who is compared, and how many go on.
    """
    kind, own = curves[number]
    if epoch not in stopping.rungs(epochs) or max(own, default=epoch) > epoch:
        return False
    within_kind = epoch < stopping.within_kind * epochs
    compared = [curve.accuracies for curve in curves.values() if curve.kind == kind or not within_kind]
    values = sorted((accuracies[epoch] for accuracies in compared if epoch in accuracies), reverse=True)
    return own[epoch] < values[max(1, len(values) // stopping.reduction) - 1]


def kind_of(config: Mapping[str, Any]) -> str | None:
    """Return what decides how fast a trial starts: its unfreezing schedule; None for what is trained from scratch."""
    from_scratch = config["family"] == "scratch" or config["backbone"] == SCRATCH
    return None if from_scratch else str(config["unfreezing"])
