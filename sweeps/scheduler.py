"""Early stopping as Ray Tune sees it: after each measurement the study says whether the trial goes on."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.study import Study


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # Tune knows schedulers by their base class
    """Runs trials in order and stops one when the study, told of every measurement, says so."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._study = study

    def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the measurement on; answer stop or continue."""
        if "measurement" not in result:
            return str(TrialScheduler.CONTINUE)
        said = json.loads(result["measurement"])
        stop = self._study.report(trial.config["number"], said["epoch"], said["metrics"], said["seconds"])
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its schedulers; this one's memory is the journal
