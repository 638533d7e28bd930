"""What this machine lets this process use: cores, GPUs, memory. No torch."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path

from carcls.errors import InputError, shown

PACK_SHARE = 0.25
"""Of a GPU's memory, or of a trial's part of it, that decoded images may take; a network that trains needs the rest."""
_CGROUPS = Path("/sys/fs/cgroup")
_DEVICE = Path("/dev/nvidia0")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_LIST_GPUS = ("nvidia-smi", "-L")
_LISTED = re.compile(r"^(?:GPU \d+: (.+)|\s+MIG (\S+).*) \(UUID: ((?:GPU|MIG)-[^)]+)\)", re.MULTILINE)
# The share of a GPU that this process's trial was given, once it is known.
_held: list[float] = []
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Return how many cores this process may use: its affinity, cut to the quota of its container."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, math.floor(_quota(cgroups) + 0.01)))


def _quota(cgroups: Path) -> float:
    """Cores that the container may use on average; a huge number where there is no limit or nobody says."""
    try:
        limit, period = (cgroups / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            limit = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
        except OSError:
            return 1e9
    return 1e9 if limit in ("max", "-1") else int(limit) / int(period)


def visible_gpus() -> int:
    """Return how many NVIDIA GPUs CUDA would give this process, without loading torch.

    CUDA takes what CUDA_VISIBLE_DEVICES lists, numbers or beginnings of UUIDs, up to the first that is not there, and
    nothing where one is listed twice. Of several parts of GPUs (MIG) it takes one; all count here, since Ray gives each
    process of trials one of them.

    Raises:
        InputError: there are GPUs, the variable names some, and CUDA would give none.
    """
    return len(visible_uuids())


def visible_uuids() -> list[str]:
    """Return the UUIDs of the GPUs, or of the parts of GPUs, that ``visible_gpus`` counts; raises as that does."""
    listed = os.environ.get(_VISIBLE)
    if listed is not None and _hides_all(listed):
        return []
    gpus, parts = _uuids()
    if listed is None or not gpus:
        return gpus
    found = _find_listed(listed, gpus, parts)
    if not found:
        raise InputError(
            f"{_VISIBLE} must name GPUs of this machine (numbers below {len(gpus)}, or UUIDs as nvidia-smi -L "
            f"prints them), each once, got {shown(listed)}. Mend it, unset it, or leave it empty for trials on the CPU."
        )
    return found


def _hides_all(listed: str) -> bool:
    """Tell whether somebody has hidden all GPUs on purpose, in one of the ways that are in use."""
    first = listed.split(",")[0].strip()
    return first.startswith("-") or first in ("", "none", "void", "NoDevFiles")


def _find_listed(listed: str, gpus: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Return the UUIDs that CUDA takes."""
    kind = listed[:4]
    if kind in ("GPU-", "MIG-"):
        words = list(takewhile(lambda word: word.startswith(kind), listed.split(",")))
        known = gpus if kind == "GPU-" else parts
        matches = [[uuid for uuid in known if uuid.startswith(word)] for word in words]
        found = [match[0] for match in takewhile(lambda match: len(match) == 1, matches)]
    else:
        numbers = [re.match(r"\s*\+?\d+", word) for word in listed.split(",")]  # of "1gpu2" CUDA reads the 1
        words = [str(int(number[0])) for number in takewhile(bool, numbers) if number]
        found = [gpus[int(word)] for word in takewhile(lambda word: int(word) < len(gpus), words)]
    twice = len(set(words)) < len(words) or len(set(found)) < len(found)
    return [] if twice else found


def gpu_kind() -> str:
    """Return what the GPUs that trials may use are called, with the profile of their parts (MIG); loads no torch.

    Nothing where they are of several kinds, of which Ray lets nobody choose one, or where nobody says. A process of
    Ray's that has no GPU, and so sees none, tells of all that the machine has.
    """
    kinds: dict[str, set[str]] = {}  # by UUID; a GPU that has parts is what they are
    try:
        seen, gpu, name = visible_uuids(), "", ""
        for model, profile, uuid in _LISTED.findall(_listing()):
            if model:
                gpu, name = uuid, model
                kinds[gpu] = {name}
            else:
                kinds[uuid] = {f"{name} {profile}"}
                kinds[gpu] = kinds.get(gpu, set()) - {name} | kinds[uuid]
    except InputError:
        return ""
    found = set().union(*(kinds[uuid] for uuid in seen or kinds))
    return found.pop() if len(found) == 1 else ""


def _uuids() -> tuple[list[str], list[str]]:
    """Return the UUIDs of this machine's GPUs, and of the parts (MIG) of them."""
    listing = _listing()
    return re.findall(r"UUID: (GPU-[^)]+)", listing), re.findall(r"UUID: (MIG-[^)]+)", listing)


@cache
def _listing() -> str:
    """Return what ``nvidia-smi -L`` prints; nothing where there is no GPU.

    Raises:
        InputError: there are GPUs, and it does not answer.
    """
    try:
        return subprocess.run(  # noqa: S603
            _LIST_GPUS, capture_output=True, text=True, errors="replace", check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        if not _DEVICE.exists():
            return ""
        raise InputError(
            f"This machine has an NVIDIA GPU ({_DEVICE}), but {' '.join(_LIST_GPUS)} does not answer. See what it "
            "says; in a container, ask for the driver's utilities (NVIDIA_DRIVER_CAPABILITIES=compute,utility). "
            f"For trials on the CPU: {_VISIBLE}= carsweep …"
        ) from None


def hold_gpus(share: float) -> None:
    """Note how much of a GPU this process's trial was given; ``carcls.training.images.pick_device`` keeps to it."""
    _held[:] = [share]


def held_gpus() -> float | None:
    """Return how much of a GPU this process's trial was given; None where nobody said."""
    return _held[0] if _held else None


# Said by PyTorch, cuBLAS, cuDNN, NCCL and the driver; "not initialized" by libraries that find no room to begin on a
# full card, the last by PyTorch where it may not ask who else holds memory.
_LACK = re.compile(
    r"CUDA (driver )?error: out of memory|CUDA out of memory|_ALLOC(ATION)?_FAILED|_STATUS_NOT_INITIALIZED"
    r"|Cuda failure (\d+ )?'out of memory'|unable to find an engine|Unable to find a valid cuDNN algorithm"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory|NVML_SUCCESS == .*CUDACachingAllocator",
    re.DOTALL,
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether the memory of the GPU or of the machine did not suffice, in any words."""
    # torch, jax and cupy each have an OutOfMemoryError; none is imported for asking.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemory", "OutOfMemoryError", "MemoryError"}:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_LACK.search(str(error)))


def is_broken_device(error: BaseException) -> bool:
    """Tell whether a process that raised this can use its GPU no more: any CUDA error but a lack of memory."""
    words = ("CUDA error", "cuDNN error", "NCCL error")
    return not is_lack_of_memory(error) and any(library in str(error) for library in words)


@cache
def keep_freed_memory() -> None:
    """Let this process use memory that it has freed for its next tensors, up to 2 GiB, instead of giving it back.

    Otherwise glibc maps every larger tensor anew, and the kernel clears its pages one by one as they are touched:
    efficientnet_lite0 trains 1.1 to 1.3 times as fast without that on a CPU. Does nothing with other C libraries.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
