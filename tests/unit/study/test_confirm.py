"""What fresh seeds make of the best trials: who is repeated, who wins, and what is left of the winner's luck."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

import pytest
from helpers import spec_of_yaml
from rich.console import Console

from carcls.config import TrialConfig
from carcls.errors import SpecError
from sweeps.cli.view import SweepView
from sweeps.results.leaderboard import Leaderboard, find_best
from sweeps.run.check import claim_folder
from sweeps.run.command import specs_of_all
from sweeps.run.session import repeats_wanted
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.confirmation import confirmed_of, fresh_seeds, typical_run
from sweeps.trial import TrialRecord


def record(number: int, accuracy: float | None, **changes: Any) -> TrialRecord:
    """Return a complete trial whose dropout, unless it has other settings, is its number's; with changes."""
    config = TrialConfig.model_validate({"dropout": number / 100, **changes.pop("settings", {})}).model_dump()
    metrics = {} if accuracy is None else {"val_accuracy": accuracy}
    fields: dict[str, Any] = {"status": "complete", "metrics": metrics, "epochs": 1, "seconds": 1.0, **changes}
    return TrialRecord(number=number, experiment=None, settings={}, config=config, **fields)


def fresh(number: int, accuracy: float | None, confirms: int, **changes: Any) -> TrialRecord:
    """Return a run with a fresh seed."""
    return record(number, accuracy, confirms=confirms, **changes)


def spec_of(confirm: str | None) -> SweepSpec:
    """Return a sweep that confirms."""
    return SweepSpec(family="transfer", confirm=confirm)


@pytest.mark.parametrize("text", ["3", "0x3", "3x0", "3by3", "3x3x3", "-1x2", "100x1", " 3x3", "3×3"])
def test_what_is_no_extent_is_refused_with_the_form(text: str) -> None:
    """A wrong --confirm is a mistake of the user's, told before anything runs."""
    with pytest.raises(SpecError, match="confirm: must be NxM"):
        load_spec("transfer", overrides={"confirm": text})


def test_how_a_winner_is_chosen_is_written_down_and_no_part_of_the_digest() -> None:
    """A sweep that is done can be confirmed, or refitted, by the same command with the option."""
    spec = SweepSpec(family="transfer", confirm="3x3", refit=True)
    assert spec_of_yaml(spec.to_yaml()) == spec
    assert spec.digest == spec_of(None).digest


def test_fresh_seeds_differ_and_follow_from_seed_and_training_alone() -> None:
    """None is the search's; the same come again, more begin with the fewer, what trains alike shares its trainings."""
    for seed in range(50):
        seeds = fresh_seeds(seed, TrialConfig(seed=seed), 20)
        assert len({*seeds, seed}) == 21
        assert all(0 <= one < 2**31 for one in seeds)
    config = TrialConfig(dropout=0.3)
    assert fresh_seeds(0, config, 3) == fresh_seeds(0, config, 5)[:3]
    assert not set(fresh_seeds(0, config, 3)) & set(fresh_seeds(1, config, 3))
    assert not set(fresh_seeds(0, config, 3)) & set(fresh_seeds(0, TrialConfig(dropout=0.2), 3))
    one = TrialConfig(family="retrieval", unfreezing="full", k=3)
    assert fresh_seeds(0, one, 3) == fresh_seeds(0, one.model_copy(update={"k": 7}), 3)


NEIGHBOURS = [
    record(0, 0.6, settings={"family": "retrieval", "k": 1}),
    record(1, 0.8, settings={"family": "retrieval", "k": 2}, sibling_of=0),
    record(2, 0.7, settings={"family": "retrieval", "k": 3}, sibling_of=0),
    record(3, 0.5, settings={"family": "retrieval", "k": 4}),
]
SAME = {"dropout": 0.0, "backbone_lr": 0.5}  # frozen: that rate means nothing


@pytest.mark.parametrize(
    ("confirm", "records", "chosen"),
    [
        pytest.param("2x1", [record(0, 0.5), record(1, 0.7), record(2, 0.8)], [2, 1], id="the best, best first"),
        pytest.param("2x2", [record(0, 0.5), record(1, 0.7)], [1, 1, 0, 0], id="each as often as asked"),
        pytest.param("9x1", [record(0, 0.5), record(1, 0.6)], [1, 0], id="fewer than asked are all"),
        pytest.param("1x1", [record(0, 0.5), record(1, 0.9, status="pruned")], [0], id="only complete ones"),
        pytest.param(
            "2x1", [record(0, 0.8), record(1, 0.7, settings=SAME), record(2, 0.1)], [0, 2], id="no settings twice"
        ),
        pytest.param("2x1", NEIGHBOURS, [1, 3], id="of a trial and its siblings the best"),
        pytest.param("2x1", [record(0, 0.5), fresh(1, 0.9, 0), record(2, 0.4)], [0, 2], id="no run with a fresh seed"),
        pytest.param(None, [record(0, 0.5)], [], id="nothing unasked"),
    ],
)
def test_which_trials_are_repeated(confirm: str | None, records: list[TrialRecord], chosen: list[int]) -> None:
    """Each by its own settings, with another seed each time."""
    repeats = repeats_wanted(spec_of(confirm), records)
    assert [repeat.confirms for repeat in repeats] == chosen
    for repeat in repeats:
        assert repeat.config.model_dump() == {**records[repeat.confirms].config, "seed": repeat.config.seed}
    assert len({(repeat.confirms, repeat.config.seed) for repeat in repeats}) == len(repeats)
    assert all(repeat.config.seed != 0 for repeat in repeats)


@pytest.mark.parametrize("scores", [[0.61, 0.64, 0.58], [0.6]])
def test_numbers_of_fresh_seeds_are_those_of_the_statistics_module(scores: list[float]) -> None:
    """Mean, spread and shrinkage; a standard deviation of one number is unknown, not zero."""
    (one,) = confirmed_of([record(0, 0.7), *(fresh(i + 1, score, 0) for i, score in enumerate(scores))])
    assert (one.number, one.asked, one.search) == (0, len(scores), 0.7)
    assert one.runs == tuple(range(1, len(scores) + 1))
    assert one.mean == pytest.approx(statistics.mean(scores))
    assert one.spread == (pytest.approx(statistics.stdev(scores)) if len(scores) > 1 else None)
    assert one.shrinkage == pytest.approx(statistics.mean(scores) - 0.7)


def test_the_winner_is_chosen_by_fresh_seeds_only() -> None:
    """The lucky one of the search loses to who is good again and again; who has a run that failed stands behind.

    The mean of those runs that went well would be luck again; of one of which no run finished nothing is confirmed.
    """
    trials = [record(0, 0.9), record(1, 0.8), fresh(2, 0.6, 0), fresh(3, 0.62, 0), fresh(4, 0.79, 1), fresh(5, 0.75, 1)]
    winner = Leaderboard(tuple(trials)).best_confirmed
    assert winner is not None
    assert winner.number == 1
    failed = [record(0, 0.9), record(1, 0.8), fresh(2, 0.9, 0), fresh(3, None, 0, status="failed"), fresh(4, 0.7, 1)]
    assert [(one.number, one.is_whole) for one in confirmed_of(failed)] == [(1, True), (0, False)]
    assert Leaderboard((failed[0], failed[3])).best_confirmed is None
    assert find_best([record(0, 0.5), fresh(1, 0.9, 0)]) == record(0, 0.5)


def test_the_registered_run_is_the_one_nearest_to_the_mean() -> None:
    """Neither the best of the fresh runs, which was lucky, nor the worst; ties go to the lower number."""
    trials = [record(0, 0.9), fresh(1, 0.5, 0), fresh(2, 0.71, 0), fresh(3, 0.8, 0)]
    (one,) = confirmed_of(trials)
    assert typical_run(one, trials).number == 2
    two = [record(0, 0.9), fresh(1, 0.5, 0), fresh(2, 0.7, 0)]
    assert typical_run(confirmed_of(two)[0], two).number == 1


def test_leaderboard_puts_confirmed_trials_first_and_keeps_their_runs_inside() -> None:
    """Ranks follow the means of fresh seeds, then the search; a fresh run has no row."""
    trials = [record(0, 0.9), record(1, 0.8), record(2, 0.85), fresh(3, 0.6, 0), fresh(4, 0.7, 1)]
    board = Leaderboard(tuple(trials), TrialConfig().model_dump(), 100)
    assert [(row.rank, row.trial.number) for row in board.rows] == [(1, 1), (2, 0), (3, 2)]
    assert [None if row.confirmed is None else row.confirmed.mean for row in board.rows] == [0.7, 0.6, None]
    assert board.rows[0].trial.metrics["val_accuracy"] == 0.8
    assert board.best is trials[4]  # stands for trial 1, in the result as in the status


def test_once_confirm_was_taken_back_the_search_chooses() -> None:
    """Fresh runs are still there, and a trial of the search that was not repeated may win."""
    board = Leaderboard((record(0, 0.9), record(1, 0.8), fresh(2, 0.95, 1)), by_seeds=False)
    assert board.best is board.trials[0]
    assert board.confirmed == ()
    assert [(row.rank, row.trial.number) for row in board.rows] == [(1, 0), (2, 1)]


def test_a_command_that_goes_on_keeps_the_choice_of_the_sweep(tmp_path: Path) -> None:
    """Who says nothing of --confirm does not crown an unconfirmed winner; who says another extent gets that."""
    spec, other = SweepSpec(family="transfer", name="mine"), SweepSpec(family="transfer", name="mine", confirm="2x5")
    assert claim_folder(spec, tmp_path) == spec
    write_file(tmp_path / "mine", "sweep", None, [spec.model_copy(update={"confirm": "3x3", "refit": True})])
    assert claim_folder(spec, tmp_path) == SweepSpec(family="transfer", name="mine", confirm="3x3", refit=True)
    assert claim_folder(other, tmp_path).confirm == "2x5"


def test_every_family_of_a_job_is_confirmed() -> None:
    """run all --confirm reaches all three families."""
    specs = specs_of_all(name="all", sets=(), overrides={"confirm": "2x2", "refit": True}, trials=None)
    assert [(spec.confirm, spec.refit) for spec in specs] == [("2x2", True)] * 3


def test_a_running_sweep_calls_confirming_runs_by_what_they_confirm() -> None:
    """A run names the trial that it confirms, and counts among the trials to come."""
    begun = fresh(1, 0.9, 0, status="running")
    view = SweepView(SweepSpec(family="transfer", trials=1, confirm="1x1"), Console(file=io.StringIO()))
    assert begun.name == "confirms trial 0"
    assert view.how_far().startswith("0 of 2 trials")
