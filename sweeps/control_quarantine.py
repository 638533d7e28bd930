"""Machines put out of use for the rest of a sweep: placeholders that hold their cores and GPUs, doing nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.failures import IN_A_ROW


@dataclass(slots=True)
class Quarantine:
    """Takes machines (Ray's nodes) out of use.

    Attributes:
        tell: gets one sentence for each.
        out: ids of nodes out of use.
    """

    tell: Callable[[str], None]
    out: set[str] = field(default_factory=set)
    _placeholders: list[Any] = field(default_factory=list)

    def take_out(self, node: str) -> bool:
        """Put a node out of use, unless it is the last one; tell whether it is out now, or gone."""
        usable = {found["NodeID"]: found for found in ray.nodes() if found["Alive"] and found["Resources"].get("CPU")}
        if node in self.out or node not in usable:
            return True
        if not set(usable) - self.out - {node}:
            return False
        self.out.add(node)
        self._placeholders += hold(node, usable[node]["Resources"])
        name = f"{usable[node]['NodeManagerHostname']} (node {node[:8]})"
        self.tell(f"{name} failed {IN_A_ROW} times in a row, so this sweep does not use it any more")
        return True

    def release(self) -> None:
        """Let go of all nodes; the sweep is over."""
        for placeholder in self._placeholders:
            ray.kill(placeholder)
        self._placeholders.clear()


class _Placeholder:
    """Holds what it was given by being there."""


def hold(node: str, resources: dict[str, float]) -> list[Any]:
    """Start actors that take a node's cores and GPUs one by one, as trials leave them; they wait for those in use."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    kind = ray.remote(_Placeholder)
    place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    shares = [(1, 1)] * min(cores, gpus) + [(1, 0)] * (cores - gpus) + [(0, 1)] * (gpus - cores)
    return [kind.options(num_cpus=c, num_gpus=g, scheduling_strategy=place).remote() for c, g in shares]
