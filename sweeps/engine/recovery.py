"""What is done about trials that fail, by the policies of ``sweeps.failures``, and what takes the blame.

Machines and GPUs on which trials fail are put out of use. Ray lets nobody choose a GPU, and starts processes on what is
out of use, too: each is ended at once, and what was reserved for it stays so until the sweep is over. Soon there is no
room for another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from carcls.config import TrialConfig
from sweeps.engine.compat import id_of
from sweeps.engine.halt import Halt
from sweeps.failures import IN_A_ROW, POLICIES, Failure, Try, failure_of_death, has_whole_share, next_try, tried_text
from sweeps.study.study import Study

# So often is looked whether machines are gone of which something is retained.
_GONE_SECONDS = 10.0


@dataclass(slots=True)
class Running:
    """A trial from when it is handed out until it ends or is handed back.

    Attributes:
        number, config: of the trial, with the micro-batches that it is given.
        given: with what it is tried.
        process: Ray's actor that runs it; None before it has begun.
        failure: what its process reported before it ended itself, or was ended for; None before that.
        silent_since: when it last reported, by the clock of ``Patience``; None where no process is at it, or it hangs.
        awaited, repeats: what it reports next, and whether it repeats what others trained.
    """

    number: int
    config: TrialConfig
    given: Try
    process: Any = None
    failure: Failure | None = None
    silent_since: float | None = None
    awaited: Literal["frozen", "unfrozen", "end"] = "frozen"
    repeats: bool = False


class Place(NamedTuple):
    """Where a process is, a GPU or a machine, by Ray's ids; ``group`` is what is reserved for the process.

    ``worker`` is what a person is told, as in ``TrialRecord``.
    The GPU is empty where a process has none, or several; all is empty where nothing is known.
    """

    node: str = ""
    gpu: str = ""
    group: str = ""
    worker: str = ""

    @property
    def location(self) -> Place:
        """The GPU where there is one, else the machine."""
        return Place(self.node, self.gpu)

    @property
    def machine(self) -> Place:
        """The machine alone."""
        return Place(self.node)


@dataclass(slots=True)
class Quarantine:
    """Machines (Ray's nodes) and single GPUs that are out of use, until it is closed.

    Attributes:
        notify: gets one sentence for each.
        places: of processes (Ray's actors), once they have reported it.
    """

    notify: Callable[[str], None]
    places: dict[Any, Place] = field(default_factory=dict)
    _out: set[Place] = field(default_factory=set)
    _failed: dict[Place, list[tuple[int, Place]]] = field(default_factory=dict)  # trials in a row, and where
    _retained: list[tuple[PlacementGroup, str]] = field(default_factory=list)  # with its node
    _looked: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Give back what is retained."""
        while self._retained:
            remove_placement_group(self._retained.pop()[0])

    def release_gone(self) -> None:
        """Give back what is retained on machines that are gone: Ray would reserve as much on others instead."""
        if not self._retained or time.monotonic() - self._looked < _GONE_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for retained in [retained for retained in self._retained if retained[1] not in nodes]:
            self._retained.remove(retained)
            remove_placement_group(retained[0])

    def place_of(self, process: Any) -> Place:
        """Return where a process is; all empty before it has reported it."""
        return self.places.get(process, Place())

    def has(self, process: Any) -> bool:
        """Tell whether the process is on what is out of use, and must end."""
        return self._is_out(self.place_of(process).location)

    def _is_out(self, location: Place) -> bool:
        return not self._out.isdisjoint((location, location.machine))

    def retains(self, group: PlacementGroup) -> bool:
        """Return whether the group, whose process has ended, stays reserved from now on."""
        name = group.id.hex()
        node = next((p.node for p in self.places.values() if p.group == name and self._is_out(p.location)), "")
        if node:
            self._retained.append((group, node))
        return bool(node)

    def clear(self, process: Any) -> None:
        """A trial got on in the process: nothing there is to blame."""
        location = self.place_of(process).location
        for known in (location, location.machine):
            self._failed.pop(known, None)

    def blame(self, failure: Failure, process: Any, number: int, *, is_alone: bool) -> str:
        """Put out of use what is to blame for a failure; return why the sweep must stop: it was the last one.

        Args:
            failure: of the trial.
            process: that ran it.
            number: of the trial.
            is_alone: whether no neighbour could have taken its memory.
        """
        blames, location = POLICIES[failure.kind].blames, self.place_of(process).location
        if not location.node or blames == "never" or (blames == "whole" and not is_alone):
            return ""
        at_once = blames == "at once"
        blamed = location if at_once else self._note(location, number)
        why = "cannot be used" if at_once else f"failed {IN_A_ROW} times in a row"
        if blamed is None or self._take_out(blamed, why):
            return ""
        if len({failed for failed, _ in self._failed.get(blamed, ())}) < 2:  # it may be the trial's own doing
            return ""
        last = "GPU" if blamed.gpu else "machine"
        return f"{IN_A_ROW} failures in a row on the last {last} that is in use: {failure.reason}"

    def _note(self, location: Place, number: int) -> Place | None:
        """Note that a trial failed there; return what is to blame by now: the GPU, its machine or nothing.

        The machine is to blame when it was not always the same of its GPUs.
        """
        machine = location.machine
        for known in {location, machine}:
            self._failed.setdefault(known, []).append((number, location))
        places = [place for _, place in self._failed[machine]]
        if len(places) >= IN_A_ROW and (location == machine or len(set(places)) > 1):
            return machine
        return location if len(self._failed[location]) >= IN_A_ROW else None

    def _take_out(self, location: Place, why: str) -> bool:
        """Put a location out of use, unless it is the last one; return whether it is out now, or gone."""
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
        if self._is_out(location) or location.node not in nodes:
            return True
        usable = [node for node in nodes if Place(node) not in self._out]
        gpus = sum(int(nodes[node]["Resources"].get("GPU", 0)) for node in usable)
        gpus -= sum(bool(known.gpu) and known.node in usable for known in self._out)
        if (gpus if location.gpu else len(usable)) == 1:
            return False
        self._out.add(location)
        what = f"{nodes[location.node]['NodeManagerHostname']} (node {location.node[:8]})"
        what = f"GPU {location.gpu} of {what}" if location.gpu else what
        self.notify(f"{what} {why}, so this sweep does not use it any more")
        return True


@dataclass(frozen=True, slots=True)
class Recovery:
    """Does what the policy of a failure says.

    Attributes:
        study: where the end of each trial is noted.
        halt: ends the sweep where failures do not stop.
        quarantine: takes machines and GPUs out of use.
        cores: of the largest machine.
    """

    study: Study
    halt: Halt
    quarantine: Quarantine
    cores: float

    def succeed(self, trial: Running) -> None:
        """The trial is complete, or was stopped early."""
        self.halt.note(None)
        self.quarantine.clear(trial.process)

    def avoid(self, trial: Running) -> None:
        """End the trial's process where its machine or GPU is out of use; Tune then reports its death."""
        if self.quarantine.has(trial.process):
            trial.failure = Failure("preempted", "its machine or GPU is out of use.")
            ray.kill(trial.process)

    def note_death(self, trial: Running, words: str) -> None:
        """Note why the trial's process died, of which ``words`` are Ray's, unless that is known."""
        died = failure_of_death(words, id_of(trial.process))
        if died.kind == "out_of_memory" and trial.process is None and has_whole_share(trial.given, self.cores):
            # What took the memory is none of our trials, and smaller parts would not help.
            died = Failure("lost", "the machine had no memory left when its process started.")
        trial.failure = trial.failure or died

    def fail(self, trial: Running, failure: Failure) -> None:
        """Try the trial again, as the policy of the failure says, or give it up."""
        policy, is_alone = POLICIES[failure.kind], has_whole_share(trial.given, self.cores)
        self.halt.stop(self.quarantine.blame(failure, trial.process, trial.number, is_alone=is_alone))
        excused = self.quarantine.has(trial.process)
        if policy.then == "more":
            self._give_more(trial, failure)
        elif policy.then == "elsewhere" and excused:
            self.halt.notify(f"trial {trial.number} goes on elsewhere: {failure.reason}")
            self.study.hand_back(trial.number, counted=False)
        elif policy.then == "again":
            counted = policy.counts and not excused
            self.study.hand_back(trial.number, counted=counted, why=failure.reason if counted else "")
        else:
            self._give_up(trial, failure)

    def _give_more(self, trial: Running, failure: Failure) -> None:
        part = math.ceil(trial.config.batch_size / trial.config.processes)
        more = next_try(trial.given, part, self.cores)
        if more is None:
            self._give_up(trial, Failure(failure.kind, f"{failure.reason}{tried_text(trial.given.tried)}"))
            return
        self.halt.notify(f"trial {trial.number} ran out of memory; trying again with {more.tried[-1]}")
        self.study.hand_back(trial.number, counted=False, retry=asdict(more))

    def _give_up(self, trial: Running, failure: Failure) -> None:
        self.study.tell_failed(trial.number, failure.reason, failure.kind)
        self.halt.note(failure)
