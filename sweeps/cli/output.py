"""What a command prints, and where: results to stdout, progress to stderr; and words that several commands print."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from carcls.errors import InputError
from sweeps.cli.exits import Output
from sweeps.tables import lines_of
from sweeps.text import percent, plural, wrapped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sweeps.trial import TrialRecord

# Of a terminal from which tables show all their columns, and of what is no terminal.
WIDE, _WIDTH_OF_A_FILE = 110, 120


class Verbatim(str):
    """Words that are taken as they stand, by a shell, Python or YAML: no line of them is wrapped."""

    __slots__ = ()


class Streams:
    """Progress to stderr, results to stdout; with ``--json``, stdout carries one JSON object and nothing else.

    Libraries and their child processes print where they like, so with ``--json`` the file descriptor itself is led to
    stderr until the end.

    Args:
        as_json: whether ``--json`` was given.

    Attributes:
        progress: where progress is printed.
        result: where a person reads what came of it.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.progress = _console(stderr=True)
        self.result = self.progress if as_json else _console(stderr=False)
        self._printed, self._stdout = sys.stdout, -1

    def __enter__(self) -> Self:
        """Lead stdout to stderr when JSON is wanted."""
        if self.as_json:
            sys.stdout.flush()
            self._stdout = os.dup(1)
            os.dup2(2, 1)
            sys.stdout = sys.stderr
        return self

    def __exit__(self, *_: object) -> None:
        """Give stdout back."""
        if self.as_json:
            sys.stdout.flush()
            sys.stdout = self._printed
            os.dup2(self._stdout, 1)
            os.close(self._stdout)

    @property
    def is_wide(self) -> bool:
        """Whether tables show all their columns."""
        return self.result.width >= WIDE

    def notify(self, text: str) -> None:
        """Print a sentence on progress."""
        say(self.progress, text)

    def answer(self, value: dict[str, Any], *parts: RenderableType) -> None:
        """Write the one object with ``--json``, else what a person reads."""
        if not self.as_json:
            say(self.result, *parts)
            return
        with io.BufferedWriter(Output(self._stdout, must=True)) as file:
            file.write(json.dumps(value, indent=1).encode() + b"\n")


def answering(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command ``--json``, and in its place ``streams`` for as long as it runs."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to stderr.")
    @wraps(command)
    def run(*, as_json: bool, **given: Any) -> int:
        with Streams(as_json) as streams:
            return command(streams=streams, **given)

    return run


def say(console: Console, *parts: RenderableType) -> None:
    """Print sentences, in a terminal wrapped between words, and what is drawn at the console's width."""
    from rich.text import Text

    # Editors and logs that call themselves dumb get a line per sentence.
    is_wrapped = console.is_terminal and not console.is_dumb_terminal
    for part in parts:
        shown = part
        if is_wrapped and isinstance(part, str) and not isinstance(part, Verbatim):
            shown = wrapped(part, console.width)
        elif not console.is_terminal and not isinstance(part, str | Text):
            shown = "\n".join(lines_of(part, width=console.width))
        console.print(shown, markup=False, soft_wrap=isinstance(shown, str) or not console.is_terminal)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def require_page(path: Path) -> Path:
    """Return the path of a page that is to be written, absolute.

    Raises:
        InputError: it cannot be written there, or would replace what is no file.
    """
    path = path.expanduser().absolute()
    if path.exists() and not path.is_file():
        raise InputError(f"--output must be a file, got {str(path)!r}. For stdout say -o -.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--output must be in a folder that can be written to, got {str(path)!r}. Choose another -o.")
    return path


def callable_name(program: str) -> str:
    """Return how a person calls a program of this installation: its name, or its path when it is not on the PATH."""
    place = Path(sys.executable).parent / program
    found = shutil.which(program)
    # Not where a link leads: the Python of a virtual environment is one to a Python that lacks its libraries.
    if found and Path(found).parent.resolve() == place.parent.resolve():
        return program
    here = Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)


def carsweep_command(*words: str) -> str:
    """Return a command line of carsweep as a person types it."""
    return shlex.join([callable_name("carsweep"), *words])


def resume_command(name: str, out: Path, *, finish: bool = False) -> str:
    """Return the command line that goes on with a sweep or a job, or finishes a sweep.

    >>> resume_command("mine", Path("runs")).partition("carsweep")[2]
    ' resume mine'
    """
    verb = "finish" if finish else "resume"
    return carsweep_command(verb, name, *([] if out == Path("runs") else ["--out", str(out)]))


def epoch_of(record: TrialRecord) -> str:
    """Write how many epochs a trial has finished, and of how many."""
    return f"{record.epochs}/{record.config['epochs']}"


def accuracy_of(record: TrialRecord) -> str:
    """Write the last validation accuracy of a trial; a dash before there is one."""
    return percent(record.metrics.get("val_accuracy"))


def duplicates_text(records: Iterable[TrialRecord], most: int = 10) -> str:
    """Write which trials were not run since others answer them; nothing without any.

    Such as: 2 drawn trials were not run: 9 (same as trial 7), 12 (nearly the same as trial 7)
    """
    duplicates = sorted((one.number, record.number, one.near) for record in records for one in record.duplicates)
    if not duplicates:
        return ""
    named = [f"{n} ({'nearly the ' if near else ''}same as trial {other})" for n, other, near in duplicates[:most]]
    more = f" and {len(duplicates) - most} more" if len(duplicates) > most else ""
    verb = "was" if len(duplicates) == 1 else "were"
    return f"{plural(len(duplicates), 'drawn trial')} {verb} not run: {', '.join(named)}{more}"
