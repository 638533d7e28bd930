"""``carsweep ui``: MLflow's own pages on the store of a folder of runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import click

from carcls.errors import InputError, nearest

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@click.command("ui")
@click.argument("sweep", required=False)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store to show instead; needed when it has a password.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def ui(sweep: str | None, out: Path, tracking_uri: str | None, port: int, host: str) -> None:
    """Open MLflow's pages on the runs under --out, or on the tracking server that SWEEP logged to."""
    uri = tracking_uri or (_recorded_uri(out, sweep) if sweep else None) or store_of(out)
    if uri.startswith(("http://", "https://")):
        click.echo(f"The runs are on a tracking server: {uri}")
        return
    _require_free(host, port)
    click.echo(f"MLflow on {uri}\nOpen http://{host}:{port} (Ctrl-C stops it).")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host]
    command += [
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        (out.resolve() / "artifacts").as_uri(),
    ]
    try:
        # The interpreter of this very process, with arguments that went through click.
        code = subprocess.run(command, env={**_QUIET, **os.environ}, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return
    if code:
        raise click.ClickException(f"MLflow's server stopped with exit code {code}.")


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
    folder = out / sweep
    if not (folder / "spec.yaml").is_file():
        known = [spec.parent.name for spec in out.glob("*/spec.yaml")]
        raise InputError(
            f"SWEEP must be the name of a sweep under {str(out)!r}, got {sweep!r}." + nearest(sweep, known)
        )
    result = folder / "result.json"
    if not result.is_file():
        return None
    uri: str = json.loads(result.read_text(encoding="utf-8"))["tracking_uri"]
    return uri


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--port must be free, got {port} ({reason}). Choose another with --port.") from None
