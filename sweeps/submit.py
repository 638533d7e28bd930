"""A sweep as a job on a Ray cluster: the same command, run on the cluster's head."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from carcls.errors import InputError

# What the job needs to reach the tracking server and the weights; passed on when set, and never shown.
PASSED_ON = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "CARSWEEP_WEIGHTS_DIR",
)
# Never uploaded: what is large, and what is made from the rest.
EXCLUDED = [".git", ".venv", "venv", "runs", "data", "build", "dist", "*.egg-info", "__pycache__"]
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that a cluster has taken.

    Attributes:
        address: of the cluster's dashboard.
        job: its id.
        command: what the cluster runs.
    """

    address: str
    job: str
    command: str


def job_command(arguments: Sequence[str]) -> str:
    """Return the command line that the cluster runs, quoted for its shell.

    >>> job_command(["transfer", "--set", "data.name=my cars"])
    "carsweep run transfer --set 'data.name=my cars' --address auto"
    """
    return shlex.join(["carsweep", "run", *arguments, "--address", "auto"])


def submit_job(
    address: str,
    arguments: Sequence[str],
    *,
    working_dir: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Submission:
    """Hand a sweep to a cluster.

    Args:
        address: ``http://HOST:8265``, of the cluster's dashboard.
        arguments: words after ``carsweep run``.
        working_dir: uploaded as the job's working folder; None uploads nothing.
        environment: where the variables of ``PASSED_ON`` are looked up; None is this process's.

    Raises:
        InputError: nothing answers at the address, or it does not take the job.
    """
    client = _connect(address)
    found = os.environ if environment is None else environment
    runtime: dict[str, Any] = {"env_vars": {name: found[name] for name in PASSED_ON if found.get(name)}}
    if working_dir is not None:
        runtime |= {"working_dir": str(working_dir), "excludes": EXCLUDED}
    command = job_command(arguments)
    try:
        job = client.submit_job(entrypoint=command, runtime_env=runtime, metadata={"carsweep": "run"})
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--address must be of a cluster that takes jobs, got {address!r}: {_first_line(error)}"
        ) from None
    return Submission(address, str(job), command)


def follow_job(submission: Submission, write: Callable[[str], None]) -> bool:
    """Pass on what the job prints until it ends; return whether it succeeded."""
    client = _connect(submission.address)
    shown = 0
    while True:
        status = client.get_job_status(submission.job)
        text = client.get_job_logs(submission.job)
        if len(text) > shown:
            write(text[shown:])
            shown = len(text)
        if status.is_terminal():
            return bool(status == JobStatus.SUCCEEDED)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def why_it_failed(submission: Submission) -> str:
    """Return one sentence on a job that has failed, with the remedy where it is known."""
    client = _connect(submission.address)
    message = client.get_job_info(submission.job).message or "it gave no reason"
    if "carsweep: not found" in client.get_job_logs(submission.job) or "exit code 127" in message:
        return "carsweep is not installed on the cluster's head. Install the same version in its image."
    return " ".join(message.split())


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise InputError(f"--address must be the dashboard's, such as http://HOST:8265, got {address!r}.")
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address must be of a Ray dashboard that answers, got {address!r}: {_first_line(error)} "
            "Start the head with ray[default] installed, and forward its port 8265 to here."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
