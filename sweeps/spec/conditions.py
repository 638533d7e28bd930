"""Which searched settings are parameters of a trial: those that matter in it, and whose condition holds.

The learning rate of a frozen backbone is none, the temperature of a vote that has none is none; ``TrialConfig.neutral``
knows. A domain's ``when`` says further conditions. What is no parameter of a trial has its base value there, is not
shown, and teaches the sampler nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from carcls.config import TrialConfig
from carcls.errors import shown
from sweeps.spec.space import Choice, Domain, FloatDomain


def parameters_of(config: TrialConfig, search: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the searched settings that are parameters of this trial, with their values."""
    neutral = config.neutral()
    return {
        name: getattr(config, name)
        for name, domain in search.items()
        if name not in neutral and all(getattr(config, parent) in values for parent, values in domain.when.items())
    }


def settle(
    drawn: Mapping[str, Any], search: Mapping[str, Domain], build: Callable[[Mapping[str, Any]], TrialConfig]
) -> TrialConfig:
    """Return the trial that drawn values make, those that are no parameters of it left at the base value.

    Args:
        drawn: values of searched settings.
        search: all domains of the sweep.
        build: makes a trial of settings that differ from the base.
    """
    while True:
        config = build(drawn)
        active = parameters_of(config, search)
        kept = {name: value for name, value in drawn.items() if name in active}
        if len(kept) == len(drawn):
            return config
        drawn = kept


def fits(domain: Domain, value: Any) -> bool:
    """Tell whether ``value`` is one that the domain could have given."""
    if isinstance(domain, Choice):
        return any(value == choice and type(value) is type(choice) for choice in domain.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = isinstance(value, int) or value.is_integer()
    if not isinstance(domain, FloatDomain) and (not whole or (value - domain.low) % domain.step):
        return False
    return bool(domain.low <= value <= domain.high)


def when_mistakes(search: Mapping[str, Domain]) -> list[str]:
    """Return what is wrong with the conditions of a search, in sentences that begin with their path."""
    found = [
        f"search.{name}.when.{parent}: must be among the values searched for {parent} ({search[parent]}), got "
        f"{shown(value)}."
        for name, domain in search.items()
        for parent, values in domain.when.items()
        for value in values
        if parent in search and not _is_searched(search[parent], value)
    ]
    return list(dict.fromkeys(found)) or _circle(search)


def _is_searched(domain: Domain, value: Any) -> bool:
    return value in domain.choices if isinstance(domain, Choice) else fits(domain, value)


def _circle(search: Mapping[str, Domain]) -> list[str]:
    """Return a sentence on settings whose conditions lead back to the first of them; none where there are none."""
    try:
        TopologicalSorter({name: domain.when for name, domain in search.items()}).prepare()
    except CycleError as error:
        way = list(reversed(error.args[1]))
        return [f"search.{way[0]}.when: must not depend on {way[0]} itself, got {' -> '.join(way)}."]
    return []
