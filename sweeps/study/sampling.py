"""What to try next: documented experiments, then starts, then settings drawn by a sampler that learns, or at random.

Of what a trial answered on its way the sampler sees the best only. Hundreds of answers that share all settings of
training would outweigh everything else it knows: it would search around one network, and worse than at random.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from carcls.config import TrialConfig, digest_of
from sweeps.spec.conditions import fits, parameters_of
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.spec.space import Choice, Domain, IntDomain
from sweeps.study.derived import find_near_duplicate
from sweeps.trial import OBJECTIVE, Status, TrialRecord

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec
    from sweeps.study.records import Trials

STATES: Mapping[Status, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
STARTUP_TRIALS = 8
# So many trials are shown to the sampler; a draw takes as long as it sees trials.
MOST_SHOWN, BEST_SHOWN = 250, 50
# Finds one combination among a hundred that are answered with a probability above 0.9999.
RANDOM_DRAWS = 1000

Costs = Callable[[TrialConfig], Mapping[str, float]]
# What is noted of a trial when it is asked: experiment, settings, config, digest, and what becomes of it.
AskedValue = dict[str, Any]


class Proposals:
    """Says what to ask next of trials that are not there yet; what is noted of one says what becomes of it.

    Args:
        trials: of the study.
        spec: of the sweep.
        costs: returns what is known of a trial's metrics before it runs.
    """

    def __init__(self, trials: Trials, spec: SweepSpec, costs: Costs) -> None:
        self._trials = trials
        self._spec = spec
        self._costs = costs
        self._sampler = Sampler(spec.search, spec.seed, spec.goals)

    def next(self) -> AskedValue:
        """Return the next trial; it may be a twin of another one, or break a limit, and then is not to be run."""
        done = self._trials.begun
        for name, config in self._spec.experiment_configs():
            if name not in done:
                return self._asked(config, experiment=name)
        for place, settings in enumerate(self._spec.starts):
            if f"starts[{place}]" not in done:
                return self._asked(self._spec.trial_config(settings), start=f"starts[{place}]")
        return self._asked(self._spec.searched_config(self._sampler.draw(self._searched(), self._place())))

    def at_random(self) -> AskedValue | None:
        """Return a trial that nobody has answered, where the sampler names only what is known; or None."""
        known, spec, dice = self._searched(), self._spec, Random(_seed_of(self._spec.seed, self._place()))
        for _ in range(RANDOM_DRAWS):
            config = spec.searched_config({name: domain.draw(dice) for name, domain in spec.search.items()})
            near = find_near_duplicate(known, config, spec.search, spec.near)
            if config.digest not in self._trials.digests and near is None and not self._is_refused(config):
                return self._asked(config)
        return None

    def _asked(self, config: TrialConfig, *, experiment: str | None = None, start: str | None = None) -> AskedValue:
        spec, twin = self._spec, self._trials.digests.get(config.digest)
        asked = asked_value(config, parameters_of(config, spec.search), experiment)
        if start is not None:
            asked["start"] = start
        if twin is None and experiment is None and start is None:
            twin = find_near_duplicate(self._searched(), config, spec.search, spec.near)
            if twin is not None:
                asked["near"] = True
        if twin is not None:
            asked["duplicate_of"] = twin
        elif self._is_refused(config):
            asked["refused"] = dict(self._costs(config))
        return asked

    def _is_refused(self, config: TrialConfig) -> bool:
        """Tell whether a trial breaks a limit by what is known before it runs."""
        goals = self._spec.goals
        return bool(goals.constraints and goals.broken_by(self._costs(config)))

    def _searched(self) -> list[TrialRecord]:
        return [record for record in self._trials.records() if record.confirms is None]

    def _place(self) -> int:
        """Return how many trials there are, without confirming runs: the search goes on as without them."""
        return self._trials.next_number - self._trials.confirming


def asked_value(config: TrialConfig, settings: Mapping[str, Any], experiment: str | None = None) -> AskedValue:
    """Return what is noted of any trial when it is asked."""
    named = {"experiment": experiment, "settings": dict(settings)}
    return {**named, "config": config.model_dump(), "digest": config.digest}


def to_distribution(domain: Domain) -> BaseDistribution:
    """Return optuna's distribution over the same values.

    >>> from sweeps.spec.space import FloatDomain
    >>> to_distribution(FloatDomain(low=0.0, high=0.5, log=False))
    FloatDistribution(high=0.5, log=False, low=0.0, step=None)
    """
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(domain.choices))
    if isinstance(domain, IntDomain):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


class Sampler:
    """Draws settings that promise more than others; a draw follows from seed, number and trials alone.

    Args:
        search: domains by setting; what does not fit into them is not seen.
        seed: of the sweep.
        goals: what trials are judged by.
    """

    def __init__(self, search: Mapping[str, Domain], seed: int, goals: Goals = ACCURACY_ALONE) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study, of which each draw makes one
        self._search, self._seed, self._goals = search, seed, goals
        self._distributions = {name: to_distribution(domain) for name, domain in search.items()}
        self._made: dict[int, FrozenTrial | None] = {}  # what it sees of trials that have ended

    def draw(self, records: Sequence[TrialRecord], number: int) -> dict[str, Any]:
        """Return settings, by what became of the trials in ``records``; ``number`` is of the draw."""
        seen = list(_seen(records))
        startup = STARTUP_TRIALS + sum(record.sibling_of is not None for record in seen)
        shown = _most_telling([trial for record in seen if (trial := self._show(record)) is not None], self._goals)
        for place, trial in enumerate(shown, start=1):
            trial.number = place
        glance = optuna.create_study(
            directions=[objective.direction for objective in self._goals.objectives],
            sampler=_tpe(_seed_of(self._seed, number), startup),
            storage=_Shelf(shown),
        )
        return glance.ask(dict(self._distributions)).params

    def _show(self, record: TrialRecord) -> FrozenTrial | None:
        if record.number in self._made:
            return self._made[record.number]
        made = self._trial_of(record)
        if record.status != "running":
            self._made[record.number] = made
        return made

    def _trial_of(self, record: TrialRecord) -> FrozenTrial | None:
        """Return the trial as if it had been drawn from today's domains, with what the goals make of its metrics.

        A complete trial without a value of an objective, or of a limit, tells nothing; nor does a failed one, or one
        that was stopped early where accuracy is not all there is. A limit that a trial breaks is above 0, as a share
        of its bound.
        """
        metrics, goals = record.metrics, self._goals
        values = goals.values(metrics) if record.status == "complete" else None
        unknown = values is None or any(c.quantity.metric not in metrics for c in goals.constraints)
        if record.status == "failed" or (record.status == "complete" and unknown):
            return None
        was_stopped = record.status == "pruned" and record.epochs > 0
        if was_stopped and not goals.stop_early:
            return None
        settings = {n: v for n, v in record.settings.items() if n in self._search and fits(self._search[n], v)}
        limits = {str(c): c.excess(metrics.get(c.quantity.metric, math.nan)) for c in goals.constraints}
        return create_trial(
            state=STATES[record.status],
            values=values,
            params={name: settings[name] for name in self._search if name in settings},
            distributions={name: d for name, d in self._distributions.items() if name in settings},
            intermediate_values={record.epochs: metrics[OBJECTIVE]} if was_stopped else None,
            constraints=None if record.status == "running" else {n: x for n, x in limits.items() if math.isfinite(x)},
        )


def _seen(records: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
    """Yield what the sampler learns from, in the order of asking: trials, their twins, and each one's best derived."""
    best: dict[int, TrialRecord] = {}
    for record in records:
        if record.sibling_of is not None:
            rival = best.setdefault(record.sibling_of, record)
            if record.metrics[OBJECTIVE] > rival.metrics[OBJECTIVE]:
                best[record.sibling_of] = record
    own = [record for record in records if record.sibling_of is None]
    twins = [replace(record, number=t.number, settings=t.settings) for record in own for t in record.twins]
    yield from sorted([*own, *twins, *best.values()], key=lambda record: record.number)


def _most_telling(trials: list[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """Return the best trials, the latest and those that run, at most MOST_SHOWN or so, in their order.

    The sampler weighs trials by age and takes at most 25 for good ones: what is left out would hardly count. Several
    objectives, or limits, have no such best trials, and keep all.
    """
    if len(trials) <= MOST_SHOWN or len(goals.objectives) > 1 or goals.constraints:
        return trials
    sign = -1.0 if goals.first.direction == "maximize" else 1.0
    recent = MOST_SHOWN - BEST_SHOWN
    old, latest = trials[:-recent], trials[-recent:]
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


def _seed_of(seed: int, number: int) -> int:
    return int(digest_of([seed, number], length=7), 16)


def _tpe(seed: int, startup: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(
            seed=seed,
            multivariate=True,
            group=True,  # an experiment outside of a domain has fewer parameters than the others
            constant_liar=True,
            n_startup_trials=startup,
        )
