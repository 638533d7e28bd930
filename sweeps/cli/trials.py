"""Words about trials, alike in all commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sweeps.text import percent, plural

if TYPE_CHECKING:
    from sweeps.trial import TrialRecord


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
