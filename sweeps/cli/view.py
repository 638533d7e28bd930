"""What a person sees while a sweep runs: a live table on a terminal, one line per event anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from carcls.errors import mask_secrets
from sweeps.budget import status_text
from sweeps.cli.running import RunningSweep, accuracy_of, epoch_of
from sweeps.interrupts import last_words
from sweeps.text import duration

if TYPE_CHECKING:
    from sweeps.forecast import BudgetStatus
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec

_COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}
_NEWEST = 12
# Widths of a terminal: from which experiments have their family's name too, and below which names are cut.
_WIDE, _NARROW, _SHORTEST = 100, 70, 16


@contextmanager
def open_view(spec: SweepSpec, console: Console) -> Iterator[PlainView | LiveView]:
    """Give the view that suits ``console``, and clear it away at the end."""
    if not console.is_terminal:
        yield PlainView(spec, console)
        return
    view = LiveView(spec, console)
    try:
        with last_words(view.close):
            yield view
    finally:
        view.close()


class PlainView:
    """One line per event, for logs and pipes.

    Args:
        spec: of the sweep to watch.
        console: where the lines go.
    """

    def __init__(self, spec: SweepSpec, console: Console) -> None:
        self._console = console
        self._running = RunningSweep(spec)
        self._tenths = -1

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(mask_secrets(text), markup=False, soft_wrap=True)

    def packing(self, done: int, total: int) -> None:
        """Print a line at each tenth of the images."""
        tenths = 10 * done // max(1, total)
        if tenths != self._tenths:
            self._tenths = tenths
            self.note(f"reading images: {done} of {total}")

    def on_status(self, status: BudgetStatus) -> None:
        """Remember it for the next line."""
        self._running.note_status(status)

    def trial_changed(self, record: TrialRecord) -> None:
        """Print what the trial tries, its validation accuracy, or how it ended and how far the sweep is."""
        running, number = self._running, record.number
        is_new = number not in running.records
        running.change(record)
        if is_new and not record.refused:
            self.note(f"trial {number} started: {record.name} {running.settings_of(record)}".rstrip())
        if record.status != "running":
            self.note(f"trial {number} {_end_of(record)} | {_how_far(running)}")
        elif not is_new:
            self.note(f"trial {number} epoch {epoch_of(record)}: val accuracy {accuracy_of(record)}")


class LiveView:
    """A table that is redrawn in place; before the first trial, a bar of the images read.

    Args:
        spec: of the sweep to watch.
        console: a terminal.
    """

    def __init__(self, spec: SweepSpec, console: Console) -> None:
        self._console = console
        self._running = RunningSweep(spec)
        columns = (TextColumn("reading images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._reading = self._bar.add_task("reading images")
        # A callable is drawn at each refresh, so that the clock runs between events.
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=2)

    def close(self) -> None:
        """Leave the terminal as it was found; the last table stays, if there is one."""
        self._live.transient = not self._running.records
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a sentence above the table."""
        self._console.print(mask_secrets(text), markup=False, soft_wrap=True)

    def packing(self, done: int, total: int) -> None:
        """Draw the bar of the images read."""
        self._bar.update(self._reading, completed=done, total=total)
        self._live.start()

    def on_status(self, status: BudgetStatus) -> None:
        """Remember it for the next drawing."""
        self._running.note_status(status)

    def trial_changed(self, record: TrialRecord) -> None:
        """Add the trial's line to the table, or change it."""
        self._running.change(record)
        self._live.start()
        self._live.refresh()

    def _draw(self) -> RenderableType:
        if not self._running.records and not self._bar.finished:
            return self._bar
        table = draw_trials(self._running, self._console.width)
        return Group(table, Text(_how_far(self._running), style="bold"))


def draw_trials(running: RunningSweep, width: int) -> Table:
    """Draw the running trials, the best one, and the newest others, so that the table fits a screen.

    On a terminal of few columns the settings give way, then the names of experiments.
    """
    best = running.best
    accuracy = "val accuracy" if width >= _NARROW else "val acc."
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("trial", "what", "status", "epoch", accuracy):
        named = name in ("what", "status")
        table.add_column(name, justify="left" if named else "right", no_wrap=True, overflow="ellipsis")
    if width < _NARROW:
        table.columns[1].max_width = _SHORTEST
    table.add_column("settings", overflow="ellipsis", no_wrap=True, ratio=1)
    for trial in _shown(running, best):
        row = [Text(text, style=_COLOURS.get(text, "")) for text in _cells(trial, trial is best, short=width < _WIDE)]
        table.add_row(*row, Text(running.settings_of(trial)), style="bold" if trial is best else None)
    return table


def _cells(record: TrialRecord, best: bool, *, short: bool) -> tuple[str, ...]:
    shown = record.name.rpartition("/")[2] if short else record.name
    return str(record.number), shown, record.status, epoch_of(record), accuracy_of(record) + (" *" if best else "")


def _shown(running: RunningSweep, best: TrialRecord | None) -> list[TrialRecord]:
    trials = list(running.records.values())
    newest = {trial.number for trial in trials[-_NEWEST:]}
    return [trial for trial in trials if trial.number in newest or trial.status == "running" or trial is best]


def _end_of(record: TrialRecord) -> str:
    if record.status == "failed":
        return f"failed: {record.reason}"
    if record.status == "pruned" and not record.epochs:
        return record.reason
    took = duration(record.seconds)
    return f"{record.status}: val accuracy {accuracy_of(record)} after {record.epochs} epochs, {took}"


def _how_far(running: RunningSweep) -> str:
    best, left = running.best, running.remaining
    parts = [f"{running.status.ended if running.status else 0} of {running.total} trials"]
    if best:
        first = running.spec.goals.first
        named = "" if first.name == "accuracy" else f"{first.name} "
        parts.append(f"best {named}{first.write(best.metrics[first.metric])} (trial {best.number})")
    parts.append(duration(running.elapsed))
    if left:
        parts.append(f"about {duration(left)} to go")
    if running.status:
        parts += status_text(running.status, running.spec)
    return ", ".join(parts)
