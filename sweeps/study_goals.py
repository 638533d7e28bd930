"""The sweep's goals in its study: trials as a sampler with several objectives and limits sees them, and refused ones.

The journal knows one objective, by which trials are stopped early. What else a sweep is after is read from the metrics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from sweeps.goals import Goals
from sweeps.objectives import values_of
from sweeps.study_parts import asked_of


def directions_of(goals: Goals) -> list[Literal["minimize", "maximize"]]:
    """Return optuna's directions of the objectives."""
    return [objective.direction for objective in goals.objectives]


def aimed(trials: Iterable[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """Return copies of the trials with the objectives as values and the limits as optuna's constraints, without notes.

    A complete trial without a value of an objective, or of a limit, tells nothing and is left out; so is one that was
    stopped early where accuracy is not all there is. A limit that a trial breaks is above 0, as a share of its bound.
    """
    found = []
    for trial in trials:
        metrics: Mapping[str, float] = trial.user_attrs.get("outcome", {}).get("metrics", {})
        bare = copy.copy(trial)
        bare.user_attrs = {}
        bare.system_attrs = dict(trial.system_attrs)
        if trial.state is TrialState.COMPLETE:
            values = values_of(metrics, goals.objectives)
            if values is None or any(c.quantity.metric not in metrics for c in goals.constraints):
                continue
            bare.values = list(values)
        if not goals.stop_early:
            if trial.state is TrialState.PRUNED and trial.intermediate_values:
                continue
            bare.intermediate_values = {}  # they are of accuracy
        for constraint in goals.constraints:
            value = metrics.get(constraint.quantity.metric, math.nan)
            if trial.state is not TrialState.RUNNING and math.isfinite(value):
                bare.set_constraint(str(constraint), constraint.excess(value))
        found.append(bare)
    return found


def refused_of(asked: Mapping[str, Any]) -> dict[str, float] | None:
    """Return what was known of a trial that was not run because it breaks a limit; None for any other."""
    costs: dict[str, float] | None = asked.get("refused")
    return costs


def is_readmitted(trial: FrozenTrial, goals: Goals) -> bool:
    """Tell whether a trial was refused by limits that have been loosened since, so that it may be asked again."""
    costs = refused_of(asked_of(trial))
    return costs is not None and not goals.broken_by(costs)
