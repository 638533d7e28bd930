"""Who wins, and which settings the leaderboard shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from carcls.config import TrialConfig
from sweeps.results.leaderboard import Leaderboard, differing_settings, find_best, varying_settings
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.trial import Status, TrialRecord, Twin

BASE = TrialConfig().model_dump()


def trial(number: int, accuracy: float | None, status: Status = "complete", **settings: Any) -> TrialRecord:
    """Return a trial with a loss of 1."""
    metrics = {} if accuracy is None else {"val_accuracy": accuracy, "val_loss": 1.0}
    return TrialRecord(number, None, {}, {**BASE, **settings}, status, metrics, 2, 1.0)


def board_of(*trials: TrialRecord, goals: Goals = ACCURACY_ALONE) -> Leaderboard:
    """Return the leaderboard of trials that were validated on a hundred images."""
    return Leaderboard(trials, BASE, 100, goals)


def test_complete_trials_stand_before_infeasible_pruned_and_failed_ones_and_have_ranks() -> None:
    """A stopped trial never outranks a complete one; equal accuracies go to the lower loss, then the lower number."""
    close = replace(trial(6, 0.4), metrics={"val_accuracy": 0.4, "val_loss": 0.9})
    trials = [trial(0, None, "failed"), trial(1, 0.9, "pruned"), trial(2, 0.2), trial(4, 0.4), trial(3, 0.4), close]
    rows = board_of(*trials).rows
    assert [(row.trial.number, row.rank) for row in rows] == [(6, 1), (3, 2), (4, 3), (2, 4), (1, None), (0, None)]
    assert find_best(trials) is rows[0].trial


@pytest.mark.parametrize(
    ("trials", "constraints"),
    [
        ([trial(0, None, "failed"), trial(1, 0.5, "pruned")], []),
        ([trial(0, float("nan"))], []),
        ([trial(0, 0.9)], ["predict_ms <= 5"]),
        ([replace(trial(0, 0.9), metrics={"val_accuracy": 0.9, "parameters": 2e7})], ["parameters <= 10M"]),
    ],
    ids=["none complete", "NaN is no accuracy", "a limit that is not known", "a broken limit"],
)
def test_where_there_is_no_winner(trials: list[TrialRecord], constraints: list[str]) -> None:
    """Nothing is registered that did not end, has no accuracy, or may break a limit."""
    assert find_best(trials, Goals.parse(["accuracy"], constraints)) is None


def test_twins_are_marked_on_the_row_that_answers_them() -> None:
    """A trial that was not run has no row: its number is on the row of the trial whose result it took over."""
    twins = (Twin(4, False, {"dropout": 0.5}), Twin(6, True, {"dropout": 0.501}))
    trials = (trial(0, 0.5), replace(trial(1, 0.6), twins=twins))
    board = board_of(*trials)
    assert [(row.trial.number, row.trial.twins) for row in board.rows] == [(1, twins), (0, ())]
    assert board.as_dict()["rows"][0]["twins"] == [
        {"number": 4, "near": False, "settings": {"dropout": 0.5}},
        {"number": 6, "near": True, "settings": {"dropout": 0.501}},
    ]


def test_settings_that_cannot_matter_are_not_shown() -> None:
    """The backbone's learning rate is not shown for a frozen backbone, and is for an open one."""
    assert "backbone_lr" not in differing_settings({**BASE, "backbone_lr": 0.5}, BASE)
    shown = differing_settings({**BASE, "backbone_lr": 0.5, "unfreezing": "full"}, BASE)
    assert shown == {"unfreezing": "full", "backbone_lr": 0.5}


def test_varying_settings_are_those_in_which_trials_differ() -> None:
    """A setting that all trials share is no column, and neither is the seed."""
    trials = [trial(0, 0.1, dropout=0.1, epochs=3, seed=1), trial(1, 0.2, dropout=0.2, epochs=3, seed=2)]
    assert varying_settings([board_of(*trials)]) == ("dropout",)


def test_half_width_is_that_of_the_wilson_interval() -> None:
    """An accuracy of 50% on 100 images is known to ±9.6 points; without images its worth is unknown."""
    (row,) = board_of(trial(0, 0.5)).rows
    assert row.half_width == pytest.approx(0.0962, abs=1e-4)
    (row,) = Leaderboard((trial(0, 0.5),), BASE).rows
    assert row.half_width is None


LIMITED = Goals.parse(["accuracy", "predict_time"], ["parameters <= 10M"])


def costly(number: int, accuracy: float, milliseconds: float, parameters: float = 1e6) -> TrialRecord:
    """Return a complete trial with the costs of its answers."""
    plain = trial(number, accuracy)
    return replace(plain, metrics={**plain.metrics, "predict_ms": milliseconds, "parameters": parameters})


def test_an_infeasible_trial_never_wins() -> None:
    """The most accurate trial stands below the feasible ones, without a rank, when it breaks a limit."""
    trials = [costly(0, 0.9, 1.0, 2e7), costly(1, 0.5, 9.0), costly(2, 0.7, 9.0)]
    best = find_best(trials, LIMITED)
    assert best is not None
    assert best.number == 2
    rows = board_of(*trials, goals=LIMITED).rows
    assert [(row.trial.number, row.rank, row.infeasible) for row in rows] == [
        (2, 1, ""),
        (1, 2, ""),
        (0, None, "parameters 20.0M > 10.0M"),
    ]


def test_the_first_objective_decides() -> None:
    """With time first the fastest wins, and its ties go to the better accuracy."""
    trials = [costly(0, 0.9, 8.0), costly(1, 0.5, 2.0), costly(2, 0.6, 2.0)]
    best = find_best(trials, Goals.parse(["predict_time", "accuracy"], []))
    assert best is not None
    assert best.number == 2


def test_the_front_is_marked_where_there_are_several_objectives() -> None:
    """Trials that nothing beats in everything are on the front, siblings too; with one objective there is none."""
    trials = [costly(0, 0.9, 8.0), replace(costly(1, 0.5, 2.0), sibling_of=0), costly(2, 0.5, 3.0)]
    assert board_of(*trials, goals=LIMITED).pareto == (0, 1)
    assert board_of(*trials).pareto == ()
    assert {row.trial.number for row in board_of(*trials, goals=LIMITED).shown} == {0, 1, 2}


def test_of_a_trial_and_its_siblings_the_best_is_shown() -> None:
    """And documented experiments; the rows that stay have ranks 1, 2, 3, and all are in the rows."""
    siblings = [replace(trial(number, 0.9 - number / 100), sibling_of=number % 2) for number in range(3, 30)]
    documented = replace(trial(2, 0.1), experiment="transfer/frozen")
    worse = replace(trial(30, 0.05), sibling_of=2)
    board = board_of(
        trial(0, 0.95), replace(trial(1, 0.3), experiment="transfer/finetuned"), documented, worse, *siblings
    )
    assert [(row.trial.number, row.rank) for row in board.shown] == [(0, 1), (3, 2), (1, 3), (2, 4)]
    assert len(board.rows) == 31
