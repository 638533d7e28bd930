"""Pages on what sweeps left, in a browser: MLflow's on the runs, Optuna's on the search."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click

from carcls.errors import InputError, TrackingError, mask_secrets
from sweeps.cli.exits import DONE, echo
from sweeps.cli.options import SWEEP, options
from sweeps.cli.store import store_of
from sweeps.interrupts import uninterrupted

_END_SECONDS = 10.0
# So often it is looked whether the server is there.
_LOOK_SECONDS = 0.1
_ALL = "#/experiments?workflowType=machine_learning"


@click.command("ui")
@click.argument("sweep", type=SWEEP, metavar="[NAME]", required=False)
@options("out")
@click.option("--tracking-uri", metavar="URI", help="MLflow store to show instead; needed when it has a password.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--optuna", is_flag=True, help="Show the search of the sweep NAME on optuna-dashboard's pages.")
def ui(sweep: str | None, out: Path, tracking_uri: str | None, port: int, host: str, optuna: bool) -> int:
    """Open MLflow's pages on the leaderboard of NAME, a sweep or a job; without it, of the sweep last written to."""
    from sweeps.run.remembered import recall
    from sweeps.tracking.compat import pages_server

    if optuna:
        _require_free(host, port)
        return _serve(_dashboard(out, sweep, host, port), {}, (host, port), str)
    uri = (recall(out, sweep, tracking_uri).tracking_uri if sweep else tracking_uri) or store_of(out)
    page = partial(_page, out, sweep, uri)
    if uri.startswith(("http://", "https://")):
        server = mask_secrets(uri).replace("***@", "").rstrip("/")  # which asks for user and password by itself
        echo(f"The runs are on a tracking server: {server}/{page() if sweep else ''}")
        return DONE
    _require_free(host, port)
    echo(f"MLflow starts on {mask_secrets(uri)}, which takes some seconds.")
    command, environment = pages_server(uri, (out.resolve() / "artifacts").as_uri(), host, port)
    return _serve(command, environment, (host, port), lambda: f"/{page() or _ALL}")


def _page(out: Path, name: str | None, uri: str) -> str:
    """Return the page of the leaderboard; empty where there is no sweep, or MLflow has nothing of it."""
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import page_of

    latest = name or next(iter(sweeps_in(out) if out.is_dir() else ()), None)
    try:
        return page_of(out, latest, uri) if latest else ""
    except TrackingError as error:  # whoever opens the pages sees what their server says
        click.echo(f"The leaderboard is not opened: {error}", err=True)
        return ""


def _dashboard(out: Path, name: str | None, host: str, port: int) -> list[str]:
    """Return the command that shows the search of a sweep.

    Raises:
        InputError: optuna-dashboard is not installed, or NAME is not of one sweep that has begun.
    """
    from sweeps.run.status import sweeps_in
    from sweeps.spec.sweep_file import has_begun

    if find_spec("optuna_dashboard") is None:
        raise InputError("--optuna must find optuna-dashboard, got none. Install it: pip install optuna-dashboard")
    sweeps = sweeps_in(out, name)
    if not sweeps or (name is not None and len(sweeps) > 1):
        has = ", ".join(sweeps) or "no sweep"
        raise InputError(f"NAME must be of one sweep for --optuna, got {name!r}, which has {has}. Name one of them.")
    folder = out.resolve() / sweeps[0]
    if not has_begun(folder):
        raise InputError(f"NAME must be of a sweep that has begun, got {folder.name!r}: it has no trials yet.")
    return [sys.executable, "-m", "sweeps.study.dashboard", str(folder), host, str(port)]


def _serve(command: list[str], environment: Mapping[str, str], place: tuple[str, int], page: Callable[[], str]) -> int:
    """Run a server until somebody ends it, and then all that it started; once it listens, print where ``page`` is."""
    # Programs of this very installation, with arguments that went through click.
    server = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)  # noqa: S603
    try:
        opened = page()  # which asks MLflow, while the server starts
        while server.poll() is None and not _listens(place):
            time.sleep(_LOOK_SECONDS)
        if server.poll() is None:
            echo(f"Open http://{place[0]}:{place[1]}{opened}\n(Ctrl-C stops it.)")
        code = server.wait()
    except KeyboardInterrupt:
        return DONE
    finally:
        with uninterrupted():  # with a word first, then without one
            for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, None)):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(server.pid, number)
                    server.wait(seconds)
    raise click.ClickException(f"The server stopped with exit code {code}.")


def _listens(place: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(place, timeout=1.0):
        return True
    return False


def _require_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise InputError(f"--port must be free, got {port} ({reason}). Choose another with --port.") from None
