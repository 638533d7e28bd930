"""What a sweep waits for, said once it takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What is over sooner is not worth a line.
QUIET_SECONDS = 2.0


@contextmanager
def waiting(tell: Callable[[str], None], text: str) -> Iterator[Waiting]:
    """Say what is waited for if what is done inside takes longer than ``QUIET_SECONDS``."""
    wait = Waiting(tell, text)
    try:
        yield wait
    finally:
        wait.over()


class Waiting:
    """One wait. As an observer of a sweep it is over with the first trial.

    Args:
        tell: gets ``text``, from another thread.
        text: such as ``starting Ray …``.
    """

    def __init__(self, tell: Callable[[str], None], text: str) -> None:
        self._timer = threading.Timer(QUIET_SECONDS, tell, [text])
        self._timer.name, self._timer.daemon = "carsweep-waits", True
        self._timer.start()

    def over(self) -> None:
        """Say nothing any more; when this returns, nothing is being said."""
        self._timer.cancel()
        self._timer.join()

    def trial_changed(self, _record: object) -> None:
        """The wait is over."""
        self.over()
