"""``carsweep ui``: MLflow's own pages on the store of a folder of runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from carcls.errors import InputError, mask_secrets
from sweeps.cli.exits import DONE
from sweeps.cli.options import options

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_SECONDS, _END_SECONDS = 0.2, 10.0


@click.command("ui")
@click.argument("sweep", required=False)
@options("out")
@click.option("--tracking-uri", metavar="URI", help="MLflow store to show instead; needed when it has a password.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def ui(sweep: str | None, out: Path, tracking_uri: str | None, port: int, host: str) -> int:
    """Open MLflow's pages on the runs under --out, or on the tracking server that SWEEP logged to."""
    uri = tracking_uri or (_recorded_uri(out, sweep) if sweep else None) or store_of(out)
    if uri.startswith(("http://", "https://")):
        click.echo(f"The runs are on a tracking server: {mask_secrets(uri)}")
        return DONE
    _require_free(host, port)
    click.echo(f"MLflow starts on {mask_secrets(uri)}, which takes some seconds.")
    click.echo(f"Open http://{host}:{port} (Ctrl-C stops it).")
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", (out.resolve() / "artifacts").as_uri()]
    # The address may hold a password, which no command line should show.
    return _serve(command, {**_QUIET, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri})


def _serve(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a server until a signal ends it and all the processes that it started; return the exit code.

    Raises:
        click.ClickException: the server ended by itself.
    """
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    for number in _ENDS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which is what nohup does
            signal.signal(number, note)
    # The interpreter of this very process, with arguments that went through click.
    server = subprocess.Popen(command, env=dict(environment), start_new_session=True)  # noqa: S603
    try:
        while not asked:
            with suppress(subprocess.TimeoutExpired):
                code = server.wait(_LOOK_SECONDS)
                raise click.ClickException(f"MLflow's server stopped with exit code {code}.")
    finally:
        _end_group(server)
    return DONE if asked[0] == signal.SIGINT else 128 + asked[0]


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server's process group: with a word first, then without one."""
    for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(seconds)


def store_of(out: Path) -> str:
    """Return the URI of the store that sweeps make under ``out``.

    Raises:
        InputError: there is none.
    """
    database = out.resolve() / "mlflow.db"
    if not database.is_file():
        raise InputError(f"--out must be a folder with runs, got {str(out)!r}. Run a sweep first, or name its --out.")
    return f"sqlite:///{database}"


def _recorded_uri(out: Path, sweep: str) -> str | None:
    from sweeps.results.result import read_result
    from sweeps.run.status import require_known

    result = read_result(require_known(out, sweep))
    return result.tracking_uri if result else None


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--port must be free, got {port} ({reason}). Choose another with --port.") from None
