"""Who watches a sweep from outside the trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sweeps.engine import Observer
    from sweeps.forecast import BudgetStatus
    from sweeps.record import TrialRecord


class Progress(Protocol):
    """Told of what happens before and after the trials."""

    def note(self, text: str) -> None:
        """Tell one sentence."""

    def packing(self, done: int, total: int) -> None:
        """Tell how many images of ``total`` are read."""

    def on_status(self, status: BudgetStatus) -> None:
        """Tell what is spent and what is to come; told before the news that changed it."""


if TYPE_CHECKING:

    class Watcher(Observer, Progress, Protocol):
        """Told of everything."""


class FanOut:
    """An Observer that passes every event on.

    Args:
        observers: told in this order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def trial_changed(self, record: TrialRecord) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.trial_changed(record)
