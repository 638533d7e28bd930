"""Loads, while trials run, what the end of a sweep needs: the winner answers the test images in the driver."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.record import TrialRecord


class LoadingAhead:
    """An observer that loads PyTorch and what builds the winner's network, once a trial is complete.

    Args:
        config: a trial of the sweep.
    """

    def __init__(self, config: TrialConfig) -> None:
        # Not a daemon: PyTorch must not be loading while the interpreter takes itself apart.
        self._thread: threading.Thread | None = threading.Thread(target=_load, args=(config,), name="carsweep-ahead")

    def trial_started(self, number: int, experiment: str | None, settings: Mapping[str, Any]) -> None:
        """Do nothing: the trial's process has much to load itself."""

    def epoch_finished(self, number: int, measurement: Measurement) -> None:
        """Do nothing."""

    def trial_finished(self, record: TrialRecord) -> None:
        """Begin to load."""
        if record.status == "complete" and self._thread is not None:
            self._thread.start()
            self._thread = None


def _load(config: TrialConfig) -> None:
    from carcls.families import load_libraries

    load_libraries(config)
