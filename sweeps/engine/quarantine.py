"""Machines and GPUs put out of use for the rest of a sweep: placeholders hold them, doing nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.failures import IN_A_ROW, NOWHERE, POLICIES, Failure, Location, Suspects, Try, has_whole_share

# What a placeholder takes at most to start, while it may hold another GPU than the one that is looked for.
_START_SECONDS = 10.0
_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class Quarantine:
    """Takes machines (Ray's nodes) and single GPUs out of use, until it is left.

    Attributes:
        tell: gets one sentence for each.
        out: what is out of use.
        suspects: where trials failed in a row.
    """

    tell: Callable[[str], None]
    out: set[Location] = field(default_factory=set)
    suspects: Suspects = field(default_factory=Suspects)
    _placeholders: list[Any] = field(default_factory=list)

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, *_: object) -> None:
        for placeholder in self._placeholders:
            ray.kill(placeholder)

    def has(self, location: Location) -> bool:
        """Tell whether the location, or its machine, is out of use."""
        return location in self.out or location.machine in self.out

    def blame(self, failure: Failure, location: Location, number: int, given: Try, cores: float) -> str:
        """Put out of use what is to blame for a failure; return why the sweep must stop: it was the last one.

        Args:
            failure: of the trial.
            location: where it ran.
            number, given: the trial, and with what it was tried.
            cores: of the largest machine.
        """
        blames, blamed, why = POLICIES[failure.kind].blames, None, f"failed {IN_A_ROW} times in a row"
        if blames == "in a row" or (blames == "whole" and has_whole_share(given, cores)):
            blamed = self.suspects.note(location, number)
        elif blames == "at once" and location != NOWHERE:
            blamed, why = location, "cannot be used"
        if blamed is None or self.take_out(blamed, given.gpus, why) or not self.suspects.are_many(blamed):
            return ""
        last = "GPU" if blamed.gpu else "machine"
        return f"{IN_A_ROW} failures in a row on the last {last} that is in use: {failure.reason}"

    def take_out(self, location: Location, share: float, why: str) -> bool:
        """Put a location out of use, unless it is the last one; tell whether it is out now, or gone.

        Args:
            location: a machine or a GPU.
            share: GPUs that a trial gets.
            why: what it did.
        """
        nodes = {found["NodeID"]: found for found in ray.nodes() if found["Alive"] and found["Resources"].get("CPU")}
        if self.has(location) or location.node not in nodes:
            return True
        usable = {node: found["Resources"] for node, found in nodes.items() if Location(node) not in self.out}
        others = len(usable) - 1
        if location.gpu:
            out = sum(1 for known in self.out if known.gpu and known.node in usable)
            others = int(sum(resources.get("GPU", 0) for resources in usable.values())) - out - 1
        if not others:
            return False
        self.out.add(location)
        self._placeholders += hold(location, usable[location.node], share)
        name = f"{nodes[location.node]['NodeManagerHostname']} (node {location.node[:8]})"
        what = f"GPU {location.gpu} of {name}" if location.gpu else name
        self.tell(f"{what} {why}, so this sweep does not use it any more")
        return True


class _Placeholder:
    """Holds what it was given by being there."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def gpu(self) -> str:
        """Return Ray's id of the GPU that it was given."""
        return str(ray.get_runtime_context().get_accelerator_ids()["GPU"][0])

    def hold_gpu(self, location: Location, gpus: int, share: float) -> None:
        """Hold one of the ``gpus`` of a node: Ray lets nobody choose, so take what is free and keep what is of it.

        It takes parts of a trial's size, or trials that share the GPU could keep it from ever being free as a whole.
        """
        parts = int(1 / share + 1e-6)
        while len(self._kept) < parts:
            takers = [_placeholder(location.node, 0, share) for _ in range(gpus * parts - len(self._kept))]
            answers = {taker.gpu.remote(): taker for taker in takers}
            ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_START_SECONDS)
            self._kept += [answers[answer] for answer in ready if ray.get(answer) == location.gpu]
            for taker in takers:
                if taker not in self._kept:
                    ray.kill(taker)
            time.sleep(_AGAIN_SECONDS)  # trials may still be on it


def hold(location: Location, resources: dict[str, float], share: float) -> list[Any]:
    """Start actors that take a GPU, or the cores of a node one by one, as trials leave them: no trial runs without."""
    if not location.gpu:
        return [_placeholder(location.node, 1, 0) for _ in range(int(resources.get("CPU", 0)))]
    holder = _placeholder(location.node, 0, 0)
    holder.hold_gpu.remote(location, int(resources["GPU"]), share)
    return [holder]


def _placeholder(node: str, cpus: float, gpus: float) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(_Placeholder).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=there).remote()
