"""What went wrong with a trial, and what is done about it. Pure: no Ray, no clock, no file.

    kind            what it is                                      what is done
    out_of_memory   the GPU's, or the machine's memory ran out      again with a larger share, then in micro-batches
    diverged        NaN or infinity                                 the trial fails at once
    bad_data        a file vanished or is damaged                   the trial fails; three in a row stop the sweep
    device          it was given a GPU and can use none             again elsewhere, and that GPU is out of use at once;
                                                                    the trial fails when there is none elsewhere; three
                                                                    in a row stop the sweep
    lost            its process or machine died, it hung, or CUDA   again from its checkpoint; the trial fails when that
                    broke                                           happens three times without another epoch
    preempted       its machine or process was taken away, perhaps  again from its checkpoint, as often as it takes
                    with a larger one when memory ran out
    full_disk       no room for a checkpoint or a stage             the trial fails; three in a row stop the sweep
    settings        its settings cannot work                        the trial fails
    bug             any other exception                             the trial fails, with a traceback in its folder;
                                                                    three of the same kind in a row stop the sweep

A sweep that is stopped keeps what it has, and its remaining budget. Three times in a row out of memory with a whole
share, or lost, on one machine put that machine out of use. What failed as lost, preempted, for want of room or of a
GPU goes on from its checkpoint when somebody resumes the sweep by its name: whoever does has mended what was to blame.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from carcls.disk import is_full_disk
from carcls.errors import BadData, DataError, InputError, NoDevice, NonFiniteLoss, OutOfMemory, TrialFailure
from carcls.machine import is_lack_of_memory

Kind = Literal["out_of_memory", "diverged", "bad_data", "device", "lost", "preempted", "full_disk", "settings", "bug"]

# A trial that failed so may be tried again as it is, once somebody asks for it.
NO_FAULT: tuple[Kind, ...] = ("device", "lost", "preempted", "full_disk")
IN_A_ROW = 3
HALVINGS = 4
_STOPPING: tuple[Kind, ...] = ("bug", "bad_data", "device", "full_disk")
# What PyTorch says when it cannot begin with a GPU at all.
_NO_DEVICE = (
    "No CUDA GPUs are available",
    "Found no NVIDIA driver",
    "NVIDIA driver on your system is too old",
    "CUDA driver initialization failed",
    "CUDA unknown error",
    "cudaGetDeviceCount",
    "cuInit",
)
# How the memory monitor names each process that it ended.
_ENDED = re.compile(r"Selected to kill: \(Actor\((\w+)\).*?memory used=([\d.]+)GB")
_LIBRARIES = ("site-packages", "dist-packages", "/lib/python")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial did not finish.

    Attributes:
        kind: see the table above.
        reason: one line for a person.
        mark: of a bug, what it has in common with others of its sort: exception type and innermost own line.
    """

    kind: Kind
    reason: str
    mark: str = ""


def failure_of(error: BaseException) -> Failure:
    """Tell what an exception in a trial's process means."""
    said = " ".join(str(error).split()) or type(error).__name__
    if is_full_disk(error):
        return Failure("full_disk", said)
    if is_lack_of_memory(error):
        return Failure("out_of_memory", said if isinstance(error, OutOfMemory) else f"out of memory: {said}")
    if is_no_device(error):
        return Failure("device", said)
    if isinstance(error, NonFiniteLoss):
        return Failure("diverged", said)
    if isinstance(error, BadData | DataError):
        return Failure("bad_data", said)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure("bad_data", f"{str(error.filename)!r} cannot be read: {error.strerror}.")
    if isinstance(error, TrialFailure | InputError):
        return Failure("settings", said)
    mark = f"{type(error).__name__} in {innermost_own_line(error)}"
    return Failure("bug", f"{type(error).__name__}: {said}", mark)


def is_no_device(error: BaseException) -> bool:
    """Tell whether the process of a trial that was given a GPU cannot use any."""
    if isinstance(error, NoDevice):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_DEVICE)


def is_broken_device(error: BaseException) -> bool:
    """Tell whether a process that raised this can use its GPU no more: any CUDA error but a lack of memory."""
    said = str(error)
    return not is_lack_of_memory(error) and ("CUDA error" in said or "cuDNN error" in said or "NCCL error" in said)


def innermost_own_line(error: BaseException) -> str:
    """Return ``file.py:line`` of the innermost frame that is of no library; of the innermost one if all are."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in _LIBRARIES)]
    last = (own or frames)[-1:]
    return f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "nowhere"


def failure_of_death(said: str, actor: str = "") -> Failure:
    """Tell what the death of a trial's process means.

    Args:
        said: Ray's words. For any killed process they list what may have been the reason, "OOM killer" among it, so
            only the words of Ray's memory monitor, which kills on purpose, mean memory. A machine that Ray knows to be
            preempted does not come here: Tune itself starts its trials again, without counting.
        actor: Ray's id of the process, in hexadecimal; empty where it is not known. The monitor ends several at once,
            the youngest first; only the largest of them is to blame.
    """
    if any(words in said for words in ("memory monitor", "low on memory", "memory pressure")):
        ended = {one: float(size) for one, size in _ENDED.findall(said)}
        if ended.get(actor, math.inf) < max(ended.values(), default=0.0):
            return Failure("preempted", "it was ended with a larger process, since the machine ran out of memory.")
        return Failure("out_of_memory", "the machine ran out of memory, and its process was ended.")
    if "SIGTERM" in said or "preempt" in said.lower():
        return Failure("preempted", "its process was taken away (preempted).")
    return Failure("lost", "its process died; ray.log in the sweep's folder may tell why.")


# Out of memory


@dataclass(frozen=True, slots=True)
class Try:
    """With what a trial is tried; kept in the journal, so that a resumed sweep goes on with it.

    Attributes:
        cpus, gpus: its share.
        micro_batch: images at a time; None is the whole batch.
        tried: what was given after each lack of memory, in words.
    """

    cpus: float
    gpus: float
    micro_batch: int | None = None
    tried: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Try:
        """Read back what ``as_dict`` wrote."""
        return cls(value["cpus"], value["gpus"], value["micro_batch"], tuple(value["tried"]))


def next_try(last: Try, batch_size: int, cores: float) -> Try | None:
    """Return what to try after a trial ran out of memory; None when all was tried.

    First a larger share, which leaves room for fewer neighbours: the part of a GPU is doubled up to a whole one;
    without a GPU the cores are doubled up to all of a machine. Then micro-batches of half the size, HALVINGS times.

    Args:
        last: what did not suffice.
        batch_size: of the trial.
        cores: of the largest machine.

    >>> next_try(Try(1, 0.5), 32, 8)
    Try(cpus=1, gpus=1.0, micro_batch=None, tried=('a whole GPU',))
    """
    if 0 < last.gpus < 1:
        gpus = min(1.0, 2 * last.gpus)
        words = "a whole GPU" if gpus == 1 else f"{gpus:.2g} of a GPU"
        return Try(last.cpus, gpus, last.micro_batch, (*last.tried, words))
    if last.gpus == 0 and last.cpus < cores:
        cpus = min(cores, 2 * last.cpus)
        return Try(cpus, 0.0, last.micro_batch, (*last.tried, f"{cpus:g} CPUs, so fewer neighbours"))
    size = math.ceil((last.micro_batch or batch_size) / 2)
    if size == (last.micro_batch or batch_size) or size < math.ceil(batch_size / 2**HALVINGS):
        return None
    return Try(last.cpus, last.gpus, size, (*last.tried, f"micro-batches of {size}"))


def has_whole_share(last: Try, cores: float) -> bool:
    """Tell whether the trial has no neighbours any more that could take its memory."""
    return last.gpus >= 1 or (last.gpus == 0 and last.cpus >= cores)


# In a row


@dataclass(slots=True)
class Endings:
    """Counts trials that failed for the same reason one after another, and says when the sweep should stop."""

    last: tuple[str, str] = ("", "")
    count: int = 0

    def note(self, failure: Failure | None) -> str:
        """Note how a trial ended (None: complete or stopped early); return why the sweep should stop, or nothing."""
        now = ("", "") if failure is None or failure.kind not in _STOPPING else (failure.kind, failure.mark)
        self.count = self.count + 1 if now == self.last and now[0] else int(bool(now[0]))
        self.last = now
        if failure is None or self.count < IN_A_ROW:
            return ""
        return _WHY_STOPPED[failure.kind].format(count=IN_A_ROW, mark=failure.mark, reason=failure.reason)


_WHY_STOPPED: Mapping[Kind, str] = {
    "bug": "{count} trials in a row failed with the same error, {mark}: {reason}",
    "bad_data": "{count} trials in a row could not read their data: {reason}",
    "device": "{count} trials in a row could not use the GPU that they were given: {reason}",
    "full_disk": "{count} trials in a row found no room: {reason}",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial runs.

    Attributes:
        node: Ray's id of the machine; empty where it is not known.
        gpu: Ray's id of the GPU, for a trial that has one GPU or a part of it; empty for any other.
    """

    node: str
    gpu: str = ""

    @property
    def machine(self) -> Place:
        """The machine without its GPU."""
        return Place(self.node)


NOWHERE = Place("")


@dataclass(slots=True)
class Places:
    """Remembers whose failures came in a row on each machine and on each GPU, which may be to blame for them."""

    in_a_row: dict[Place, list[tuple[int, Place]]] = field(default_factory=dict)

    def works(self, place: Place) -> None:
        """Note that a trial got on there."""
        for known in (place, place.machine):
            self.in_a_row.pop(known, None)

    def fails(self, place: Place, number: int) -> Place | None:
        """Note that a trial failed there in a way that may be the place's; return what should be put out, if anything.

        The machine is to blame when it was not always the same of its GPUs.
        """
        if place == NOWHERE:
            return None
        for known in {place, place.machine}:
            self.in_a_row.setdefault(known, []).append((number, place))
        on_machine = self.in_a_row[place.machine]
        if len(on_machine) >= IN_A_ROW and (not place.gpu or len({failed for _, failed in on_machine}) > 1):
            return place.machine
        return place if len(self.in_a_row[place]) >= IN_A_ROW else None

    def is_no_single_trial(self, place: Place) -> bool:
        """Tell whether more than one trial failed there in a row, so that it is hardly the trial's own doing."""
        return len({number for number, _ in self.in_a_row.get(place, ())}) > 1
