"""What a person sees while a sweep runs: a live table on a terminal, one line per event anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from carcls.errors import mask_secrets
from sweeps.cli.output import accuracy_of, epoch_of, say
from sweeps.engine.budget import status_text
from sweeps.interrupts import last_words
from sweeps.results.leaderboard import differing_settings
from sweeps.text import duration, plural, settings_text

if TYPE_CHECKING:
    from sweeps.engine.budget import BudgetStatus
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}
_NEWEST = 12
# Widths of a terminal: from which experiments have their family's name too, and below which names are cut.
_WIDE, _NARROW, _SHORTEST = 100, 70, 16


@contextmanager
def open_view(spec: SweepSpec, console: Console) -> Iterator[SweepView]:
    """Give a view of a sweep, and clear it away at the end."""
    view = SweepView(spec, console)
    try:
        with last_words(view.close):
            yield view
    finally:
        view.close()


class SweepView:
    """Shows a sweep: on a terminal a table that is redrawn in place, anywhere else one line per event.

    Args:
        spec: of the sweep to watch.
        console: where it is shown.

    Attributes:
        records: trials of this session by number, in the order in which they started.
        status: what is spent and what is to come; None before the first trial.
    """

    def __init__(self, spec: SweepSpec, console: Console) -> None:
        self.records: dict[int, TrialRecord] = {}
        self.status: BudgetStatus | None = None
        self._spec, self._base = spec, spec.trial_config({}).model_dump()
        self._began = self._heard = time.monotonic()
        self._console = console
        columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._reading, self._tenths = self._bar.add_task("reading images"), -1
        # A callable is drawn at each refresh, so that the clock runs between events.
        live = Live(get_renderable=self._draw, console=console, refresh_per_second=2)
        self._live = live if console.is_terminal else None

    def close(self) -> None:
        """Leave the terminal as it was found; the last table stays, if there is one."""
        if self._live:
            self._live.transient = not self.records
            self._live.stop()

    def note(self, text: str) -> None:
        """Print a sentence, above the table."""
        say(self._console, mask_secrets(text))

    def packing(self, done: int, total: int) -> None:
        """Draw the bar of the images read, or print a line at each tenth of them."""
        if self._live:
            self._bar.update(self._reading, completed=done, total=total)
            self._live.start()
        elif (tenths := 10 * done // max(1, total)) != self._tenths:
            self._tenths = tenths
            self.note(f"reading images: {done} of {total}")

    def on_status(self, status: BudgetStatus) -> None:
        """Remember it for the next line or drawing."""
        self.status, self._heard = status, time.monotonic()

    def trial_changed(self, record: TrialRecord) -> None:
        """Change the trial's line in the table, or print what it tries, how far it is, or how it ended."""
        is_new = record.number not in self.records
        self.records[record.number] = record
        if self._live:
            self._live.start()
            self._live.refresh()
            return
        trial = f"trial {record.number}"
        if is_new and not record.refused:
            self.note(f"{trial} started: {record.name} {self.settings_of(record)}".rstrip())
        if record.status != "running":
            self.note(f"{trial} {_end_of(record)} | {self.how_far()}")
        elif not is_new:
            self.note(f"{trial} epoch {epoch_of(record)}: val accuracy {accuracy_of(record)}")

    def _draw(self) -> RenderableType:
        if not self.records and not self._bar.finished:
            return self._bar
        return Group(draw_trials(self, self._console.width), Text(self.how_far(), style="bold"))

    def settings_of(self, record: TrialRecord) -> str:
        """Write the settings of a trial that differ from the sweep's base."""
        return settings_text(differing_settings(record.config, self._base))

    def how_far(self) -> str:
        """Write how far the sweep is: trials of all sessions, the best of them, time, and budgets."""
        status, first = self.status, self._spec.goals.first
        passed, total = time.monotonic() - self._began, self._spec.trials + self._spec.extent.runs
        if status is None:
            return f"0 of {plural(total, 'trial')}, {duration(passed)}"
        parts = [f"{status.ended} of {plural(total, 'trial')}"]
        if status.best:
            named = "" if first.name == "accuracy" else f"{first.name} "
            parts.append(f"best {named}{first.write(status.best.metrics[first.metric])} (trial {status.best.number})")
        parts.append(duration(passed))
        left = (status.seconds_left or 0.0) - (time.monotonic() - self._heard)
        if left > 0:
            parts.append(f"about {duration(left)} to go")
        return ", ".join([*parts, *status_text(status, self._spec)])


def draw_trials(view: SweepView, width: int) -> Table:
    """Draw the running trials, the best one, and the newest others, so that the table fits a screen.

    On a terminal of few columns the settings give way, then the names of experiments.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("trial", "what", "status", "epoch", "val accuracy" if width >= _NARROW else "val acc."):
        is_word = name in ("what", "status")
        table.add_column(name, justify="left" if is_word else "right", no_wrap=True, overflow="ellipsis")
    if width < _NARROW:
        table.columns[1].max_width = _SHORTEST
    table.add_column("settings", overflow="ellipsis", no_wrap=True, ratio=1)
    best = view.status.best if view.status else None
    trials = list(view.records.values())  # at once, since the live table is drawn in a thread of its own
    if best is not None and best.number not in view.records:
        trials = [best, *trials]  # of an earlier session
    newest = {trial.number for trial in trials[-_NEWEST:]}
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        if trial.number in newest or is_best or trial.status == "running":
            name = trial.name if width >= _WIDE else trial.name.rpartition("/")[2]
            accuracy = accuracy_of(trial) + (" *" if is_best else "")
            status = Text(trial.status, style=_COLOURS[trial.status])
            cells = (str(trial.number), Text(name), status, epoch_of(trial), accuracy, Text(view.settings_of(trial)))
            table.add_row(*cells, style="bold" if is_best else None)
    return table


def _end_of(record: TrialRecord) -> str:
    if record.status == "failed":
        return f"failed: {record.reason}"
    if record.status == "pruned" and not record.epochs:
        return record.reason
    took = f"{plural(record.epochs, 'epoch')}, {duration(record.seconds)}"
    return f"{record.status}: val accuracy {accuracy_of(record)} after {took}"
