"""Who runs a sweep, and how others ask it to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carcls.errors import InputError
from sweeps.lock import ask_to_stop, asked_to_stop, forget_request, holder_of, locked
from sweeps.run.tracked import Remains, remove

HOLD = """
import sys, time
from pathlib import Path
from sweeps.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a sweep."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_runs_the_sweep(tmp_path: Path) -> None:
    """While one process holds a sweep another is refused with its id; other sweeps are free; its death frees it."""
    mine = tmp_path / "mine"
    with other_process(mine) as process:
        with pytest.raises(InputError, match=f"process {process.pid} on .* since"), locked(mine):
            pass
        holder = holder_of(mine)
        assert holder is not None
        assert holder.pid == process.pid
        with locked(tmp_path / "yours"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder_of(mine) is None
    with locked(mine):
        held = holder_of(mine)
        assert held is not None
        assert held.pid == os.getpid()
    assert holder_of(mine) is None


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    """Asking who runs a sweep that nobody ever ran makes no file."""
    assert holder_of(tmp_path / "mine") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("now", [False, True])
def test_a_request_to_stop_is_read_until_it_is_forgotten(tmp_path: Path, now: bool) -> None:
    """It says whether to wait for the running epochs; a damaged one asks for the gentle stop."""
    assert asked_to_stop(tmp_path) is None
    ask_to_stop(tmp_path, now=now)
    assert asked_to_stop(tmp_path) is now
    (tmp_path / "stop-requested").write_text("[")
    assert asked_to_stop(tmp_path) is False
    forget_request(tmp_path)
    forget_request(tmp_path)
    assert asked_to_stop(tmp_path) is None


def test_the_lock_of_a_removed_sweep_goes_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards it might be somebody else's, who would then hold a lock that nobody sees."""
    folder, held, unlink = tmp_path / "mine", list[bool](), Path.unlink
    folder.mkdir()

    def note(path: Path, missing_ok: bool = False) -> None:
        if path.name == ".mine.lock":
            held.append(holder_of(folder) is not None)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", note)
    remove(Remains(folder, 0, None))
    assert held == [True]
    assert not list(tmp_path.iterdir())
