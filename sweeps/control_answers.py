"""What the driver does about each failure: tries again, closes the trial, stops the sweep, puts a place out of use.

The rules are in sweeps.failures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.control import Control
from sweeps.control_hangs import Hang
from sweeps.control_quarantine import Quarantine
from sweeps.failures import (
    IN_A_ROW,
    NOWHERE,
    Endings,
    Failure,
    Place,
    Places,
    Try,
    failure_of_death,
    has_whole_share,
    next_try,
)
from sweeps.study import Asked, Study


@dataclass(slots=True)
class Answers:
    """Remembers what the trials that run were given, and answers their failures.

    Attributes:
        study: told how trials end, or given back what is to be tried again.
        control: told when the sweep should stop.
        first: what a trial gets that has not failed yet.
        cores: of the largest machine.
        quarantine: takes machines and GPUs out of use.
        tell: gets one sentence for each answer.
    """

    study: Study
    control: Control
    first: Try
    cores: float
    quarantine: Quarantine
    tell: Callable[[str], None]
    endings: Endings = field(default_factory=Endings)
    places: Places = field(default_factory=Places)
    _tries: dict[int, Try] = field(default_factory=dict)
    _where: dict[int, Place] = field(default_factory=dict)
    _homes: dict[Any, Place] = field(default_factory=dict)
    _actors: dict[int, str] = field(default_factory=dict)
    _deaths: dict[int, Failure] = field(default_factory=dict)
    _hangs: dict[int, Failure] = field(default_factory=dict)

    def begin(self, asked: Asked) -> Try:
        """Return what the trial is given."""
        given = Try.from_dict(asked.retry) if asked.retry else self.first
        self._tries[asked.number] = given
        self._hangs.pop(asked.number, None)
        return given

    def note_place(self, number: int, place: Place, process: Any) -> None:
        """The trial's process says where it is; with the first of its trials only."""
        self._homes[process] = self._where[number] = place

    def note_process(self, number: int, process: Any) -> None:
        """A process takes up the trial; where it is is known if it has had another one."""
        self._where[number] = self._homes.get(process, NOWHERE)
        # Ray's name for it in what it says of deaths; there is no public one. Without it, each death is its own.
        self._actors[number] = process._actor_id.hex() if hasattr(process, "_actor_id") else ""

    def note_epoch(self, number: int) -> None:
        """The trial measured an epoch, so the place works."""
        self.places.works(self._where.get(number, NOWHERE))

    def note_hang(self, hang: Hang) -> None:
        """The trial hangs, and its process is about to be ended."""
        self._hangs[hang.number] = Failure("lost", hang.reason)
        self.tell(f"trial {hang.number} hangs and is ended: {hang.reason} It goes on from its last epoch.")

    def note_death(self, number: int, said: str) -> None:
        """The trial's process died; ``said`` is what Ray says of it."""
        actor = self._actors.pop(number, None)
        died = failure_of_death(said, actor or "")
        if died.kind == "out_of_memory" and actor is None and has_whole_share(self._tries[number], self.cores):
            # It had not begun: what took the memory is none of our trials, and smaller parts would not help.
            died = Failure("lost", "the machine had no memory left when its process started.")
        self._deaths.setdefault(number, self._hangs.pop(number, died))

    def note_failure(self, number: int, failure: str) -> None:
        """The trial's process says why it is about to end itself."""
        self._deaths[number] = Failure(**json.loads(failure))

    def died(self, number: int) -> None:
        """Answer the death of a trial's process."""
        self.failed(number, self._deaths.pop(number, failure_of_death("")))

    def reported(self, number: int, failure: str) -> None:
        """Answer a failure that the trial's process told, as ``sweeps.worker`` writes it."""
        self.failed(number, Failure(**json.loads(failure)))

    def failed(self, number: int, failure: Failure) -> None:
        """Answer a failure."""
        excused = self._blame_place(number, failure)
        if failure.kind == "out_of_memory":
            self._give_more(number, failure)
        elif failure.kind == "device" and excused:
            self.tell(f"trial {number} goes on elsewhere: {failure.reason}")
            self.study.hand_back(number, counted=False)
        elif failure.kind in ("lost", "preempted"):
            counted = failure.kind == "lost" and not excused
            self.study.hand_back(number, counted=counted, why=failure.reason if counted else "")
        else:
            self.study.tell_failed(number, failure.reason, failure.kind)
            self._end(failure)

    def finished(self, number: int) -> None:
        """The trial is complete, or was stopped early."""
        self._end(None)
        self.places.works(self._where.pop(number, NOWHERE))

    def _end(self, failure: Failure | None) -> None:
        reason = self.endings.note(failure)
        if reason:
            self.control.stop(reason)

    def _give_more(self, number: int, failure: Failure) -> None:
        last = self._tries[number]
        batch_size = int(self.study.record(number).config["batch_size"])
        more = next_try(last, batch_size, self.cores)
        if more is None:
            tried = f" Tried before it failed: {'; '.join(last.tried)}." if last.tried else ""
            self.study.tell_failed(number, f"{failure.reason}{tried}", "out_of_memory")
            self._end(failure)
            return
        self.tell(f"trial {number} ran out of memory; trying again with {more.tried[-1]}")
        self.study.hand_back(number, counted=False, retry=more.as_dict())

    def _blame_place(self, number: int, failure: Failure) -> bool:
        """Tell whether the place is to blame, which is then out of use; stop the sweep when it was the last one."""
        place = self._where.pop(number, NOWHERE)
        whole = failure.kind == "out_of_memory" and has_whole_share(self._tries[number], self.cores)
        blamed = self.places.fails(place, number) if failure.kind == "lost" or whole else None
        why = f"failed {IN_A_ROW} times in a row"
        if failure.kind == "device" and place != NOWHERE:
            blamed, why = place, "cannot be used"
        if (
            blamed
            and not self.quarantine.take_out(blamed, self._tries[number].gpus, why)
            and self.places.is_no_single_trial(blamed)
        ):
            last = "GPU" if blamed.gpu else "machine"
            self.control.stop(f"{IN_A_ROW} failures in a row on the last {last} that is in use: {failure.reason}")
        return self.quarantine.has(place)


def order_with(order: Mapping[str, Any], given: Try) -> dict[str, Any]:
    """Return the order of a trial with what it is given."""
    config = {**order["config"], "micro_batch": given.micro_batch or order["config"].get("micro_batch")}
    return {**order, "config": config, "cpus": given.cpus, "gpus": given.gpus}


def resources_of(order: Mapping[str, Any]) -> dict[str, float]:
    """Return what Ray is asked for, for a trial's order."""
    return {"cpu": order["cpus"], "gpu": order["gpus"]} if order["gpus"] else {"cpu": order["cpus"]}
