"""Twins: trials that are equal, or differ so little that training both would tell nothing.

A learning rate of 0.00100 and one of 0.00101 train the same network but for luck. What is drawn that close to a
finished trial takes over its result, as equal trials do; what was asked for by name (documented experiments, starts)
never does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from carcls.config import TrialConfig
from sweeps.record import TrialRecord, Twin
from sweeps.space import Domain, FloatDomain
from sweeps.space_conditions import fits, parameters_of
from sweeps.study_parts import Journal, asked_of, record_of


def records_with_twins(trials: Iterable[FrozenTrial], journal: Journal) -> list[TrialRecord]:
    """Return the trials that have a result of their own, each with those that took it over."""
    twins: defaultdict[int, list[Twin]] = defaultdict(list)
    own = []
    for trial in trials:
        asked = asked_of(trial)
        if "duplicate_of" in asked:
            twins[asked["duplicate_of"]].append(Twin(trial.number, asked.get("near", False), asked["settings"]))
        else:
            own.append(record_of(trial, journal))
    return [replace(record, twins=tuple(twins[record.number])) for record in own]


def near_twin(
    trials: Sequence[FrozenTrial], config: TrialConfig, search: Mapping[str, Domain], near: float
) -> int | None:
    """Return the number of the closest finished trial that ``config`` needs not be run beside, or None.

    Args:
        trials: all of the sweep; only complete and stopped ones, and no duplicates, are taken over from.
        config: of the new trial.
        search: domains by setting.
        near: largest difference in a range of numbers, as a share of the range on its own scale; 0 is none.
    """
    ranges = {
        name: domain
        for name, domain in search.items()
        if isinstance(domain, FloatDomain) and domain.low < domain.high and name in parameters_of(config, search)
    }
    if not near or not ranges:
        return None
    rest = _without(config.canonical(), ranges)
    found = [
        (distance, trial.number)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and "duplicate_of" not in asked_of(trial)
        if (distance := _distance(asked_of(trial)["config"], config, ranges, near)) <= near
        if _without(TrialConfig.model_validate(asked_of(trial)["config"]).canonical(), ranges) == rest
    ]
    return min(found)[1] if found else None


def _distance(
    other: Mapping[str, Any], config: TrialConfig, ranges: Mapping[str, FloatDomain[float]], near: float
) -> float:
    """Return the largest difference in any of the ranges, as a share of the range; infinite outside of one.

    Infinite as well as soon as one is above ``near``: most trials differ in the first range already.
    """
    largest = 0.0
    for name, domain in ranges.items():
        if not fits(domain, other[name]):
            return math.inf
        largest = max(largest, abs(_place(other[name], domain) - _place(getattr(config, name), domain)))
        if largest > near:
            return math.inf
    return largest


def _place(value: float, domain: FloatDomain[float]) -> float:
    """Return where in the range a value lies, from 0 to 1, on the range's own scale."""
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _without(settings: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
