"""Stdout and stderr that a command can write to, whatever they lead to: full disks, closed pipes, narrow encodings."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What stands for the signs that tables and sentences use, where the encoding has none of them.
_PLAIN = {"±": "+/-", "–": "-", "−": "-", "≤": "<=", "…": "...", "★": "*", "✗": "x", "×": "x", "†": "+"}
_ERRORS = "carsweep-plain"


class StdoutLost(Exception):  # noqa: N818 - says what happened
    """What a command has to say cannot be printed.

    Args:
        reason: the system's words.
        closed: whether the reader has gone, as ``head`` does once it has seen enough.
        advice: where the words are kept, and how to see them.
    """

    def __init__(self, reason: str, *, closed: bool, advice: str = "") -> None:
        self.reason, self.closed, self.advice = reason, closed, advice
        super().__init__(f"stdout cannot be written ({reason}).{f' {advice}' if advice else ''}")


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
        advice = f"The result is kept in {folder}. To print it again: {again}"
        raise StdoutLost(lost.reason, closed=lost.closed, advice=advice) from None
