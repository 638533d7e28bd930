"""A Ray cluster, looked at before a sweep begins: what its machines have, and whether they can run trials."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from carcls.errors import InputError
from sweeps.resources import Machine

CONNECT_SECONDS = 5.0
# Of the other process: Ray's import and a look at every machine. It ends itself long before.
_LONGEST_SECONDS = 240.0


@cache
def machines_of(address: str, folder: Path) -> tuple[Machine, ...]:
    """Return the machines of a running Ray cluster that can take trials; asked once a process.

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
        found = _look(address, token)
    finally:
        token.unlink()
    mistakes = [mistake for machine in found if (mistake := mistake_of(machine, folder))]
    if mistakes:
        raise InputError(mistakes[0])
    machines = tuple(Machine(int(machine["cores"]), int(machine["gpus"])) for machine in found)
    if not machines:
        raise InputError(
            f"--address must be of a cluster with a machine that has CPU cores, got {address!r}, which has none. "
            "Add a machine with ray start --address."
        )
    return machines


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
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None


def _look(address: str, token: Path) -> Sequence[dict[str, Any]]:
    """Join the cluster in a process of its own: here Ray would try for minutes, and fill the terminal meanwhile."""
    command = [sys.executable, "-m", "sweeps.cluster_look", address, str(token)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, env=environment, timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, "its machines do not answer") from None
    if done.returncode != 0:
        raise _unreachable(address, _why(done.stderr))
    machines: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return machines


def _why(said: str) -> str:
    if "InvalidAuthToken" in said or "Unauthenticated" in said:
        return "it wants a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, as on the head"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ConnectionError", "RuntimeError", "ValueError"))]
    if errors:
        after = lines[lines.index(errors[-1]) :]
        return " ".join(after).partition(": ")[2][:300].rstrip(".")
    return "what listens there does not speak as the head of a Ray cluster does"


def mistake_of(machine: dict[str, Any], folder: Path) -> str:
    """Return why a machine cannot run trials of sweeps in ``folder``; empty when it can.

    ``machine`` is what ``sweeps.cluster_look.look`` tells of it.
    """
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
