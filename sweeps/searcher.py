"""The search as Ray Tune sees it: the study is asked for trials, and told how they ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from sweeps.control_answers import Answers
from sweeps.study import Asked, Study


class StudySearcher(Searcher):  # type: ignore[misc]  # Tune knows searchers by their base class
    """Hands out the study's trials and closes them.

    Args:
        study: asked and told; its journal is the only memory, so saving and restoring do nothing.
        order: makes what the worker gets of what the study asked: plain JSON values.
        may_start: False once no trial may start.
        may_go_on: False once those that run are to be left unfinished.
        answers: what is done about failures.
        measure: told of the measurements that came with an outcome.
        told: called after each ask and each tell, when the study may have finished trials.
    """

    def __init__(
        self,
        study: Study,
        order: Callable[[Asked], dict[str, Any]],
        may_start: Callable[[], bool],
        may_go_on: Callable[[], bool],
        answers: Answers,
        measure: Callable[[int, str], object],
        told: Callable[[], None],
    ) -> None:
        super().__init__()
        self._study = study
        self._order = order
        self._may_start = may_start
        self._may_go_on = may_go_on
        self._answers = answers
        self._measure = measure
        self._told = told
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's order, or that there is none; None while one that runs may have to be tried again."""
        if not self._may_start():
            return str(Searcher.FINISHED)
        asked = self._study.ask()
        self._told()
        if asked is None:
            return None if self._study.has_live else str(Searcher.FINISHED)
        self._numbers[trial_id] = asked.number
        return self._order(asked)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial, unless it is to be left unfinished."""
        number = self._numbers.pop(trial_id, None)
        if number is not None and self._study.is_live(number):
            self._close(number, result or {}, error)
        elif number is not None:
            self._answers.finished(number)
        self._told()

    def _close(self, number: int, result: Mapping[str, Any], error: bool) -> None:
        if error and self._may_go_on():
            self._answers.died(number)
        elif "outcome" in result:
            self._complete(number, json.loads(result["outcome"]), result.get("measurements", "[]"))
            self._answers.finished(number)
        elif "failure" in result:
            self._answers.reported(number, result["failure"])
        elif self._study.should_be_pruned(number):
            self._study.tell_pruned(number)
            self._answers.finished(number)
        elif self._may_go_on():
            self._study.tell_failed(number, "It ended without an outcome.", "bug")

    def _complete(self, number: int, outcome: dict[str, Any], measurements: str) -> None:
        """Close the trial, unless a metric of its last epochs was not finite and has closed it."""
        self._measure(number, measurements)
        if self._study.is_live(number):
            self._study.tell_complete(
                number, outcome.pop("metrics"), outcome.pop("epochs"), outcome.pop("seconds"), outcome
            )

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
