"""What a person sees while a sweep runs: a live picture on a terminal, one line per event anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from carcls.errors import InputError, mask_secrets
from sweeps.cli.live import draw, trials_text
from sweeps.cli.machine import MachineWatch
from sweeps.cli.output import accuracy_of, epoch_of, say
from sweeps.cli.state import SweepState, TrialFacts, facts_of
from sweeps.engine.budget import status_text
from sweeps.interrupts import last_words
from sweeps.results.leaderboard import differing_settings
from sweeps.text import duration, plural, settings_text

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.engine.budget import BudgetStatus
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord


@contextmanager
def open_view(spec: SweepSpec, console: Console, stages: Path | None = None) -> Iterator[SweepView]:
    """Give a view of a sweep, and clear it away at the end; arguments as of ``SweepView``."""
    view = SweepView(spec, console, stages)
    try:
        with last_words(view.close):
            yield view
    finally:
        view.close()


class SweepView:
    """Shows a sweep: on a terminal a picture that is redrawn in place, anywhere else one line per event.

    Args:
        spec: of the sweep to watch.
        console: where it is shown.
        stages: folder of the stage store, to tell which stages are being made; None tells of none.

    Attributes:
        state: what is known of the sweep.
    """

    def __init__(self, spec: SweepSpec, console: Console, stages: Path | None = None) -> None:
        self._told, self._facts = dict[int, float](), dict[int, TrialFacts]()
        self.state = SweepState(spec, told=self._told)
        self._base = spec.trial_config({}).model_dump()
        self._began = self._heard = time.monotonic()
        self._console, self._machine = console, MachineWatch(stages, has_gpus=spec.gpus_per_trial != 0)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._reading, self._tenths = self._bar.add_task(""), ("", -1)
        # A callable is drawn at each refresh, so that the clock runs between events.
        live = Live(self, console=console, refresh_per_second=2)
        self._live = live if console.is_terminal and not console.is_dumb_terminal else None

    def close(self) -> None:
        """Leave the terminal as it was found; the last picture stays, if there were trials."""
        self._machine.stop()
        self.state = replace(self._drawn() if self._live else self.now(), is_over=True)
        if self._live:
            self._live.transient = self.state.status is None
            self._live.stop()

    def now(self) -> SweepState:
        """Return what is known of the sweep at this moment."""
        if self.state.is_over:
            return self.state
        status, now = self.state.status, time.monotonic()
        left = (status.seconds_left or 0.0) - (now - self._heard) if status else 0.0
        return replace(self.state, use=self._machine.use, seconds=now - self._began, seconds_left=left)

    def _drawn(self) -> SweepState:
        """Return what is known at this moment, with the facts of all trials; only those that changed are read again."""
        state, known = self.now(), self._facts
        if state.status is None or state.is_over:
            return state
        with suppress(OSError, InputError):  # the journal is gone: whoever writes to it says so
            records = dict(state.status.records)  # a copy, since trials go on meanwhile
            self._facts = {n: facts_of(record, state.spec, known.get(n)) for n, record in records.items()}
        return replace(state, facts=self._facts)

    def note(self, text: str) -> None:
        """Print a sentence, above the picture."""
        say(self._console, mask_secrets(text))

    def packing(self, done: int, total: int, what: str = "reading images") -> None:
        """Draw the bar of the images read, or print a line at each tenth of them."""
        if self._live:
            if self._bar.tasks[0].description != what:
                self._bar.reset(self._reading, description=what)
            self._bar.update(self._reading, completed=done, total=total)
            self._live.start()
        elif (tenths := (what, 10 * done // max(1, total))) != self._tenths:
            self._tenths = tenths
            self.note(f"{what}: {done} of {total}")

    def on_data(self, data: DataSummary) -> None:
        """Remember how many images accuracies are measured on; draw the picture from now on."""
        self.state = replace(self.state, data=data)
        self._show()

    def on_status(self, status: BudgetStatus) -> None:
        """Remember it for the next line or picture."""
        began = self.state.began if self.state.status else status.spent
        self._heard = time.monotonic()
        self.state = replace(self.state, status=status, began=began)

    def trial_changed(self, record: TrialRecord) -> None:
        """Draw the trial from now on, or print what it tries, how far it is, or how it ended."""
        is_new = record.number not in self._told
        self._told[record.number] = time.monotonic() - self._began
        if self._show():
            return
        trial = f"trial {record.number}"
        if is_new and not record.refused:
            settings = settings_text(differing_settings(record.config, self._base))
            self.note(f"{trial} started: {record.name} {settings}".rstrip())
        if record.status != "running":
            self.note(f"{trial} {_end_of(record)} | {self.how_far()}")
        elif not is_new:
            self.note(f"{trial} epoch {epoch_of(record)}: val accuracy {accuracy_of(record)}")

    def _show(self) -> bool:
        """Draw the picture from now on, if there is a terminal; return whether there is."""
        if self._live:
            self._machine.start()
            self._live.start()
        return self._live is not None

    def how_far(self) -> str:
        """Write how far the sweep is: trials of all sessions, the best of them, time, and budgets."""
        (trials, *times), status, first = trials_text(self.now()), self.state.status, self.state.spec.goals.first
        if status is None:
            return ", ".join([trials, *times])
        best, named = status.best, "" if first.name == "accuracy" else f"{first.name} "
        said = [f"best {named}{first.write(best.metrics[first.metric])} (trial {best.number})"] if best else []
        return ", ".join([trials, *said, *times, *status_text(status, self.state.spec)])

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Draw what is known now."""
        if self.state.status is None and self.state.data is None:
            yield self._bar
        else:
            yield draw(self._drawn(), options.max_width, options.size.height, ascii_only=options.ascii_only)


def _end_of(record: TrialRecord) -> str:
    if record.status == "failed":
        return f"failed: {record.reason}"
    if record.status == "pruned" and not record.epochs:
        return record.reason
    took = f"{plural(record.epochs, 'epoch')}, {duration(record.seconds)}"
    return f"{record.status}: val accuracy {accuracy_of(record)} after {took}"
