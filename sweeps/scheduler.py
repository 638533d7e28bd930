"""Early stopping as Ray Tune sees it: after each measurement the study says whether the trial goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.control_answers import Answers
from sweeps.failures import Place
from sweeps.study import Study


def last_words(trial: Any) -> str:
    """Return what Ray says of the last death of a trial's process; Tune keeps that in a file, death after death."""
    try:
        said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
    return said.rpartition("Failure # ")[2]


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # Tune knows schedulers by their base class
    """Runs trials in order and stops one when the study, told of every measurement, says so.

    Args:
        study: told and asked.
        may_go_on: False once a trial that has just reported is to be left as it is.
        answers: told where trials run, that they get on, and that their processes died.
    """

    def __init__(self, study: Study, may_go_on: Callable[[], bool], answers: Answers) -> None:
        super().__init__()
        self._study = study
        self._answers = answers
        self._may_go_on = may_go_on

    def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the measurement on; answer stop or continue."""
        if "place" in result:
            self._answers.note_place(trial.config["number"], Place(**json.loads(result["place"])))
        if "measurement" not in result:
            return str(TrialScheduler.CONTINUE)
        said = json.loads(result["measurement"])
        self._answers.note_epoch(trial.config["number"])
        stop = self._study.report(trial.config["number"], said["epoch"], said["metrics"], said["seconds"])
        return str(TrialScheduler.STOP if stop or not self._may_go_on() else TrialScheduler.CONTINUE)

    def on_trial_error(self, _controller: Any, trial: Any) -> None:
        """Pass on why the trial's process died."""
        self._answers.note_death(trial.config["number"], last_words(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its schedulers; this one's memory is the journal
