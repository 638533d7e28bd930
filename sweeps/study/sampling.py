"""Settings to try next, drawn by a sampler of Optuna's; ``BUILDERS`` is the one list of them.

Of the trials that were derived from another one the sampler sees the best only. Hundreds of them that share all
settings of training would outweigh everything else it knows: it would search around one network, worse than at random.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from carcls.config import digest_of
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.spec.samplers import SAMPLERS
from sweeps.spec.space import Choice, Domain, fits
from sweeps.trial import OBJECTIVE, TrialRecord

STARTUP_TRIALS = 8
# So many trials are shown to the sampler; a draw takes as long as it sees trials.
MOST_SHOWN, BEST_SHOWN = 250, 50


@dataclass(frozen=True, slots=True)
class Builder:
    """How one of ``SAMPLERS`` is built.

    Attributes:
        build: from a seed, and the number of complete trials before which it draws at random.
        learns: whether it looks at trials, and is built anew for each draw; the draws of others are one sequence.
    """

    build: Callable[[int, int], BaseSampler]
    learns: bool = True


def _tpe(seed: int, startup: int) -> BaseSampler:
    # Groups, since an experiment outside of a domain has fewer parameters than the others.
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)


BUILDERS: dict[str, Builder] = {
    "tpe": Builder(_tpe),
    "random": Builder(lambda seed, _: RandomSampler(seed), learns=False),
    "qmc": Builder(lambda seed, _: QMCSampler(seed=seed, scramble=True), learns=False),
    "gp": Builder(lambda seed, startup: GPSampler(seed=seed, n_startup_trials=startup)),  # loads PyTorch, then
}


def to_distribution(domain: Domain) -> BaseDistribution:
    """Return optuna's distribution over the same values.

    >>> from sweeps.spec.space import Range
    >>> to_distribution(Range(low=0.0, high=0.5, log=False))
    FloatDistribution(high=0.5, log=False, low=0.0, step=None)
    """
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(domain.choices))
    if domain.step is None:
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=domain.step)


class Sampler:
    """Draws settings; a draw follows from seed, number and trials alone.

    Args:
        search: domains by setting; what does not fit into them is not seen.
        seed: of the sweep.
        goals: what trials are judged by.
        name: one of ``BUILDERS``.
    """

    def __init__(
        self, search: Mapping[str, Domain], seed: int, goals: Goals = ACCURACY_ALONE, name: str = "tpe"
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study, of which each draw makes one
        self._search, self._seed, self._goals, self._name = search, seed, goals, name
        self._distributions = {name: to_distribution(domain) for name, domain in search.items()}
        self._made: dict[int, FrozenTrial] = {}  # what it sees of trials that have ended
        self._drawn: list[dict[str, Any]] = []  # so far, of the sequence

    def _build(self, seed: int, startup: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return BUILDERS[self._name].build(seed, startup)

    def draw(self, records: Sequence[TrialRecord], number: int) -> dict[str, Any]:
        """Return settings, by what became of the trials in ``records``; ``number`` is of the draw."""
        if not BUILDERS[self._name].learns:
            return self._in_sequence(sum((r.derived_from is None) + len(r.duplicates) for r in records))
        seen = list(_seen(records))
        startup = STARTUP_TRIALS + sum(record.derived_from is not None for record in seen)
        made = [self._made.get(record.number) or self._trial_of(record) for record in seen]
        self._made = {r.number: trial for r, trial in zip(seen, made, strict=True) if trial and r.status != "running"}
        # What some trials lack, a sampler that takes no conditions would draw at random.
        least = 0 if SAMPLERS[self._name].conditions else len(self._distributions)
        shown = _most_telling([trial for trial in made if trial and len(trial.params) >= least], self._goals)
        for place, trial in enumerate(shown, start=1):
            trial.number = place
        study = optuna.create_study(
            directions=[objective.direction for objective in self._goals.objectives],
            sampler=self._build(seed_of(self._seed, number), startup),
            storage=_Shelf(shown),
        )
        return study.ask(dict(self._distributions)).params

    @cached_property
    def _sequence(self) -> optuna.Study:
        return optuna.create_study(sampler=self._build(seed_of(self._seed, 0), 0))

    def _in_sequence(self, place: int) -> dict[str, Any]:
        while len(self._drawn) <= place:
            self._drawn.append(self._sequence.ask(dict(self._distributions)).params)
        return self._drawn[place]

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
            state=TrialState[record.status.upper()],
            values=values,
            params={name: settings[name] for name in self._search if name in settings},
            distributions={name: d for name, d in self._distributions.items() if name in settings},
            intermediate_values={record.epochs: metrics[OBJECTIVE]} if was_stopped else None,
            constraints=None if record.status == "running" else {n: x for n, x in limits.items() if math.isfinite(x)},
        )


def _seen(records: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
    """Yield what the sampler learns from, in the order of asking: trials, duplicates, and the best derived of each."""
    own = [record for record in records if record.derived_from is None]
    derived = [record for record in records if record.derived_from is not None]
    derived.sort(key=lambda record: (record.metrics[OBJECTIVE], -record.number))
    best = {record.derived_from: record for record in derived}  # the last of each, which is the best
    same = [replace(record, number=d.number, settings=d.settings) for record in own for d in record.duplicates]
    yield from sorted([*own, *same, *best.values()], key=lambda record: record.number)


def _most_telling(trials: list[FrozenTrial], goals: Goals) -> list[FrozenTrial]:
    """Return the best trials, the latest and those that run, at most MOST_SHOWN or so, in their order.

    The sampler weighs trials by age and takes at most 25 for good ones: what is left out would hardly count. Several
    objectives, or limits, have no such best trials, and keep all.
    """
    if len(trials) <= MOST_SHOWN or len(goals.objectives) > 1 or goals.constraints:
        return trials
    recent = MOST_SHOWN - BEST_SHOWN
    old, latest = trials[:-recent], trials[-recent:]
    complete = [trial for trial in old if trial.state is TrialState.COMPLETE]
    best = {id(trial) for trial in sorted(complete, key=lambda trial: goals.first.loss(trial.values[0]))[:BEST_SHOWN]}
    return [trial for trial in old if id(trial) in best or trial.state is TrialState.RUNNING] + latest


class _Shelf(InMemoryStorage):
    """Shows trials besides those it stores: copying a thousand into it would take longer than the draw itself.

    They are numbered from 1, since the trial that is drawn is number 0.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials that are shown, which are never copied, and after them those that are stored."""
        shown = [trial for trial in self._shown if states is None or trial.state in states]
        return [*shown, *super().get_all_trials(study_id, deepcopy, states)]


def seed_of(seed: int, number: int) -> int:
    """Return the seed of draw ``number``."""
    return int(digest_of([seed, number], length=7), 16)
