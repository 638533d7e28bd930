"""Who runs a sweep: one process at a time, known by name to everybody else, and asked to stop by a file.

Beside a sweep's folder ``OUT/NAME`` lie ``.NAME.lock``, which dies with the process that holds it, and
``.NAME.holder``, which tells who that is. ``OUT/NAME/stop-requested`` asks the holder to stop.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from carcls.errors import InputError
from carcls.stages import write_json

STOP_REQUEST = "stop-requested"
# Whoever only looks holds the lock for less than a millisecond.
_PATIENCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs a sweep; ``since`` is an ISO time, ``pid`` 0 where nothing is known of it."""

    pid: int = 0
    host: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}" if self.pid else "another process"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the sweep in ``folder``, which need not exist yet; its parent must.

    Taken once, by whoever runs the sweep; nothing that is called inside asks again.

    Raises:
        InputError: another process runs the sweep; says which.
    """
    folder = folder.absolute()
    lock = FileLock(_beside(folder, "lock"))
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        raise InputError(
            f"--name must be of a sweep that nothing else is running, got {folder.name!r}: {_written(folder)} runs it. "
            f"Wait for its end, stop it (carsweep stop {folder.name}), or give another --name."
        ) from None
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        write_json(_beside(folder, "holder"), asdict(Holder(os.getpid(), socket.gethostname(), since)))
        yield
    finally:
        _beside(folder, "holder").unlink(missing_ok=True)
        lock.release()


def holder_of(folder: Path) -> Holder | None:
    """Return who runs the sweep in ``folder`` now, or None."""
    folder = folder.absolute()
    try:
        # To look takes no right to write: a shared lock, which the holder's own keeps out.
        with _beside(folder, "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _written(folder)
    return None


def ask_to_stop(folder: Path, *, now: bool) -> None:
    """Ask whoever runs the sweep to stop: after the running epochs, or at once."""
    write_json(folder / STOP_REQUEST, {"now": now})


def asked_to_stop(folder: Path) -> bool | None:
    """Tell whether somebody asked for a stop: None, False for a gentle one, True for one at once."""
    try:
        return bool(json.loads((folder / STOP_REQUEST).read_text(encoding="utf-8")).get("now"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return False


def forget_request(folder: Path) -> None:
    """Take back a request to stop, which was for the process before."""
    (folder / STOP_REQUEST).unlink(missing_ok=True)


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _written(folder: Path) -> Holder:
    try:
        return Holder(**json.loads(_beside(folder, "holder").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Holder()
