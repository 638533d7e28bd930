"""The search as Optuna's own pages get it."""

from __future__ import annotations

from dataclasses import replace

import optuna
from helpers import study_spec
from optuna.trial import TrialState
from tracked import record

from sweeps.study.dashboard import add_ended


def test_the_search_is_a_study_of_optunas_own() -> None:
    """Ended trials are there once, with values, curves and states; a value that is searched no more is left out."""
    study, spec, known = optuna.create_study(direction="maximize"), study_spec(), set[int]()
    trials = [record(0, "complete"), record(1, "pruned"), record(2, "failed", accuracies=()), record(3)]
    trials.append(replace(record(4, "complete"), settings={"dropout": 0.9, "k": 5}))
    add_ended(study, trials, spec, known)
    add_ended(study, [*trials[:3], replace(trials[3], status="complete"), trials[4]], spec, known)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in study.trials] == states
    assert [trial.user_attrs["trial"] for trial in study.trials] == [0, 1, 2, 4, 3]
    assert study.trials[0].value == 0.5
    assert study.trials[1].intermediate_values == {1: 0.25, 2: 0.5}
    drawn = [trial.params.get("dropout") for trial in study.trials]
    assert drawn == [0.0, 0.1, 0.2, None, 0.1 * 3]
