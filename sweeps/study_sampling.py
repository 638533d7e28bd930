"""What to try next: settings drawn by a sampler that learns from the trials so far, or at random.

Of what a trial answered on its way the sampler sees the best only. Hundreds of answers that share all settings of
training would outweigh everything else it knows: it would search around one network, and worse than at random.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from carcls.config import TrialConfig, digest_of
from sweeps.goals import ACCURACY_ALONE, Goals
from sweeps.space import Domain
from sweeps.space_conditions import fits
from sweeps.study_goals import aimed, directions_of
from sweeps.study_parts import asked_of, from_distribution
from sweeps.study_siblings import is_sibling

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

STARTUP_TRIALS = 8
# Finds one combination among a hundred that are answered with a probability above 0.9999.
RANDOM_DRAWS = 1000


def draw(
    trials: Sequence[FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    seed: int,
    number: int,
    goals: Goals = ACCURACY_ALONE,
) -> dict[str, Any]:
    """Return settings that promise more than others.

    Args:
        trials: all that were asked so far.
        distributions: of the searched settings.
        seed: of the sweep.
        number: of trials in the journal; draws depend on it, the seed and the trials alone, also after a restart.
        goals: what the trials are judged by.
    """
    seen = _seen_by_sampler(trials)
    startup = STARTUP_TRIALS + sum(is_sibling(trial) for trial in seen)
    glance = optuna.create_study(directions=directions_of(goals), sampler=_sampler(_seed_of(seed, number), startup))
    domains = {name: from_distribution(distribution) for name, distribution in distributions.items()}
    glance.add_trials(aimed([_as_drawn(trial, distributions, domains) for trial in seen], goals))
    return glance.ask(dict(distributions)).params


def draw_new(spec: SweepSpec, is_useless: Callable[[TrialConfig], bool], number: int) -> TrialConfig | None:
    """Return a trial at random that is of use, or None when the space seems to hold none."""
    random = Random(_seed_of(spec.seed, number))
    for _ in range(RANDOM_DRAWS):
        config = spec.searched_config({name: domain.draw(random) for name, domain in spec.search.items()})
        if not is_useless(config):
            return config
    return None


def _seed_of(seed: int, number: int) -> int:
    return int(digest_of([seed, number], length=7), 16)


def _sampler(seed: int, startup: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(
            seed=seed,
            multivariate=True,
            group=True,  # an experiment outside of a domain has fewer parameters than the others
            constant_liar=True,
            n_startup_trials=startup,
        )


def _seen_by_sampler(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials without siblings (and what took over their results) but for the best of each trial."""
    siblings = {trial.number: trial for trial in trials if is_sibling(trial)}
    best: dict[int, FrozenTrial] = {}
    for trial in siblings.values():
        rival = best.setdefault(asked_of(trial)["sibling_of"], trial)
        assert trial.value is not None
        assert rival.value is not None
        if trial.value > rival.value:
            best[asked_of(trial)["sibling_of"]] = trial
    kept = {trial.number for trial in best.values()}
    return [
        trial
        for trial in trials
        if trial.number in kept
        or (trial.number not in siblings and asked_of(trial).get("duplicate_of") not in siblings)
    ]


def _as_drawn(
    trial: FrozenTrial, distributions: Mapping[str, BaseDistribution], domains: Mapping[str, Domain]
) -> FrozenTrial:
    """Return the trial as if it had been drawn from today's domains: what does not fit into them is left out."""
    settings = asked_of(trial)["settings"]
    drawn = copy.copy(trial)
    drawn.distributions = {
        name: distribution
        for name, distribution in distributions.items()
        if name in settings and fits(domains[name], settings[name])
    }
    drawn.params = {name: settings[name] for name in drawn.distributions}
    return drawn
