"""Early stopping as Ray Tune sees it: after each group of measurements the study says whether the trial goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.control_answers import Answers
from sweeps.failures import Place


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
        measure: told of every message with measurements; tells whether the trial should stop.
        may_go_on: False once a trial that has just reported is to be left as it is.
        answers: told where trials run, that they get on, and that their processes died.
    """

    def __init__(self, measure: Callable[[int, str], bool], may_go_on: Callable[[], bool], answers: Answers) -> None:
        super().__init__()
        self._measure = measure
        self._answers = answers
        self._may_go_on = may_go_on
        self._chosen: set[str] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the first trial that no process is being started for; None when there is one for each.

        Tune gives the process of a trial that ended to the trial chosen here, and ends the process that starts for that
        one. With trials shorter than the start of a process, all would run in the first process.
        """
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        fresh = [trial for trial in waiting if trial.trial_id not in self._chosen]
        if not fresh:
            return None
        first = min(fresh, key=lambda trial: trial.config["number"])
        self._chosen.add(first.trial_id)
        return first

    def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass the measurements on; answer stop or continue. The last message of a trial does not come here."""
        if "place" in result:
            place = Place(**json.loads(result["place"]))
            self._answers.note_place(trial.config["number"], place, trial.temporary_state.ray_actor)
        if "failure" in result:  # and the process ends itself
            self._answers.note_failure(trial.config["number"], result["failure"])
        if "measurements" not in result:
            return str(TrialScheduler.CONTINUE)
        self._answers.note_epoch(trial.config["number"])
        stop = self._measure(trial.config["number"], result["measurements"])
        return str(TrialScheduler.STOP if stop or not self._may_go_on() else TrialScheduler.CONTINUE)

    def on_trial_error(self, _controller: Any, trial: Any) -> None:
        """Pass on why the trial's process died."""
        self._answers.note_death(trial.config["number"], last_words(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its schedulers; this one's memory is the journal
