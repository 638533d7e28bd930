"""What went wrong with a trial, and what is done about it. Pure: no Ray, no clock, no file.

``POLICIES`` has a row for each kind of failure: how it is recognised, and what is done about it. A sweep that is
stopped keeps what it has, and its remaining budget.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carcls.disk import is_full_disk
from carcls.errors import (
    BadData,
    DataError,
    InputError,
    LostProcess,
    NoDevice,
    NonFiniteLoss,
    OutOfMemory,
    TrialFailure,
)
from carcls.machine import is_lack_of_memory

IN_A_ROW = 3
HALVINGS = 4
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
class Policy:
    """How one kind of failure is recognised, and what is done about it.

    Attributes:
        raised: whether an exception in the trial's process is of this kind, if of none before it.
        deaths: words of Ray's, in small letters, on the death of a process that mean this kind.
        died: what is said of such a death.
        then: ``fail`` the trial; give it ``more``, and fail it when it had all there is; let it go on ``elsewhere``,
            and fail it when there is no other place; or let it go on ``again`` from its checkpoint.
        counts: whether the trial fails when this happens three times without another epoch.
        blames: whether the place is to blame: ``never``, ``in a row`` (after three on it), ``whole`` (the same, of
            those that had a whole share) or ``at once``.
        stops: why the sweep stops when IN_A_ROW trials failed so one after another; empty where it does not.
        remedy: what a person can do about it.
        no_fault: whether a trial that failed so goes on from its checkpoint when somebody resumes the sweep: whoever
            does has mended what was to blame.
    """

    raised: Callable[[BaseException], bool] = lambda _: False
    deaths: tuple[str, ...] = ()
    died: str = ""
    then: Literal["fail", "more", "elsewhere", "again"] = "fail"
    counts: bool = False
    blames: Literal["never", "in a row", "whole", "at once"] = "never"
    stops: str = ""
    remedy: str = ""
    no_fault: bool = False


def _is_no_device(error: BaseException) -> bool:
    has_no_gpu = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_DEVICE)
    return has_no_gpu or isinstance(error, NoDevice)


def _is_bad_data(error: BaseException) -> bool:
    return isinstance(error, BadData | DataError) or (isinstance(error, OSError) and error.filename is not None)


POLICIES: dict[str, Policy] = {
    # No room for a checkpoint or a stage.
    "full_disk": Policy(
        is_full_disk,
        stops="{count} trials in a row found no room: {reason}",
        remedy="Make room (carsweep gc, --disk) and resume: they go on.",
        no_fault=True,
    ),
    # The memory of the GPU or of the machine ran out.
    "out_of_memory": Policy(
        is_lack_of_memory,
        deaths=("memory monitor", "low on memory", "memory pressure"),
        died="the machine ran out of memory, and its process was ended.",
        then="more",
        blames="whole",
        remedy="Smaller batch_size or image_size, or fewer trials at a time (--concurrency).",
    ),
    # It was given a GPU and can use none.
    "device": Policy(
        _is_no_device,
        then="elsewhere",
        blames="at once",
        stops="{count} trials in a row could not use the GPU that they were given: {reason}",
        remedy="Mend the driver (see nvidia-smi) and resume: they go on.",
        no_fault=True,
    ),
    # NaN or infinity.
    "diverged": Policy(
        lambda error: isinstance(error, NonFiniteLoss),
        remedy="Lower the upper ends of the learning rates, or cut gradients (clip_norm=1).",
    ),
    # A file vanished or is damaged.
    "bad_data": Policy(
        _is_bad_data,
        stops="{count} trials in a row could not read their data: {reason}",
        remedy="Put the files back that the reasons name.",
    ),
    # Its settings cannot work.
    "settings": Policy(
        lambda error: isinstance(error, TrialFailure | InputError),
        remedy="Take values out of the search that cannot work; the reasons name them.",
    ),
    # Its machine or process was taken away, perhaps with a larger one when memory ran out.
    "preempted": Policy(
        deaths=("sigterm", "preempt"),
        died="its process was taken away (preempted).",
        then="again",
        remedy="Resume: they go on.",
        no_fault=True,
    ),
    # Its process, one that it had started, or its machine died, it hung, or CUDA broke.
    "lost": Policy(
        lambda error: isinstance(error, LostProcess),
        died="its process died; ray.log in the sweep's folder may tell why.",
        then="again",
        counts=True,
        blames="in a row",
        remedy="See ray.log in the sweep's folder, and resume: they go on.",
        no_fault=True,
    ),
    # Any other exception; a traceback is in the trial's folder.
    "bug": Policy(
        stops="{count} trials in a row failed with the same error, {mark}: {reason}",
        remedy="Read the traceback: trials/trial-NNNN/error.txt in the sweep's folder.",
    ),
}
NO_FAULT = tuple(kind for kind, policy in POLICIES.items() if policy.no_fault)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial did not finish.

    Attributes:
        kind: see POLICIES.
        reason: one line for a person.
        mark: of a bug, what it has in common with others of its sort: exception type and innermost own line.
    """

    kind: str
    reason: str
    mark: str = ""


def failure_of(error: BaseException) -> Failure:
    """Tell what an exception in a trial's process means."""
    kind = next((kind for kind, policy in POLICIES.items() if policy.raised(error)), "bug")
    name = type(error).__name__
    said = " ".join(str(error).split()) or name
    if kind == "bug":
        return Failure(kind, f"{name}: {said}", f"{name} in {_innermost_own_line(error)}")
    if kind == "out_of_memory" and not isinstance(error, OutOfMemory):
        said = f"out of memory: {said}"
    elif kind == "bad_data" and isinstance(error, OSError):
        said = f"{str(error.filename)!r} cannot be read: {error.strerror}."
    return Failure(kind, said)


def _innermost_own_line(error: BaseException) -> str:
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
    kinds = (kind for kind, policy in POLICIES.items() if any(words in said.lower() for words in policy.deaths))
    kind = next(kinds, "lost")
    if kind == "out_of_memory":
        ended = {one: float(size) for one, size in _ENDED.findall(said)}
        if ended.get(actor, math.inf) < max(ended.values(), default=0.0):
            return Failure("preempted", "it was ended with a larger process, since the machine ran out of memory.")
    return Failure(kind, POLICIES[kind].died)


@dataclass(frozen=True, slots=True)
class Try:
    """With what a trial is tried; its fields are kept in the journal, so that a resumed sweep goes on with it.

    Attributes:
        cpus, gpus: its share.
        micro_batch: images at a time; None is the whole batch.
        tried: what was given after each lack of memory, in words.
    """

    cpus: float
    gpus: float
    micro_batch: int | None = None
    tried: Sequence[str] = ()


def next_try(last: Try, batch_size: int, cores: float) -> Try | None:
    """Return what to try after a trial ran out of memory; None when all was tried.

    First a larger share, which leaves room for fewer neighbours: the part of a GPU is doubled up to a whole one;
    without a GPU the cores are doubled up to all of a machine. Then micro-batches of half the size, HALVINGS times.

    Args:
        last: what did not suffice.
        batch_size: of the trial; where several processes train it, of the part that one of them has.
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
    now = min(last.micro_batch or batch_size, batch_size)
    size = math.ceil(now / 2)
    if size == now or size < math.ceil(batch_size / 2**HALVINGS):
        return None
    return Try(last.cpus, last.gpus, size, (*last.tried, f"micro-batches of {size}"))


def tried_text(tried: Sequence[str]) -> str:
    """Return what was tried as the end of a reason; empty where nothing was.

    >>> tried_text(["a whole GPU", "micro-batches of 16"])
    ' Tried before it failed: a whole GPU; micro-batches of 16.'
    """
    return f" Tried before it failed: {'; '.join(tried)}." if tried else ""


def has_whole_share(last: Try, cores: float) -> bool:
    """Tell whether the trial has no neighbours any more that could take its memory."""
    return last.gpus >= 1 or (last.gpus == 0 and last.cpus >= cores)
