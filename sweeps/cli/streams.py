"""Which words go to stdout and which to stderr."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.text import Text

from sweeps.cli.output import Output

_WIDTH_OF_A_FILE = 120


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
        self.result = _console(stderr=False)
        self._stdout: int | None = None
        self._printed = sys.stdout

    def __enter__(self) -> Self:
        """Lead stdout to stderr when JSON is wanted."""
        if self.as_json:
            sys.stdout.flush()
            self._stdout, self._printed = os.dup(1), sys.stdout
            os.dup2(2, 1)
            sys.stdout = sys.stderr
        return self

    def __exit__(self, *_: object) -> None:
        """Give stdout back."""
        if self._stdout is not None:
            sys.stdout.flush()
            sys.stdout = self._printed
            os.dup2(self._stdout, 1)
            os.close(self._stdout)
            self._stdout = None

    @property
    def shown(self) -> Console:
        """Where a person reads a result: stdout, or stderr where JSON goes there."""
        return self.progress if self.as_json else self.result

    def tell(self, text: str) -> None:
        """Print a sentence on progress."""
        say(self.progress, text)

    def write_json(self, value: dict[str, Any]) -> None:
        """Write the one object."""
        assert self._stdout is not None
        with io.BufferedWriter(Output(self._stdout, must=True)) as file:
            file.write(json.dumps(value, indent=1).encode() + b"\n")


def say(console: Console, *parts: RenderableType) -> None:
    """Print sentences, which the terminal wraps, and what is drawn at the console's width."""
    for part in parts:
        if console.is_terminal or isinstance(part, str | Text):
            console.print(part, markup=False, soft_wrap=isinstance(part, str) or not console.is_terminal)
            continue
        with console.capture() as drawn:
            console.print(part)
        lines = (line.rstrip() for line in drawn.get().splitlines())  # rich fills them up to the width
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(stderr=stderr, width=width, highlight=False)


def callable_name(program: str) -> str:
    """Return how a person calls a program of this installation: its name, or its path when it is not on the PATH."""
    place = Path(sys.executable).parent / program
    found = shutil.which(program)
    # Not where a link leads: the Python of a virtual environment is one to a Python that lacks its libraries.
    if found and Path(found).parent.resolve() == place.parent.resolve():
        return program
    here = Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)
