"""How a command ends: errors become messages and exit codes, and words that cannot be printed cost nothing else.

Only here does an error become a message for a person. Stdout and stderr are written to whatever they lead to: full
disks, closed pipes, narrow encodings.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from carcls.errors import InputError, SpecError, SweepStopped, TrialFailure, mask_secrets
from sweeps.text import wrapped

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
_LONGEST = 300
# What is written for the signs that tables and sentences use, where the encoding has none of them.
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
        must: whether a write that fails raises at all; progress that cannot be printed ends no sweep.
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


def echo(text: str, *, err: bool = False) -> None:
    """Print sentences without rich, in a terminal wrapped between words."""
    stream = sys.stderr if err else sys.stdout
    is_wrapped = stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    click.echo(wrapped(text, shutil.get_terminal_size().columns) if is_wrapped else text, err=err)


@contextmanager
def kept_in(folder: Path, again: str) -> Iterator[None]:
    """Print a result that is on disk: when that fails, say where it is and which command prints it again."""
    try:
        yield
        sys.stdout.flush()
    except StdoutLost as lost:
        lost.advice = f" The result is kept in {folder}. To print it again: {again}"
        raise


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Run ``command`` and return the exit code; errors are reported on stderr, with ``--json`` on stdout too."""
    try:
        code = command.main(list(arguments), prog_name="carsweep", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except StdoutLost as lost:
        # Whoever reads the first lines of a list has seen what they wanted; a lost result is reported.
        if lost.advice or not lost.closed:
            echo(f"carsweep: {lost}{lost.advice}", err=True)
        return FAILED
    except BaseException as error:
        messages, code = _explain(error)
    messages = [mask_secrets(message) for message in messages]
    for message in messages:
        echo(f"carsweep: {message}", err=True)
    if messages and "--json" in arguments:
        with suppress(StdoutLost):
            click.echo(json.dumps({"error": "\n".join(messages)}))
    return code


def _explain(error: BaseException) -> tuple[list[str], int]:
    from carcls.disk import is_out_of_reach  # help needs it not

    said = " ".join(str(error).split())
    short = _cut(said)
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return [], MISTAKE
        case SpecError():
            return list(error.mistakes), MISTAKE
        case InputError():
            return [said], MISTAKE
        case SweepStopped() | TrialFailure():
            return [said], FAILED
        case click.UsageError():
            where = f" See '{error.ctx.command_path} --help'." if error.ctx else ""
            short = _cut(" ".join(error.format_message().split()))
            return [short + ("" if short.endswith((".", "?", "?)", "…")) else ".") + where], MISTAKE
        case click.ClickException():
            return [error.format_message()], error.exit_code
        case KeyboardInterrupt() | click.Abort():
            return ["interrupted."], INTERRUPTED
        case SystemExit():
            return [], error.code if isinstance(error.code, int) else FAILED
        case Exception() if is_out_of_reach(error):
            return [f"a file cannot be written or read: {short}. Once that is mended: the same command again."], FAILED
    if os.environ.get("CARSWEEP_DEBUG"):
        click.echo(mask_secrets("".join(traceback.format_exception(error))), err=True)
    message = (
        f"internal error: {type(error).__name__}: {short} This is a fault of carsweep: please report it with the "
        "command and the output of the same command under CARSWEEP_DEBUG=1."
    )
    return [message], FAILED


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
