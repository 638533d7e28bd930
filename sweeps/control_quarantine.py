"""Machines and GPUs put out of use for the rest of a sweep: placeholders that hold them, doing nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.failures import Place

# What a placeholder takes at most to start, while it may hold another GPU than the one that is looked for.
_START_SECONDS = 10.0
_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Quarantine:
    """Takes machines (Ray's nodes) and single GPUs out of use.

    Attributes:
        tell: gets one sentence for each.
        out: what is out of use.
    """

    tell: Callable[[str], None]
    out: set[Place] = field(default_factory=set)
    _placeholders: list[Any] = field(default_factory=list)

    def has(self, place: Place) -> bool:
        """Tell whether the place, or its machine, is out of use."""
        return place in self.out or place.machine in self.out

    def take_out(self, place: Place, share: float, why: str) -> bool:
        """Put a place out of use, unless it is the last one; tell whether it is out now, or gone.

        Args:
            place: a machine or a GPU.
            share: GPUs that a trial gets.
            why: what it did.
        """
        nodes = {found["NodeID"]: found for found in ray.nodes() if found["Alive"] and found["Resources"].get("CPU")}
        if self.has(place) or place.node not in nodes:
            return True
        usable = {node: found["Resources"] for node, found in nodes.items() if Place(node) not in self.out}
        if not (self._other_gpus(usable) if place.gpu else len(usable) > 1):
            return False
        self.out.add(place)
        self._placeholders += hold(place, usable[place.node], share)
        name = f"{nodes[place.node]['NodeManagerHostname']} (node {place.node[:8]})"
        what = f"GPU {place.gpu} of {name}" if place.gpu else name
        self.tell(f"{what} {why}, so this sweep does not use it any more")
        return True

    def _other_gpus(self, usable: dict[str, dict[str, float]]) -> int:
        """Count the GPUs in use beside one of them."""
        out = sum(1 for known in self.out if known.gpu and known.node in usable)
        return int(sum(resources.get("GPU", 0) for resources in usable.values())) - out - 1

    def release(self) -> None:
        """Let go of everything; the sweep is over."""
        for placeholder in self._placeholders:
            ray.kill(placeholder)
        self._placeholders.clear()


class _Placeholder:
    """Holds what it was given by being there."""

    def gpu(self) -> str:
        """Return Ray's id of the GPU that it was given."""
        return str(ray.get_runtime_context().get_accelerator_ids()["GPU"][0])


class _GpuHolder:
    """Holds one GPU of its node: Ray lets nobody choose, so it takes what is free and keeps what is of that one.

    It takes parts of a trial's size, or trials that share the GPU could keep it from ever being free as a whole.
    """

    def __init__(self, place: Place, gpus: int, share: float) -> None:
        parts = int(1 / share + 1e-6)
        options = {"num_cpus": 0, "num_gpus": share, "scheduling_strategy": _on(place.node)}
        start = ray.remote(_Placeholder).options(**options).remote
        self._kept: list[Any] = []
        while True:
            takers = [start() for _ in range(gpus * parts - len(self._kept))]
            self._kept += _those_with(place.gpu, takers)
            for taker in takers:
                if taker not in self._kept:
                    ray.kill(taker)
            if len(self._kept) == parts:
                return
            time.sleep(_AGAIN_SECONDS)  # trials are still on it


def _those_with(gpu: str, takers: list[Any]) -> list[Any]:
    """Return the placeholders that were given a part of this GPU, of those that could start."""
    answers = {taker.gpu.remote(): taker for taker in takers}
    ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_START_SECONDS)
    return [answers[answer] for answer in ready if ray.get(answer) == gpu]


def hold(place: Place, resources: dict[str, float], share: float) -> list[Any]:
    """Start actors that take a GPU, or a node's cores and GPUs one by one, as trials leave them."""
    if place.gpu:
        holder = ray.remote(_GpuHolder).options(num_cpus=0, scheduling_strategy=_on(place.node))
        return [holder.remote(place, int(resources["GPU"]), share)]
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    kind = ray.remote(_Placeholder)
    shares = [(1, 1)] * min(cores, gpus) + [(1, 0)] * (cores - gpus) + [(0, 1)] * (gpus - cores)
    return [kind.options(num_cpus=c, num_gpus=g, scheduling_strategy=_on(place.node)).remote() for c, g in shares]


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)
