"""What this machine's GPUs have, and who holds it, as nvidia-smi tells in CSV. No torch, and never an error.

Sizes are MiB, as it prints them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from carcls.machine import visible_uuids

BUSY = 0.1
"""A GPU is busy where others hold more than this part of it; a driver and a screen hold less."""
# A driver that loads for each call takes seconds.
_SECONDS = 10.0
_GPUS = ("uuid", "index", "memory.total", "memory.free", "utilization.gpu", "name")
_PROCESSES = ("gpu_uuid", "pid", "used_memory", "process_name")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that CUDA_VISIBLE_DEVICES leaves.

    Attributes:
        uuid, name: as nvidia-smi has them.
        number: of nvidia-smi.
        total, free: of its memory, MiB.
        use: share of the last moments in which it computed, in [0, 1]; None where that is not told.
    """

    uuid: str
    number: int
    total: int
    free: int
    name: str
    use: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether others hold a good part of it."""
        return self.free < (1 - BUSY) * self.total


def gpus_seen() -> list[Gpu]:
    """Return the GPUs that trials may use, with their memory; none where nvidia-smi does not tell, and no parts (MIG).

    Raises:
        InputError: as ``carcls.machine.visible_gpus``.
    """
    uuids, found = visible_uuids(), []
    for uuid, number, total, free, use, name in _ask("--query-gpu", _GPUS) if uuids else ():
        if uuid in uuids and (number + total + free).isdecimal():
            found.append(
                Gpu(uuid, int(number), int(total), int(free), name, int(use) / 100 if use.isdecimal() else None)
            )
    return found


def busy_note(gpus: Sequence[Gpu]) -> str:
    """Return one line that says which of some GPUs are busy, and with whose processes; empty where none is."""
    busy = [gpu for gpu in gpus if gpu.is_busy]
    rows = _ask("--query-compute-apps", _PROCESSES) if busy else []
    said = "; ".join(f"GPU {gpu.number} ({gpu.name}) has {_gib(gpu.free)} of {_gib(gpu.total)} GiB free: "
                     f"{_holders(gpu, rows)}" for gpu in busy)  # fmt: skip
    return f"{said}; trials that need more will run out of memory." if said else ""


def _holders(gpu: Gpu, rows: Sequence[Sequence[str]]) -> str:
    """Name the process that holds most; in a container none may be known, or only some."""
    held = [
        (int(size), f"{PurePath(name).name} (pid {pid})" if name[:1] != "[" else f"the process with pid {pid}")
        for uuid, pid, size, name in rows
        if uuid == gpu.uuid and size.isdecimal()
    ]
    size, who = max(held, default=(0, ""))
    rest = gpu.total - gpu.free - size
    others = f"others hold {_gib(rest)} GiB"
    if not held:
        return others
    return f"{who} holds {_gib(size)} GiB" + (f", {others}" if rest > BUSY * gpu.total else "")


def _ask(query: str, names: Sequence[str]) -> list[list[str]]:
    """Return the values of each line; the last name may hold commas. Nothing where nobody answers in time."""
    command = ["nvidia-smi", f"{query}={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", check=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[value.strip() for value in line.split(",", len(names) - 1)] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(names)]


def _gib(size: int) -> str:
    return f"{size / 1024:.3g}"
