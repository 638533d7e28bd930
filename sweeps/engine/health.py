"""What is sick: a trial that hangs is ended, and machines and GPUs on which trials fail are put out of use.

What is silent for too long goes on in another process from its last epoch. Ray lets nobody choose a GPU, and starts
processes on what is out of use, too: each is ended at once, and what was reserved for it is held until the sweep is
over, so that there is soon no room for another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from carcls.config import TrialConfig
from carcls.unfreezing import open_stages
from sweeps.engine.resources import Machine, Share, rates_of
from sweeps.engine.worker import last_told
from sweeps.failures import IN_A_ROW, NOWHERE, POLICIES, Failure, Location, Suspects, Try, has_whole_share
from sweeps.text import rough_duration

# A trial hangs that says nothing for TIMES what an epoch takes, but for no less than least_seconds(). Before an epoch
# of the kind was seen, and once it has told its last, for no less than UNKNOWN times that: an hour.
TIMES = 10
UNKNOWN = 12
# Of the time between two looks no more than this counts: the driver was stopped, or the whole machine was.
_LOOK_SECONDS = 1.0
# So often is looked whether machines are gone of which something is held.
_GONE_SECONDS = 10.0

Comes = Literal["frozen", "unfrozen", "end"]


def expected_seconds(share: Share, images: int, config: TrialConfig, is_unfrozen: bool) -> float:
    """Return how long an epoch should take, the backbone being unfrozen, or frozen with features that are not known.

    As rough as a plan, for a processor without matrix units: it is there to excuse what is slow.
    """
    rates = rates_of(config, Machine(1, int(share.gpus > 0), amx=False))
    return images / ((rates.train if is_unfrozen else rates.infer) * (share.gpus or share.cpus))


@dataclass(slots=True)
class _Wait:
    """A trial that runs: since when it is silent, what it reports next, and whether it repeats what others trained."""

    config: TrialConfig
    since: float
    comes: Comes
    repeats: bool = False

    @property
    def kind(self) -> tuple[Any, ...]:
        """Epochs of one kind take about as long."""
        config = self.config
        return (self.comes, config.family, config.backbone, config.image_size, config.batch_size, config.micro_batch)


class Patience:
    """Tells which of the running trials hang. What it knows of epochs are those that it has seen.

    Args:
        expected: seconds of a trial's epoch, its backbone being unfrozen or not; no trial hangs before ten times that.
        least: seconds that every trial may be silent for.
    """

    def __init__(self, expected: Callable[[TrialConfig, bool], float], least: float) -> None:
        self._expected, self._least = expected, least
        self._waits: dict[int, _Wait] = {}
        self._longest: dict[tuple[Any, ...], float] = {}
        self._now = self._looked = 0.0

    def begin(self, number: int, config: TrialConfig) -> None:
        """A process takes up a trial."""
        self._waits[number] = _Wait(config, self._now, _comes_after(config, 0))

    def hear(self, number: int, epoch: int = 0, *, trained: bool = False) -> None:
        """The trial gives a sign of life: an epoch, perhaps one that was trained just now, or another (0)."""
        wait = self._waits.get(number)
        if wait is None:
            return
        if trained:
            self._longest[wait.kind] = max(self._longest.get(wait.kind, 0.0), self._now - wait.since)
        wait.since = self._now
        if epoch:
            wait.comes, wait.repeats = _comes_after(wait.config, epoch), not trained

    def end(self, number: int) -> None:
        """The process does no more for the trial."""
        self._waits.pop(number, None)

    def look(self, passed: float) -> dict[int, str]:
        """Let so many seconds pass; return what hangs, each once, with what was observed."""
        self._now += min(passed, _LOOK_SECONDS)
        if self._now - self._looked < min(_LOOK_SECONDS, self._least):
            return {}
        self._looked = self._now
        hangs = {number: said for number, wait in self._waits.items() if (said := self._observe(wait))}
        for number in hangs:
            self._waits.pop(number)
        return hangs

    def _observe(self, wait: _Wait) -> str:
        """Return in one sentence that the trial hangs; nothing when it may be silent for longer."""
        silent = self._now - wait.since
        if silent < self._least:
            return ""
        seen = None if wait.comes == "end" or wait.repeats else self._longest.get(wait.kind)
        least = UNKNOWN * self._least if seen is None else self._least
        usual = max(seen or 0.0, self._expected(wait.config, wait.comes != "frozen"))
        if silent < max(least, TIMES * usual):
            return ""
        said = f"it reported nothing for {rough_duration(silent)}"
        if seen is None:
            return f"{said}, at its start or at its end."
        return f"{said}, where an epoch takes at most {rough_duration(max(1.0, usual))}."


def _comes_after(config: TrialConfig, epoch: int) -> Comes:
    """Return what a trial reports after ``epoch``: one with a frozen or an unfrozen backbone, or how it ends."""
    if epoch >= last_told(config):
        return "end"
    return "unfrozen" if open_stages(config.training().unfreezing, epoch, config.epochs, 1) else "frozen"


@dataclass(slots=True)
class Quarantine:
    """Machines (Ray's nodes) and single GPUs that are out of use, until it is closed.

    Attributes:
        tell: gets one sentence for each.
    """

    tell: Callable[[str], None]
    _out: set[Location] = field(default_factory=set)
    _suspects: Suspects = field(default_factory=Suspects)
    _locations: dict[Any, Location] = field(default_factory=dict)  # of processes
    _groups: dict[Any, str] = field(default_factory=dict)  # what Ray has reserved for each, by its id
    _machines: dict[str, str] = field(default_factory=dict)  # of the groups that stay, by their ids
    _held: list[PlacementGroup] = field(default_factory=list)  # those of them whose processes have ended
    _looked: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Give back what is held."""
        while self._held:
            remove_placement_group(self._held.pop())

    def look(self) -> None:
        """Give back what is held on machines that are gone: Ray would reserve as much on others instead."""
        if not self._held or time.monotonic() - self._looked < _GONE_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for group in [group for group in self._held if self._machines[group.id.hex()] not in nodes]:
            self._held.remove(group)
            remove_placement_group(group)

    def locate(self, process: Any, group: str, **location: str) -> None:
        """A process (Ray's actor) has told where it is, and the id of what Ray has reserved for it."""
        self._locations[process], self._groups[process] = Location(**location), group

    def group_of(self, process: Any) -> str:
        """Return the id of what Ray has reserved for a process; empty for one that has not told it."""
        return self._groups.get(process, "")

    def clear(self, process: Any) -> None:
        """A trial got on in the process."""
        self._suspects.clear(self._locations.get(process, NOWHERE))

    def has(self, process: Any) -> bool:
        """Tell whether the process is on what is out of use."""
        return self._is_out(self._locations.get(process, NOWHERE))

    def _is_out(self, location: Location) -> bool:
        return location in self._out or location.machine in self._out

    def holds(self, process: Any) -> bool:
        """Tell whether the process must end: it is on what is out of use, and what is reserved for it is held."""
        if self.has(process):
            self._machines[self._groups[process]] = self._locations[process].node
        return self.has(process)

    def takes(self, group: PlacementGroup) -> bool:
        """Tell whether the group, whose process has ended, stays."""
        is_held = group.id.hex() in self._machines
        if is_held:
            self._held.append(group)
        return is_held

    def blame(self, failure: Failure, process: Any, number: int, given: Try, cores: float) -> str:
        """Put out of use what is to blame for a failure; return why the sweep must stop: it was the last one.

        Args:
            failure: of the trial.
            process: that ran it.
            number, given: the trial, and with what it was tried.
            cores: of the largest machine.
        """
        blames, location = POLICIES[failure.kind].blames, self._locations.get(process, NOWHERE)
        blamed, why = None, f"failed {IN_A_ROW} times in a row"
        if blames == "in a row" or (blames == "whole" and has_whole_share(given, cores)):
            blamed = self._suspects.note(location, number)
        elif blames == "at once" and location != NOWHERE:
            blamed, why = location, "cannot be used"
        if blamed is None or self._take_out(blamed, why) or not self._suspects.are_many(blamed):
            return ""
        last = "GPU" if blamed.gpu else "machine"
        return f"{IN_A_ROW} failures in a row on the last {last} that is in use: {failure.reason}"

    def _take_out(self, location: Location, why: str) -> bool:
        """Put a location out of use, unless it is the last one; tell whether it is out now, or gone."""
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        if self._is_out(location) or location.node not in nodes:
            return True
        usable = [Location(node) for node in nodes if Location(node) not in self._out]
        gpus = sum(int(nodes[place.node]["Resources"].get("GPU", 0)) for place in usable)
        gpus -= sum(bool(known.gpu) and known.machine in usable for known in self._out)
        if (gpus if location.gpu else len(usable)) == 1:
            return False
        self._out.add(location)
        what = f"{nodes[location.node]['NodeManagerHostname']} (node {location.node[:8]})"
        what = f"GPU {location.gpu} of {what}" if location.gpu else what
        self.tell(f"{what} {why}, so this sweep does not use it any more")
        return True
