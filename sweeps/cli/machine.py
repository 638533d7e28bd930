"""What this machine does while a sweep runs, looked at by a thread of its own: ``nvidia-smi`` may take seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.gpus import gpus_seen

if TYPE_CHECKING:
    from carcls.gpus import Gpu

LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class MachineUse:
    """What the machine does.

    Attributes:
        cpu: share of all its cores that was busy since it was looked at before, in [0, 1].
        memory, memory_total: bytes that are not available, and all there are.
        gpus: that trials may use.
        making: kinds of the cached stages that trials are making, but for their trainings.
    """

    cpu: float
    memory: int
    memory_total: int
    gpus: tuple[Gpu, ...] = ()
    making: tuple[str, ...] = ()


class MachineWatch:
    """Looks at the machine every LOOK_SECONDS, from its start until it is stopped.

    Args:
        stages: folder of the stage store; None asks for no stages.
        has_gpus: whether trials may have any.

    Attributes:
        use: what was seen last; None before that.
    """

    def __init__(self, stages: Path | None = None, *, has_gpus: bool = False) -> None:
        self.use: MachineUse | None = None
        self._stages, self._has_gpus, self._began = stages, has_gpus, time.time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="carsweep-machine", daemon=True)

    def start(self) -> None:
        """Begin to look; may be said again and again."""
        if not self._thread.ident:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for nothing."""
        self._over.set()

    def _look_on(self) -> None:
        import psutil

        psutil.cpu_percent()  # the first answer means nothing
        while not self._over.wait(LOOK_SECONDS):
            memory, gpus = psutil.virtual_memory(), tuple(gpus_seen()) if self._has_gpus else ()
            share = psutil.cpu_percent() / 100
            self.use = MachineUse(share, memory.total - memory.available, memory.total, gpus, self._making())

    def _making(self) -> tuple[str, ...]:
        """Return the kinds of the folders that become stages; what a killed process left is older than the sweep."""
        kinds = set()
        for folder in self._stages.glob("*/*.making") if self._stages else ():
            try:
                kinds |= {folder.parent.name.replace("-", " ")} if folder.stat().st_mtime >= self._began else set()
            except OSError:  # it is made
                continue
        return tuple(sorted(kinds))
