"""Siblings: settings that another trial answered on its way, as the study knows them.

One neighbour search answers every k, distance and vote. What a trial answered besides its own settings becomes trials
of the study, so that the sampler learns from them and nobody runs them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from carcls.config import TrialConfig
from sweeps.space_conditions import fits, parameters_of
from sweeps.study_lines import OBJECTIVE
from sweeps.study_parts import asked_of, what_is_broken

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec


def is_sibling(trial: FrozenTrial) -> bool:
    """Tell whether the trial was answered by another one."""
    return "sibling_of" in asked_of(trial)


def sibling_trials(
    parent: FrozenTrial, spec: SweepSpec, distributions: Mapping[str, BaseDistribution], known: set[str]
) -> Iterator[FrozenTrial]:
    """Yield what ``parent`` answered besides, as complete trials to be added to the study.

    Only settings that the sweep searches may differ from the parent's, by values that it could have drawn; what a known
    trial has answered, or a documented experiment will, is left out.

    Args:
        parent: a complete trial.
        spec: of the sweep.
        distributions: optuna's, of the searched settings.
        known: digests of all known trials and documented experiments; those that are yielded are added.
    """
    outcome = parent.user_attrs["outcome"]
    if not outcome.get("siblings"):
        return
    config = TrialConfig.model_validate(asked_of(parent)["config"])
    for sibling in outcome["siblings"]:
        if not _is_searched(sibling["settings"], config, spec) or what_is_broken(sibling["metrics"]):
            continue
        other = config.model_copy(update=sibling["settings"])
        if other.digest not in known:
            known.add(other.digest)
            yield _trial(parent, other, sibling["metrics"], spec, distributions)


def _is_searched(settings: Mapping[str, Any], config: TrialConfig, spec: SweepSpec) -> bool:
    return all(
        value == getattr(config, name) or (name in spec.search and fits(spec.search[name], value))
        for name, value in settings.items()
    )


def _trial(
    parent: FrozenTrial,
    config: TrialConfig,
    metrics: Mapping[str, float],
    spec: SweepSpec,
    distributions: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    outcome = parent.user_attrs["outcome"]
    settings = parameters_of(config, spec.search)
    drawn = {name: value for name, value in settings.items() if fits(spec.search[name], value)}
    told = {name: outcome[name] for name in ("epochs", "model") if name in outcome}
    return create_trial(
        state=TrialState.COMPLETE,
        value=metrics[OBJECTIVE],
        params=drawn,
        distributions={name: distributions[name] for name in drawn},
        user_attrs={
            "asked": {
                "experiment": None,
                "settings": settings,
                "config": config.model_dump(),
                "digest": config.digest,
                "sibling_of": parent.number,
            },
            "outcome": {
                **told,
                "status": "complete",
                "metrics": dict(metrics),
                "seconds": 0.0,
                "reason": f"answered by trial {parent.number}",
                "reused": True,
            },
        },
    )
