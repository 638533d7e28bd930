"""What a study looks up for every trial, kept as trials are added, so that no question reads all of them again.

What was asked of a trial never changes, so an index only grows. How trials went is not in here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from sweeps.goals import Goals
from sweeps.study_confirm import is_confirming
from sweeps.study_goals import is_readmitted
from sweeps.study_parts import asked_of

# What is free of the budget of trials.
_FREE = ("duplicate_of", "sibling_of", "confirms", "refused")


@dataclass(slots=True)
class Index:
    """Facts of the trials that were asked.

    Attributes:
        goals: of the sweep.
        total: trials in the journal, those included that a driver died over while it asked.
        counted: those that the budget of trials counts.
        confirming: runs that confirm others.
        begun: names of documented experiments and starts that were asked.
        digests: by digest, the trial that answers it: the first that was asked for it.
        copies: by trial, the duplicates of it that wait for its result, or have it.
    """

    goals: Goals
    total: int = 0
    counted: int = 0
    confirming: int = 0
    begun: set[str] = field(default_factory=set)
    digests: dict[str, int] = field(default_factory=dict)
    copies: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial], goals: Goals) -> Index:
        """Return the index of all trials of a journal."""
        index = cls(goals)
        for trial in trials:
            index.add(trial)
        return index

    def add(self, trial: FrozenTrial) -> None:
        """Note a trial that has just been added to the journal."""
        self.total += 1
        if "asked" not in trial.user_attrs:
            return
        asked = asked_of(trial)
        self.counted += not any(key in asked for key in _FREE)
        self.confirming += is_confirming(trial)
        if "duplicate_of" in asked:
            self.copies[asked["duplicate_of"]].append(trial.number)
        if is_readmitted(trial, self.goals):
            return
        self.begun |= {name for name in (asked.get("start") or asked["experiment"],) if name}
        if "duplicate_of" not in asked:
            self.digests.setdefault(asked["digest"], trial.number)
