"""The live picture of real sweeps on real terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SETTINGS = ["image_size=32", "depth=2", "width=4", "stem=none", "experiments=[]", "batch_size=16", "epochs=2"]
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(rb"\x1b\[(3|4|9|10)[0-9]")


def on_a_terminal(columns: int, lines: int, folder: Path, *words: str, **environment: str) -> tuple[int, bytes]:
    """Run carsweep on a terminal of that size; return the exit code and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.cli", *words],
        cwd=folder,
        env={**clean, "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the other side is closed
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    return process.wait(timeout=60), written


def test_a_sweep_is_drawn_on_a_narrow_terminal_without_colours_and_signs_and_on_a_usual_one(
    tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Forty columns of ASCII with NO_COLOR, then eighty where it goes on; the last picture and the result stay."""
    pictures = draw_tints(tmp_path / "pictures", 16, 4, size=(64, 96), tints=[(0, 0, 0)] * 3, noise=256)
    begin = ["run", "scratch", "--data", str(pictures), "--trials", "1", "--name", "mine", "--set", *SETTINGS]
    code, written = on_a_terminal(40, 20, tmp_path, *begin, NO_COLOR="1", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    shown = _CONTROL.sub(b"", written)
    assert code == 0, shown
    assert not _COLOUR.search(written)
    assert shown.isascii()
    assert re.search(rb"\n +0 complete +2/2 ", shown)
    assert b"Traceback" not in shown

    code, written = on_a_terminal(80, 24, tmp_path, "resume", "mine", "--trials", "2")
    shown = _CONTROL.sub(b"", written)
    assert code == 0, shown
    assert _COLOUR.search(written)
    last = shown.decode().rpartition("sweep  ")[2]
    assert last.lstrip().startswith("2 of 2 trials")
    assert re.search(r"\n +0 complete +━━━━ 2/2 ", last)
    assert re.search(r"\n +1 (complete|pruned) ", last)
    assert "Registered as carsweep-scratch" in last
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l")  # the cursor is seen again
