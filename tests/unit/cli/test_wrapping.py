"""Sentences on a terminal: lines end between words."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.cli.output import Verbatim, say
from sweeps.text import wrapped

COLUMNS = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SET = ["--set", "backbone=efficientnet_lite0"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "transfer", "--dry-run", "--hours", "90m", "--name", "mine", *SET],
        ["run", "transfer", "--dry-run", "--trials", "nine or ten", *SET],
        ["run", "transfer", "--dry-run", "--set", "dropuot=0.5", "head_lr=1e-3,1e-2"],
        ["list", "settings"],
        ["ui"],
    ],
    ids=" ".join,
)
def test_a_terminal_parts_no_word(words: list[str], tmp_path: Path) -> None:
    """Whatever a command prints, a narrow terminal has the words that a pipe has, none of them cut by its edge."""
    command = [sys.executable, "-m", "sweeps.cli", *words]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "NO_COLOR": "1", "CARSWEEP_WEIGHTS_DIR": str(tmp_path)}
    piped = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the other side is closed
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    assert process.wait(timeout=60) == piped.returncode
    lines = _CONTROL.sub("", written.decode()).replace("\r", "").splitlines()
    assert " ".join(lines).split() == (piped.stdout + piped.stderr).split()
    assert [line for line in lines if len(line) > COLUMNS and " " in line.strip()] == []


def test_what_is_copied_stays_whole() -> None:
    """An option keeps its value, and a command is one line however long it is."""
    text = "Either wait, or go on without: --set backbone=efficientnet_lite0, or search 'search.head_lr=[1e-3, 1e-2]'."
    assert wrapped(text, 42).splitlines() == [
        "Either wait, or go on without:",
        "--set backbone=efficientnet_lite0, or",
        "search 'search.head_lr=[1e-3, 1e-2]'.",
    ]
    command = ".venv/bin/carsweep resume mine --out '/a folder/of runs'"
    assert wrapped(f"Interrupted. To go on: {command}", 30).splitlines() == ["Interrupted. To go on:", f"  {command}"]
    assert wrapped(f"  {command}", 30) == f"  {command}"


def test_what_a_program_reads_is_not_wrapped() -> None:
    """YAML, Markdown and Python come out as they are, while a sentence beside them is wrapped."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=20)
    say(console, Verbatim("model.predict(['my car.jpg'])"), "a sentence that is longer than the line")
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "model.predict(['my car.jpg'])",
        "a sentence that is",
        "longer than the line",
    ]
