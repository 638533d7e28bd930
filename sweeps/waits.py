"""What a sweep waits for, said once it takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable

# What is over sooner is not worth a line.
QUIET_SECONDS = 2.0


class Waiting:
    """Say what is waited for if what is done inside takes longer than ``QUIET_SECONDS``.

    As an observer of a sweep it is over with the first trial.

    Args:
        notify: gets ``text``, from another thread.
        text: such as ``starting Ray …``.
    """

    def __init__(self, notify: Callable[[str], None], text: str) -> None:
        self._timer = threading.Timer(QUIET_SECONDS, notify, [text])
        self._timer.name, self._timer.daemon = "carsweep-waits", True

    def __enter__(self) -> Waiting:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Say nothing any more; when this returns, nothing is being said."""
        self._timer.cancel()
        self._timer.join()

    def trial_changed(self, _record: object) -> None:
        """The wait is over."""
        self.end()
