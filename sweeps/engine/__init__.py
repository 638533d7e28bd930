"""Trials on processes and machines: Ray, Tune, failure recovery, budgets. Only here is Ray.

These are the ones who watch a sweep from outside.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.engine.budget import BudgetStatus
    from sweeps.trial import TrialRecord

# Under `uv run` Ray would pack the current folder, runs and data with it. It reads this when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # in a notebook it would like more libraries


class Observer(Protocol):
    """Watches a sweep's trials, from the driver's process and thread."""

    def trial_changed(self, record: TrialRecord) -> None:
        """A trial began, or goes on after a restart; it finished an epoch; or it is complete, pruned or failed.

        A trial that is left unfinished has no such end.
        """


class Progress(Protocol):
    """Notified of what happens before and after the trials."""

    def note(self, text: str) -> None:
        """Show one sentence."""

    def packing(self, done: int, total: int, what: str = "reading images") -> None:
        """Show how many images of ``total`` are read, or whatever is done with them."""

    def on_data(self, data: DataSummary) -> None:
        """The images are read."""

    def on_status(self, status: BudgetStatus) -> None:
        """What is spent and what is to come; before the observers are notified of what changed it."""


class Watcher(Observer, Progress, Protocol):
    """Notified of everything."""


FACE = {
    "budget": ("BudgetStatus", "status_text"),
    "cluster": ("machines_of",),
    "engine": ("EngineResult", "run_trials"),
    "resources": ("Machine", "Share", "least_seconds", "processes_of", "rates_of", "this_machine"),
    "session": ("RaySession",),
    "shares": ("share_of", "share_text"),
    "task": ("Work", "run_task"),
}
"""What other rooms may import, by module."""
