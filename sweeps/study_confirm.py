"""Confirming runs, as the study knows them: trials that repeat others with fresh seeds.

They are in the journal like all trials, but the search has nothing to do with them: they are drawn by nobody, shown to
no sampler, measured against nothing and stopped by nobody, and they cost nothing of its budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.confirm import Repeat
from sweeps.study_parts import asked_of


@dataclass(frozen=True, slots=True)
class Confirming:
    """What is still to be run: trials that another driver left unfinished, and runs that nobody has begun."""

    unfinished: list[int]
    new: list[Repeat]


def is_confirming(trial: FrozenTrial) -> bool:
    """Tell whether the trial repeats another one with a fresh seed."""
    return "confirms" in asked_of(trial)


def searched(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials of the search."""
    return [trial for trial in trials if not is_confirming(trial)]


def confirming_trial(repeat: Repeat) -> FrozenTrial:
    """Return the trial to be added to the study. It has no parameters: nothing is to be learned from it.

    Its settings are all of its config's, with the seed: of a documented experiment, whose name it does not have, the
    sweep's own would not be those that were run.
    """
    asked = {
        "experiment": None,
        "settings": repeat.config.model_dump(exclude={"family"}),
        "config": repeat.config.model_dump(),
        "digest": repeat.config.digest,
        "confirms": repeat.confirms,
    }
    trial = create_trial(state=TrialState.RUNNING, user_attrs={"asked": asked})
    trial.datetime_start = datetime.now()
    return trial
