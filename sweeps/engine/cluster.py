"""A Ray cluster, asked before a sweep begins there whether its machines can run trials.

As ``python -m sweeps.engine.cluster ADDRESS FILE`` this joins the cluster and prints, as a line of JSON, what each
machine has, and what is wrong with it; FILE is one that all should see. That is a process of its own, since Ray would
try for minutes to join what is no cluster, and fill the terminal meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from carcls.errors import InputError
from sweeps.engine.resources import Machine

CONNECT_SECONDS = 5.0
# Of the other process: Ray's import, 15 s to join, which a signal ends even while Ray waits, and an answer of each
# machine. All of it ends long before the longest time.
_JOIN_SECONDS, _ANSWER_SECONDS, _LONGEST_SECONDS = 15, 90.0, 240.0


def machines_of(address: str, folder: Path) -> tuple[Machine, ...]:
    """Return the machines of a running Ray cluster that can take trials.

    Args:
        address: ``HOST:PORT`` of the head, or ``auto`` on one of its machines.
        folder: of all sweeps, which every machine must see.

    Raises:
        InputError: no Ray that this process may join answers there, or a machine lacks the folder or this carsweep.
    """
    if address != "auto":  # which is left for Ray to find
        _require_listener(address)
    with NamedTemporaryFile(prefix=".cluster-", dir=folder) as token:
        found = _ask(address, token.name)
    for machine in found:
        if machine["mistake"]:
            raise InputError(machine["mistake"])
    if not found:
        raise InputError(
            f"--address must be of a cluster with a machine that has CPU cores, got {address!r}, which has none. "
            "Add a machine with ray start --address."
        )
    return tuple(
        Machine(int(machine["cores"]), int(machine["gpus"]), gpu_kind=machine["gpu_kind"]) for machine in found
    )


def _require_listener(address: str) -> None:
    """Raise InputError unless something listens there: Ray would wait for a silent host for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        raise InputError(
            f"--address must be HOST:PORT of a Ray head, or auto on one of its machines, got {address!r}. "
            "From elsewhere: ray job submit (see cluster/README.md)."
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _ask(address: str, token: str) -> list[dict[str, Any]]:
    """Return what ``look`` does, in a process of its own."""
    command = [sys.executable, "-m", "sweeps.engine.cluster", address, token]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, env=environment, timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, "its machines do not answer") from None
    if done.returncode == 0:
        machines: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return machines
    reason = "what listens there does not speak as the head of a Ray cluster does"
    if "InvalidAuthToken" in done.stderr or "Unauthenticated" in done.stderr:
        reason = "it wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, as on the head"
    elif done.returncode == 1:  # its last line says why
        reason = done.stderr.splitlines()[-1][:300].rstrip(".")
    raise _unreachable(address, reason)


def _unreachable(address: str, reason: str) -> InputError:
    return InputError(
        f"--address must be of a Ray head that answers, got {address!r}: {reason}. "
        "Start one with ray start --head, or leave --address out."
    )


def look(address: str, file: Path) -> list[dict[str, Any]]:
    """Return of each machine with CPU cores: ``cores``, ``gpus``, ``gpu_kind``; why it runs no trials, ``mistake``."""
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
    answers = [task.options(num_cpus=0, scheduling_strategy=node).remote(str(file)) for node in there]
    ready = ray.wait(answers, num_returns=len(answers), timeout=_ANSWER_SECONDS)[0] if answers else []
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            told = ray.get(answer) if answer in ready else {"error": f"no worker started in {_ANSWER_SECONDS:g} s"}
        except ray.exceptions.RayError as error:
            told = {"error": str(error).strip().splitlines()[-1][:200]}
        mistake = mistake_of(node["NodeManagerAddress"], told, file.parent)
        has, kind = node["Resources"], told.get("gpu_kind", "")
        found.append({"cores": has["CPU"], "gpus": has.get("GPU", 0), "gpu_kind": kind, "mistake": mistake})
    return found


def _look_around(file: str) -> dict[str, Any]:
    """Tell, on a machine, whether it has carsweep and sees the file; the function travels by value."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    told = {"carsweep": "", "sees": Path(file).is_file()}
    try:
        told["carsweep"] = version("carsweep")
        from carcls.machine import gpu_kind
    except (PackageNotFoundError, ImportError):  # of another version, if any
        return told
    return {**told, "gpu_kind": gpu_kind()}


def mistake_of(place: str, told: Mapping[str, Any], folder: Path) -> str:
    """Return why the machine at an address runs no trials of sweeps in ``folder``, by what it told; empty if it can."""
    here = version("carsweep")
    if "error" in told:
        return f"--address must be of a cluster whose machines answer; {place} does not: {told['error']}."
    if told["carsweep"] != here:
        has = f"carsweep {told['carsweep']}" if told["carsweep"] else "none"
        return f"every machine of the cluster must have carsweep {here}, got {has} on {place}. Install it there."
    if not told["sees"]:
        return (
            f"--out must be a folder that every machine of the cluster sees, got {str(folder)!r}, which {place} does "
            "not see. Give a folder on a file system that they share."
        )
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1], Path(sys.argv[2]))) + "\n")
