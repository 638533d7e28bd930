"""What trials take, by the driver's clock. The journal writes it into the lines of each trial; records have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sweeps.trial import NOTHING, Spent

if TYPE_CHECKING:
    from sweeps.trial import TrialRecord


class Meter:
    """Measures what the trials of a sweep take, on top of what they took in earlier sessions.

    Args:
        records: all trials so far.
        clock: seconds that only grow.
    """

    def __init__(self, records: Iterable[TrialRecord], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spent = {record.number: record.spent for record in records}
        self._began = clock() - max((spent.wall for spent in self._spent.values()), default=0.0)
        self._held: dict[int, tuple[float, float]] = {}  # cores and GPUs of the trials that run
        self._since: dict[int, float] = {}

    @property
    def wall(self) -> float:
        """Seconds for which the sweep has run, in all its sessions."""
        return self._clock() - self._began

    def start(self, number: int, cpus: float, gpus: float) -> None:
        """A process with so many cores and GPUs takes up the trial; perhaps for the second time, with more."""
        self.stop(number)
        self._held[number], self._since[number] = (cpus, gpus), self._clock()

    def stop(self, number: int, *, saw_gpu: bool = True) -> None:
        """The trial's process does nothing more for it, for now or for good.

        Args:
            number: of the trial.
            saw_gpu: whether it could use the GPU that it was given; else its time since it was last read is none of it.
        """
        self._count(number, saw_gpu=saw_gpu)
        self._since.pop(number, None)

    def train(self, number: int) -> None:
        """The trial has trained one more epoch; none that came from the store or from a checkpoint."""
        self._count(number, epochs=1)

    def read(self, number: int) -> Spent | None:
        """Return what the trial has taken up to this moment; None if no process ever took it up."""
        self._count(number)
        return self._spent.get(number)

    def _count(self, number: int, *, epochs: int = 0, saw_gpu: bool = True) -> None:
        """Add the time since the trial was last read, if a process is at it."""
        if number not in self._since:
            return
        (cpus, gpus), now = self._held[number], self._clock()
        seconds = now - self._since[number]
        more = Spent(seconds, epochs, seconds * cpus, seconds * gpus if saw_gpu else 0.0, now - self._began)
        self._spent[number] = self._spent.get(number, NOTHING) + more
        self._since[number] = now
