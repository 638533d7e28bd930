"""How a trial's measurements travel: short epochs in groups, since each message waits for a turn of Tune's loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Container
from typing import Any

from carcls.config import TrialConfig
from carcls.unfreezing import open_stages
from sweeps.spec.fields import EarlyStopping

# So long a measurement may wait for the next one; epochs that take longer are told at once.
GROUP_SECONDS = 0.5
# A trial that has taken longer tells its last epoch before it ends: that may take long, and is known by it.
_BEFORE_END_SECONDS = 1.0


class Reports:
    """Collects measurements and sends them, each once and in order.

    The first waits for no other: it shows that trial and process work.

    Args:
        send: gets ``{"measurements": JSON}``; may not return when the trial is stopped.
        at_once: epochs whose measurement waits for no other.
        clock: seconds that only grow.
        last: the last epoch that is told before the trial ends.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        at_once: Container[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        last: int = 0,
    ) -> None:
        self._send, self._at_once, self._last, self._clock = send, at_once, last, clock
        self._held: list[dict[str, Any]] = []
        self._began, self._sent = clock(), -math.inf

    def note(self, said: dict[str, Any]) -> None:
        """Take a measurement, plain JSON values with its ``epoch``; send what is held when it is time."""
        self._held.append(said)
        now = self._clock()
        is_last = said["epoch"] == self._last and now - self._began >= _BEFORE_END_SECONDS
        if is_last or said["epoch"] in self._at_once or now - self._sent >= GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is held, if anything is."""
        if self._held:
            self._send(self.take())
            self._sent = self._clock()

    def take(self) -> dict[str, Any]:
        """Return what is held, for a message that is sent anyway; nothing is held after."""
        held, self._held = self._held, []
        return {"measurements": json.dumps(held)} if held else {}


def told_at_once(config: TrialConfig, stopping: EarlyStopping) -> frozenset[int]:
    """Return the epochs (from 1) that are told at once: a trial may end there, or the backbone opens for the next.

    >>> sorted(told_at_once(TrialConfig(epochs=10, unfreezing="5:all"), EarlyStopping()))
    [2, 5, 6]
    """
    opened = (open_stages(config.unfreezing, epoch, config.epochs, 1) > 0 for epoch in range(config.epochs))
    opens = next((epoch for epoch, is_open in enumerate(opened) if is_open), 0)
    return frozenset({*stopping.rungs(config.epochs), opens})


def last_told(config: TrialConfig) -> int:
    """Return the last epoch (from 1) that a trial tells before it ends; retrieval tells the last with its score."""
    return config.epochs - (config.family == "retrieval")
