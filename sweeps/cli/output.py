"""What a command prints, and where: results to stdout, progress to stderr, whatever these lead to.

Full disks, closed pipes and narrow encodings cost neither a sweep nor a result. Nothing heavy is loaded to print help.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sweeps.text import percent, plural

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sweeps.trial import TrialRecord

_WIDTH_OF_A_FILE = 120
# What stands for the signs that tables and sentences use, where the encoding has none of them.
_PLAIN = {"±": "+/-", "–": "-", "−": "-", "≤": "<=", "…": "...", "★": "*", "✗": "x", "×": "x", "†": "+"}
_ERRORS = "carsweep-plain"


class StdoutLost(Exception):  # noqa: N818 - says what happened
    """What a command has to say cannot be printed.

    Args:
        reason: the system's words.
        closed: whether the reader has gone, as ``head`` does once it has seen enough.

    Attributes:
        advice: where the words are kept, and how to see them.
    """

    def __init__(self, reason: str, *, closed: bool) -> None:
        super().__init__(f"stdout cannot be written ({reason}).")
        self.closed, self.advice = closed, ""


class Output(io.FileIO):
    """A file descriptor to write to. The first write that fails raises ``StdoutLost``; later ones go nowhere.

    Args:
        fd: stays open.
        must: whether a write that fails is told at all; what only tells of progress ends no sweep.
    """

    def __init__(self, fd: int, *, must: bool) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._must = must

    def write(self, data: Any, /) -> int:
        """Write bytes."""
        try:
            return super().write(data)
        except OSError as error:
            if not self._must:
                return len(data)
            self._must = False
            raise StdoutLost(error.strerror or str(error), closed=isinstance(error, BrokenPipeError)) from None


def open_streams() -> None:
    """Let ``sys.stdout`` and ``sys.stderr`` of this process be such outputs, also where they were closed."""
    codecs.register_error(_ERRORS, _plain)
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # else the next file that is opened gets its number, and is printed into
            os.open(os.devnull, os.O_WRONLY if fd == 2 else os.O_RDONLY)
    sys.stdout, sys.stderr = _stream(sys.stdout, 1, must=True), _stream(sys.stderr, 2, must=False)


def _stream(before: Any, fd: int, *, must: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(Output(fd, must=must)),
        encoding=getattr(before, "encoding", "utf-8"),
        errors=_ERRORS,
        line_buffering=getattr(before, "line_buffering", True),
        write_through=getattr(before, "write_through", False),
    )


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks with letters that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    return _PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


@contextmanager
def kept_in(folder: Path, again: str) -> Iterator[None]:
    """Print a result that is on disk: when that fails, say where it is and which command prints it again."""
    try:
        yield
        sys.stdout.flush()
    except StdoutLost as lost:
        lost.advice = f" The result is kept in {folder}. To print it again: {again}"
        raise


class Streams:
    """Progress to stderr, results to stdout; with ``--json``, stdout carries one JSON object and nothing else.

    Libraries and their child processes print where they like, so with ``--json`` the file descriptor itself is led to
    stderr until the end.

    Args:
        as_json: whether ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.progress = _console(stderr=True)
        # Where a person reads a result.
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

    def tell(self, text: str) -> None:
        """Print a sentence on progress."""
        say(self.progress, text)

    def answer(self, value: dict[str, Any], *parts: RenderableType) -> None:
        """Write the one object with ``--json``, else what a person reads."""
        if not self.as_json:
            say(self.result, *parts)
            return
        with io.BufferedWriter(Output(self._stdout, must=True)) as file:
            file.write(json.dumps(value, indent=1).encode() + b"\n")


def say(console: Console, *parts: RenderableType) -> None:
    """Print sentences, which the terminal wraps, and what is drawn at the console's width."""
    from rich.text import Text

    for part in parts:
        if console.is_terminal or isinstance(part, str | Text):
            console.print(part, markup=False, soft_wrap=isinstance(part, str) or not console.is_terminal)
            continue
        with console.capture() as drawn:
            console.print(part)
        lines = (line.rstrip() for line in drawn.get().splitlines())  # rich fills them up to the width
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def callable_name(program: str) -> str:
    """Return how a person calls a program of this installation: its name, or its path when it is not on the PATH."""
    place = Path(sys.executable).parent / program
    found = shutil.which(program)
    # Not where a link leads: the Python of a virtual environment is one to a Python that lacks its libraries.
    if found and Path(found).parent.resolve() == place.parent.resolve():
        return program
    here = Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)


def resume_command(name: str, out: Path) -> str:
    """Return the command line that goes on with a sweep or a job.

    >>> resume_command("mine", Path("runs")).partition("carsweep")[2]
    ' resume mine'
    """
    place = [] if out == Path("runs") else ["--out", str(out)]
    return shlex.join([callable_name("carsweep"), "resume", name, *place])


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
