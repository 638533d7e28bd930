"""Confirmation: the best trials of a search once more with fresh seeds, so that a lucky run wins nothing.

The best of many trials was chosen for its score, so its score is too high: of 30 trials that are equally good, the best
is about two standard deviations of their noise above the truth (the winner's curse). Runs with fresh seeds were chosen
for nothing, and their mean is free of the luck of training. The validation images stay the same ones: how well they
happen to suit a trial is a luck that only the test images take away.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from carcls.config import TrialConfig, digest_of
from sweeps.trial import OBJECTIVE, TrialRecord

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A trial that was repeated with fresh seeds (``--confirm``); accuracies on the validation images, in [0, 1].

    Attributes:
        number: of the trial.
        asked: how many runs with fresh seeds it has, failed ones and unfinished ones included.
        runs: numbers of those that are complete.
        search: its accuracy in the search, by which it was chosen.
        mean: of the complete runs; None without any.
        spread: their standard deviation (with n - 1); None with fewer than two.
        shrinkage: mean - search; below 0 as a rule, since what is chosen for its score was lucky.
    """

    number: int
    asked: int
    runs: tuple[int, ...]
    search: float
    mean: float | None
    spread: float | None
    shrinkage: float | None

    @property
    def is_whole(self) -> bool:
        """Whether every run is complete."""
        return bool(self.runs) and len(self.runs) == self.asked


class Repeat(NamedTuple):
    """A run to be made: the number of the trial that it repeats, and that trial's config with a fresh seed."""

    confirms: int
    config: TrialConfig


def fresh_seeds(seed: int, config: TrialConfig, count: int) -> tuple[int, ...]:
    """Return different seeds in [0, 2³¹), none of them the search's.

    They follow from the search's seed and from what is trained. Trials that train alike (retrieval with another k) get
    equal seeds, so that they share their trainings here as they did in the search.
    """
    trained = config.training().digest
    seeds: list[int] = []
    place = 0
    while len(seeds) < count:
        drawn = int(digest_of([seed, trained, "confirm", place]), 16) % _SEEDS
        if drawn != seed and drawn not in seeds:
            seeds.append(drawn)
        place += 1
    return tuple(seeds)


def repeats_of(number: int, config: TrialConfig, seed: int, count: int) -> list[Repeat]:
    """Return the runs that confirm trial ``number``."""
    return [Repeat(number, config.model_copy(update={"seed": fresh})) for fresh in fresh_seeds(seed, config, count)]


def confirmed_of(trials: Iterable[TrialRecord]) -> tuple[Confirmed, ...]:
    """Return what fresh seeds made of each trial that was repeated, best first.

    Trials of which a run failed or is not over come last: a mean of those runs that went well would be luck again.
    Ties of the mean go to the lower number.
    """
    trials = list(trials)
    runs: defaultdict[int | None, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        runs[trial.confirms].append(trial)
    found = [_confirmed(trial, runs[trial.number]) for trial in trials if trial.number in runs]
    return tuple(sorted(found, key=lambda one: (not one.is_whole, -(one.mean or 0.0), one.number)))


def _confirmed(trial: TrialRecord, runs: Sequence[TrialRecord]) -> Confirmed:
    scores = {run.number: run.measured(OBJECTIVE) for run in runs if run.status == "complete"}
    known = {number: score for number, score in scores.items() if score is not None}
    mean, search = statistics.fmean(known.values()) if known else None, trial.metrics[OBJECTIVE]
    spread = statistics.stdev(known.values()) if len(known) > 1 else None
    return Confirmed(
        trial.number, len(runs), tuple(known), search, mean, spread, shrinkage=None if mean is None else mean - search
    )


def typical_run(confirmed: Confirmed, trials: Iterable[TrialRecord]) -> TrialRecord:
    """Return the complete run whose score is nearest to the mean; ties go to the lower number.

    It stands for its settings in the registry. Its best run would be chosen for luck again, and would not score what
    the mean promises; the run of the search was chosen for luck already.
    """
    mean = confirmed.mean
    assert mean is not None
    runs = [trial for trial in trials if trial.number in confirmed.runs]
    return min(runs, key=lambda run: (abs(run.metrics[OBJECTIVE] - mean), run.number))
