"""A sweep as a job on a Ray cluster: the same command, run on the cluster's head."""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from carcls.errors import InputError

# What the job needs to reach the tracking server and the weights; passed on when set, and never shown.
PASSED_ON = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "CARSWEEP_WEIGHTS_DIR",
    "CARSWEEP_HANG_SECONDS",
)
# Never uploaded: what is large, and what is made from the rest.
EXCLUDED = [".git", ".venv", "venv", "/runs", "*.egg-info", "__pycache__"]
AGENT_SECONDS = 60.0
CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0
_COMMAND_NOT_FOUND = 127
_PORTS = {"http": 80, "https": 443}


def job_command(arguments: Sequence[str]) -> str:
    """Return the command line that the cluster runs, quoted for its shell.

    >>> job_command(["transfer", "--set", "data.name=my cars"])
    "carsweep run transfer --set 'data.name=my cars' --address auto"
    """
    return shlex.join(["carsweep", "run", *arguments, "--address", "auto"])


def submit_job(address: str, arguments: Sequence[str], *, working_dir: Path | None = None) -> str:
    """Hand a sweep to a cluster; return the id of the job that runs ``job_command(arguments)``.

    Args:
        address: ``http://HOST:8265``, of the cluster's dashboard.
        arguments: words after ``carsweep run``.
        working_dir: uploaded as the job's working folder; None uploads nothing.

    Raises:
        InputError: nothing answers at the address, or it does not take the job.
    """
    client = _connect(address)
    runtime: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}}
    if working_dir is not None:
        runtime |= {"working_dir": str(working_dir), "excludes": EXCLUDED}
    try:
        return _submit(client, job_command(arguments), runtime)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address must be of a cluster that takes jobs, got {address!r}: {_first_line(error)}"
        ) from None


def _submit(client: JobSubmissionClient, command: str, runtime: dict[str, Any]) -> str:
    """Submit; a head that has just started has no agent for its first seconds, which is waited for."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return str(client.submit_job(entrypoint=command, runtime_env=runtime, metadata={"carsweep": "run"}))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def follow_job(address: str, job: str, write: Callable[[str], None]) -> tuple[int, str]:
    """Pass on what a job prints until it ends; return its exit code and, unless that is 0, one sentence on why.

    Raises:
        ConnectionError: the cluster has not answered for a while; the job may well go on.
    """
    client = _connect(address)
    shown = 0
    answered = time.monotonic()
    while True:
        try:
            status = client.get_job_status(job)
            text = client.get_job_logs(job)
            answered = time.monotonic()
        except (OSError, RuntimeError) as error:
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise ConnectionError(_first_line(error)) from None
        else:
            write(text[shown:])
            shown = len(text)
            if status.is_terminal():
                return _end_of(client, job, text)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _end_of(client: JobSubmissionClient, job: str, printed: str) -> tuple[int, str]:
    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return 0, ""
    if info.status == JobStatus.STOPPED:
        return 1, "it was stopped."
    code = info.driver_exit_code or 1
    if code == _COMMAND_NOT_FOUND:
        return 1, "carsweep is not installed on the cluster's head. Install the same version in its image."
    if "carsweep: " in printed:
        return code, f"it ended with exit code {code}; what it printed says why."
    return code, " ".join((info.message or "it gave no reason.").split())


def _connect(address: str) -> JobSubmissionClient:
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InputError(f"--address must be the dashboard's, such as http://HOST:8265, got {address!r}.")
    try:
        # Ray's client would wait for a silent host as long as the system does, which is minutes.
        place = (parts.hostname, parts.port or _PORTS[parts.scheme])
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
        return JobSubmissionClient(address)
    except AuthenticationError:
        reason = "it wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, as on the head."
    except (OSError, RuntimeError, ValueError) as error:
        reason = _first_line(error)
    raise InputError(
        f"--address must be of a Ray dashboard that answers, got {address!r}: {reason} "
        "Start the head with ray[default] installed, and forward its port 8265 to here."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".") + "."
