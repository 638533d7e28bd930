"""Who wins, and which settings the leaderboard shows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from helpers import trial_record

from carcls.config import TrialConfig
from sweeps.results.leaderboard import Leaderboard, differing_settings, find_best, varying_settings
from sweeps.spec.objectives import ACCURACY_ALONE, Goals
from sweeps.trial import Duplicate, TrialRecord

BASE = TrialConfig().model_dump()
LIMITED = Goals.parse(["accuracy", "predict_time"], ["parameters <= 10M"])
base_trial = partial(trial_record, config={"dropout": BASE["dropout"]})


def costly(number: int, accuracy: float, milliseconds: float = 1.0, parameters: float = 1e6) -> TrialRecord:
    """Return a complete trial with the costs of its answers."""
    return base_trial(
        number, None, metrics={"val_accuracy": accuracy, "predict_ms": milliseconds, "parameters": parameters}
    )


def board_of(*trials: TrialRecord, goals: Goals = ACCURACY_ALONE) -> Leaderboard:
    """Return the leaderboard of trials that were validated on a hundred images."""
    return Leaderboard(trials, BASE, 100, goals)


def test_complete_trials_stand_before_infeasible_pruned_and_failed_ones_and_have_ranks() -> None:
    """A stopped trial never outranks a complete one; equal accuracies go to the lower loss, then the lower number."""
    close = base_trial(6, None, metrics={"val_accuracy": 0.4, "val_loss": 0.9})
    tied = [base_trial(number, None, metrics={"val_accuracy": 0.4, "val_loss": 1.0}) for number in (4, 3)]
    others = [base_trial(0, None, status="failed"), base_trial(1, 0.9, status="pruned"), base_trial(2, 0.2)]
    rows = board_of(*others, *tied, close).rows
    assert [(row.trial.number, row.rank) for row in rows] == [(6, 1), (3, 2), (4, 3), (2, 4), (1, None), (0, None)]
    assert find_best([*others, *tied, close]) is rows[0].trial
    rows = board_of(costly(0, 0.9, 1.0, 2e7), costly(1, 0.5, 9.0), costly(2, 0.7, 9.0), goals=LIMITED).rows
    assert [(row.trial.number, row.rank, row.infeasible) for row in rows] == [
        (2, 1, ""),
        (1, 2, ""),
        (0, None, "parameters 20.0M > 10.0M"),
    ]


@pytest.mark.parametrize(
    ("trials", "constraints"),
    [
        ([base_trial(0, None, status="failed"), base_trial(1, 0.5, status="pruned")], []),
        ([base_trial(0, float("nan"))], []),
        ([base_trial(0, 0.9)], ["predict_ms <= 5"]),
        ([costly(0, 0.9, parameters=2e7)], ["parameters <= 10M"]),
    ],
    ids=["none complete", "NaN is no accuracy", "a limit that is not known", "a broken limit"],
)
def test_where_there_is_no_winner(trials: list[TrialRecord], constraints: list[str]) -> None:
    """Nothing is registered that did not end, has no accuracy, or may break a limit."""
    assert find_best(trials, Goals.parse(["accuracy"], constraints)) is None


def test_the_first_objective_decides() -> None:
    """With time first the fastest wins, and its ties go to the better accuracy."""
    best = find_best(
        [costly(0, 0.9, 8.0), costly(1, 0.5, 2.0), costly(2, 0.6, 2.0)], Goals.parse(["predict_time", "accuracy"], [])
    )
    assert best is not None
    assert best.number == 2


def test_twins_are_marked_on_the_row_that_answers_them() -> None:
    """A trial that was not run has no row: its number is on the row of the trial whose result it took over."""
    twins = (Duplicate(4, False, {"dropout": 0.5}), Duplicate(6, True, {"dropout": 0.501}))
    rows = board_of(base_trial(0, 0.5), base_trial(1, 0.6, duplicates=twins)).as_dict()["rows"]
    assert [(row["number"], row["twins"]) for row in rows] == [
        (1, [{"number": twin.number, "near": twin.near, "settings": twin.settings} for twin in twins]),
        (0, []),
    ]


def test_settings_that_cannot_matter_are_not_shown() -> None:
    """The backbone's learning rate is not shown for a frozen backbone, and is for an open one.

    Of several trials those settings vary in which two differ; the seed is none.
    """
    assert "backbone_lr" not in differing_settings({**BASE, "backbone_lr": 0.5}, BASE)
    shown = differing_settings({**BASE, "backbone_lr": 0.5, "unfreezing": "full"}, BASE)
    assert shown == {"unfreezing": "full", "backbone_lr": 0.5}
    trials = [trial_record(number, 0.1, config={"epochs": 3, "seed": number}) for number in (1, 2)]
    assert varying_settings([board_of(*trials)]) == ("dropout",)


def test_half_width_is_that_of_the_wilson_interval() -> None:
    """An accuracy of 50% on 100 images is known to ±9.6 points; without images its worth is unknown."""
    assert board_of(base_trial(0, 0.5)).rows[0].half_width == pytest.approx(0.0962, abs=1e-4)
    assert Leaderboard((base_trial(0, 0.5),), BASE).rows[0].half_width is None


def test_the_front_is_marked_where_there_are_several_objectives() -> None:
    """Trials that nothing beats in everything are on the front, derived ones too; with one objective there is none."""
    trials = [costly(0, 0.9, 8.0), replace(costly(1, 0.5, 2.0), derived_from=0), costly(2, 0.5, 3.0)]
    assert board_of(*trials, goals=LIMITED).pareto == (0, 1)
    assert board_of(*trials).pareto == ()
    assert {row.trial.number for row in board_of(*trials, goals=LIMITED).shown} == {0, 1, 2}


def test_of_a_trial_and_those_derived_from_it_the_best_is_shown() -> None:
    """And documented experiments; the rows that stay have ranks 1, 2, 3, and all are in the rows."""
    derived = [base_trial(number, 0.9 - number / 100, derived_from=number % 2) for number in range(3, 30)]
    documented = [base_trial(1, 0.3, experiment="a"), base_trial(2, 0.1, experiment="b")]
    board = board_of(base_trial(0, 0.95), *documented, base_trial(30, 0.05, derived_from=2), *derived)
    assert [(row.trial.number, row.rank) for row in board.shown] == [(0, 1), (3, 2), (1, 3), (2, 4)]
    assert len(board.rows) == 31
