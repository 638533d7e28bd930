"""Joins a Ray cluster, asks each of its machines, and prints what they have as one line of JSON.

Run as ``python -m sweeps.cluster_look ADDRESS FILE`` by ``sweeps.cluster``; FILE is one that all should see.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# Ray's own patience is minutes; the signal ends the process even while Ray waits.
_JOIN_SECONDS = 15
_ANSWER_SECONDS = 90.0


def _look_around(file: str) -> dict[str, Any]:
    """Tell, on a machine, whether it has carsweep and sees the file; the function travels by value."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        installed: str | None = version("carsweep")
    except PackageNotFoundError:
        installed = None
    return {"carsweep": installed, "sees": Path(file).is_file()}


def look(address: str, file: str) -> list[dict[str, Any]]:
    """Return of each machine with CPU cores: address, cores, gpus, and carsweep and sees, or error."""
    signal.alarm(_JOIN_SECONDS)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    signal.alarm(0)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    task = ray.remote(_look_around)
    answers = {
        node["NodeID"]: task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(file)
        for node in nodes
    }
    ready, _ = (
        ray.wait(list(answers.values()), num_returns=len(answers), timeout=_ANSWER_SECONDS) if answers else ([], [])
    )
    return [
        {
            "address": node["NodeManagerAddress"],
            "cores": node["Resources"]["CPU"],
            "gpus": node["Resources"].get("GPU", 0),
            **_answer(answers[node["NodeID"]], ready),
        }
        for node in nodes
    ]


def _answer(reference: Any, ready: list[Any]) -> dict[str, Any]:
    if reference not in ready:
        return {"error": f"no worker started in {_ANSWER_SECONDS:g} s"}
    try:
        answer: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayError as error:
        return {"error": str(error).strip().splitlines()[-1][:200]}
    return answer


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1], sys.argv[2])) + "\n")
