"""What is known of a sweep while it runs; the views draw it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.budget import status_text
from sweeps.text import duration, percent, plural, settings_text

if TYPE_CHECKING:
    from sweeps.forecast import BudgetStatus
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec


@dataclass(slots=True)
class RunningSweep:
    """The trials of a sweep so far, in the order in which they started."""

    spec: SweepSpec
    base: Mapping[str, Any] = field(init=False)
    records: dict[int, TrialRecord] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    status: BudgetStatus | None = None
    told: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.base = self.spec.trial_config({}).model_dump()

    def note_status(self, status: BudgetStatus) -> None:
        """Note what is spent and what is to come."""
        self.status, self.told = status, time.monotonic()

    def change(self, record: TrialRecord) -> None:
        """Note how a trial is getting on, or how it ended."""
        self.records[record.number] = record

    def settings_of(self, record: TrialRecord) -> str:
        """Write the settings of a trial that differ from the sweep's base."""
        from sweeps.leaderboard import differing_settings

        return settings_text(differing_settings(record.config, self.base))

    def how_far(self) -> str:
        """Write how far the sweep is: trials of all sessions, the best of them, time, and budgets."""
        status, goals = self.status, self.spec.goals
        total = self.spec.trials + self.spec.confirming_runs
        parts = [f"{status.ended if status else 0} of {total} trials"]
        if status and status.best:
            named = "" if goals.first.name == "accuracy" else f"{goals.first.name} "
            value = goals.first.write(status.best.metrics[goals.first.metric])
            parts.append(f"best {named}{value} (trial {status.best.number})")
        parts.append(duration(time.monotonic() - self.started))
        if status and status.seconds_left is not None:
            left = max(0.0, status.seconds_left - (time.monotonic() - self.told))
            parts += [f"about {duration(left)} to go"] if left else []
        return ", ".join([*parts, *(status_text(status, self.spec) if status else ())])


def epoch_of(record: TrialRecord) -> str:
    """Write how many epochs a trial has finished, and of how many."""
    return f"{record.epochs}/{record.config['epochs']}"


def accuracy_of(record: TrialRecord) -> str:
    """Write the last validation accuracy of a trial; a dash before there is one."""
    return percent(record.metrics.get("val_accuracy"))


def write_twins(records: Iterable[TrialRecord], most: int = 10) -> str:
    """Write which trials were not run since others answer them; nothing without any.

    Such as: 2 drawn trials were not run: 9 (same as trial 7), 12 (nearly the same as trial 7)
    """
    twins = sorted((twin.number, record.number, twin.near) for record in records for twin in record.twins)
    if not twins:
        return ""
    named = [f"{n} ({'nearly the ' if near else ''}same as trial {other})" for n, other, near in twins[:most]]
    more = f" and {len(twins) - most} more" if len(twins) > most else ""
    what = f"{plural(len(twins), 'drawn trial')} {'was' if len(twins) == 1 else 'were'}"
    return f"{what} not run: {', '.join(named)}{more}"
