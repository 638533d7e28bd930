"""What to try next: settings drawn by a sampler that learns from the trials so far, or at random.

Of what a trial answered on its way the sampler sees the best only. Hundreds of answers that share all settings of
training would outweigh everything else it knows: it would search around one network, and worse than at random.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

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
# So many trials are shown to the sampler; a draw takes as long as it sees trials.
MOST_SHOWN, BEST_SHOWN = 250, 50
# Finds one combination among a hundred that are answered with a probability above 0.9999.
RANDOM_DRAWS = 1000


def draw(
    trials: Sequence[FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    seed: int,
    number: int,
    goals: Goals = ACCURACY_ALONE,
    prepared: dict[int, list[FrozenTrial]] | None = None,
) -> dict[str, Any]:
    """Return settings that promise more than others.

    Args:
        trials: all that were asked so far.
        distributions: of the searched settings.
        seed: of the sweep.
        number: of trials in the journal; draws depend on it, the seed and the trials alone, also after a restart.
        goals: what the trials are judged by.
        prepared: what earlier draws made of finished trials; filled here. Only for the same distributions and goals.
    """
    seen = _seen_by_sampler(trials)
    startup = STARTUP_TRIALS + sum(is_sibling(trial) for trial in seen)
    domains = {name: from_distribution(distribution) for name, distribution in distributions.items()}
    known = {} if prepared is None else prepared
    shown: list[FrozenTrial] = []
    for trial in seen:
        made = known.get(trial.number)
        if made is None:
            made = aimed([_as_drawn(trial, distributions, domains)], goals)
            if trial.state.is_finished():
                known[trial.number] = made
        shown += made
    shown = _most_telling(shown, goals)
    for place, trial in enumerate(shown, start=1):
        trial.number = place
    glance = optuna.create_study(
        directions=directions_of(goals), sampler=_sampler(_seed_of(seed, number), startup), storage=_Shelf(shown)
    )
    return glance.ask(dict(distributions)).params


def _most_telling(trials: list[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """Return the best trials, the latest and those that run, at most MOST_SHOWN or so, in their order.

    The sampler weighs trials by age and takes at most 25 for good ones: what is left out would hardly count. Several
    objectives, or limits, have no such best trials, and keep all.
    """
    if len(trials) <= MOST_SHOWN or len(goals.objectives) > 1 or goals.constraints:
        return trials
    sign = -1.0 if directions_of(goals)[0] == "maximize" else 1.0
    old, latest = trials[: BEST_SHOWN - MOST_SHOWN], trials[BEST_SHOWN - MOST_SHOWN :]
    complete = [trial for trial in old if trial.state is TrialState.COMPLETE]
    best = {id(trial) for trial in sorted(complete, key=lambda trial: sign * trial.values[0])[:BEST_SHOWN]}
    return [trial for trial in old if id(trial) in best or trial.state is TrialState.RUNNING] + latest


class _Shelf(InMemoryStorage):
    """Shows trials besides those it stores: copying a thousand into it would take longer than the draw itself.

    Args:
        trials: numbered from 1, since the trial that is drawn is number 0. They are shown in every study.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials that are shown, and after them those that are stored."""
        shown = [trial for trial in self._shown if states is None or trial.state in states]
        own = super().get_all_trials(study_id, deepcopy, states)
        return [*(copy.deepcopy(shown) if deepcopy else shown), *own]


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
