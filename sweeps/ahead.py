"""Loads, while trials run, what the end of a sweep needs: the winner answers the test images in the driver."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from carcls.config import TrialConfig
from carcls.families import load_libraries
from carcls.outcome import Measurement
from sweeps.record import TrialRecord


class LoadingAhead:
    """An observer that loads PyTorch and what builds a trial's network, once the first trial is complete."""

    def __init__(self) -> None:
        self._begun = False

    def trial_started(self, number: int, experiment: str | None, settings: Mapping[str, Any]) -> None:
        """Do nothing: the trial's process has much to load itself."""

    def epoch_finished(self, number: int, measurement: Measurement) -> None:
        """Do nothing."""

    def trial_finished(self, record: TrialRecord) -> None:
        """Begin to load."""
        if record.status == "complete" and not self._begun:
            self._begun = True
            config = TrialConfig.model_validate(dict(record.config))
            # Not a daemon: PyTorch must not be loading while the interpreter takes itself apart.
            threading.Thread(target=load_libraries, args=(config,), name="carsweep-ahead").start()
