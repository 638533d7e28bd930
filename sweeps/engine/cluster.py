"""A Ray cluster: looked at before a sweep begins there, or given a sweep as a job, the same command on its head.

As ``python -m sweeps.engine.cluster ADDRESS FILE`` this joins the cluster and prints, as a line of JSON, what each
machine tells of itself; FILE is one that all should see. That is a process of its own, since Ray would try for minutes
to join what is no cluster, and fill the terminal meanwhile.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from carcls.errors import InputError
from sweeps.engine.resources import Machine

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_SECONDS = 5.0
_WANTS_KEY = "it wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, as on the head"
# Of the other process: Ray's import, 15 s to join, which a signal ends even while Ray waits, and an answer of each
# machine. All of it ends long before the longest time.
_JOIN_SECONDS, _ANSWER_SECONDS, _LONGEST_SECONDS = 15, 90.0, 240.0
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
PATIENCE_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0
_COMMAND_NOT_FOUND = 127
_PORTS = {"http": 80, "https": 443}


def machines_of(address: str, folder: Path) -> tuple[Machine, ...]:
    """Return the machines of a running Ray cluster that can take trials.

    Args:
        address: ``HOST:PORT`` of the head, or ``auto`` on one of its machines.
        folder: of all sweeps, which every machine must see.

    Raises:
        InputError: no Ray that this process may join answers there, or a machine lacks the folder or this carsweep.
    """
    _require_listener(address)
    token = folder / f".cluster-{uuid.uuid4().hex[:12]}"
    token.touch()
    try:
        found = _ask(address, token)
    finally:
        token.unlink()
    mistakes = [mistake for machine in found if (mistake := mistake_of(machine, folder))]
    if mistakes:
        raise InputError(mistakes[0])
    if not found:
        raise InputError(
            f"--address must be of a cluster with a machine that has CPU cores, got {address!r}, which has none. "
            "Add a machine with ray start --address."
        )
    return tuple(Machine(int(machine["cores"]), int(machine["gpus"])) for machine in found)


def _require_listener(address: str) -> None:
    """Raise InputError unless something listens there; ``auto`` is left for Ray to find."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in host:
        raise InputError(
            f"--address must be HOST:PORT of a Ray head, or auto on one of its machines, got {address!r}. "
            "From elsewhere: carsweep submit."
        )
    try:
        _knock(host, int(port))
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _knock(host: str, port: int) -> None:
    """Raise OSError unless something listens there: Ray would wait for a silent host for minutes."""
    socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()


def _ask(address: str, token: Path) -> list[dict[str, Any]]:
    """Return what ``look`` tells, in a process of its own."""
    command = [sys.executable, "-m", "sweeps.engine.cluster", address, str(token)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, env=environment, timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, "its machines do not answer") from None
    if done.returncode != 0:
        raise _unreachable(address, _why(done))
    machines: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return machines


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if "InvalidAuthToken" in done.stderr or "Unauthenticated" in done.stderr:
        return _WANTS_KEY
    if done.returncode == 1:  # its last line says why
        return done.stderr.splitlines()[-1][:300].rstrip(".")
    return "what listens there does not speak as the head of a Ray cluster does"


def mistake_of(machine: dict[str, Any], folder: Path) -> str:
    """Return why a machine, as ``look`` tells of it, cannot run trials of sweeps in ``folder``; empty when it can."""
    place, here = machine["address"], version("carsweep")
    if "error" in machine:
        return f"--address must be of a cluster whose machines answer; {place} does not: {machine['error']}."
    if machine["carsweep"] != here:
        has = f"carsweep {machine['carsweep']}" if machine["carsweep"] else "none"
        return f"every machine of the cluster must have carsweep {here}, got {has} on {place}. Install it there."
    if not machine["sees"]:
        return (
            f"--out must be a folder that every machine of the cluster sees, got {str(folder)!r}, which {place} does "
            "not see. Give a folder on a file system that they share."
        )
    return ""


def _unreachable(address: str, reason: str) -> InputError:
    return InputError(
        f"--address must be of a Ray head that answers, got {address!r}: {reason}. "
        "Start one with ray start --head, or leave --address out."
    )


def look(address: str, file: str) -> list[dict[str, Any]]:
    """Return of each machine with CPU cores: address, cores, gpus, and carsweep and sees, or error."""
    import logging

    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    signal.alarm(_JOIN_SECONDS)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        sys.exit("\n" + " ".join(str(error).split()))
    signal.alarm(0)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    task = ray.remote(_look_around)
    answers = [task.options(num_cpus=0, scheduling_strategy=node).remote(file) for node in there]
    ready = ray.wait(answers, num_returns=len(answers), timeout=_ANSWER_SECONDS)[0] if answers else []
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        has = {"cores": node["Resources"]["CPU"], "gpus": node["Resources"].get("GPU", 0)}
        try:
            told = ray.get(answer) if answer in ready else {"error": f"no worker started in {_ANSWER_SECONDS:g} s"}
        except ray.exceptions.RayError as error:
            told = {"error": str(error).strip().splitlines()[-1][:200]}
        found.append({"address": node["NodeManagerAddress"], **has, **told})
    return found


def _look_around(file: str) -> dict[str, Any]:
    """Tell, on a machine, whether it has carsweep and sees the file; the function travels by value."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        installed: str | None = version("carsweep")
    except PackageNotFoundError:
        installed = None
    return {"carsweep": installed, "sees": Path(file).is_file()}


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
    if info.status == "SUCCEEDED":
        return 0, ""
    if info.status == "STOPPED":
        return 1, "it was stopped."
    code = info.driver_exit_code or 1
    if code == _COMMAND_NOT_FOUND:
        return 1, "carsweep is not installed on the cluster's head. Install the same version in its image."
    if "carsweep: " in printed:
        return code, f"it ended with exit code {code}; what it printed says why."
    return code, " ".join((info.message or "it gave no reason.").split())


def _connect(address: str) -> JobSubmissionClient:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InputError(f"--address must be the dashboard's, such as http://HOST:8265, got {address!r}.")
    try:
        _knock(parts.hostname, parts.port or _PORTS[parts.scheme])
        return JobSubmissionClient(address)
    except AuthenticationError:
        reason = f"{_WANTS_KEY}."
    except (OSError, RuntimeError, ValueError) as error:
        reason = _first_line(error)
    raise InputError(
        f"--address must be of a Ray dashboard that answers, got {address!r}: {reason} "
        "Start the head with ray[default] installed, and forward its port 8265 to here."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".") + "."


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1], sys.argv[2])) + "\n")
