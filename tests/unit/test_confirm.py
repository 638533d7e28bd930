"""What fresh seeds make of the best trials: who is repeated, who wins, and what is left of the winner's luck."""

from __future__ import annotations

import io
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import spec_of_yaml
from rich.console import Console

from carcls.config import TrialConfig
from carcls.errors import SpecError
from sweeps.cli.view import SweepView
from sweeps.results.leaderboard import Leaderboard, find_best
from sweeps.run.check import claim_folder
from sweeps.run.command import specs_of_all
from sweeps.run.winner import repeats_wanted
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.confirmation import confirmed_of, fresh_seeds, typical_run
from sweeps.trial import Status, TrialRecord

BASE = TrialConfig().model_dump()


def trial(number: int, accuracy: float | None, confirms: int | None = None, status: Status = "complete") -> TrialRecord:
    """Return a trial, of the search or with a fresh seed."""
    metrics = {} if accuracy is None else {"val_accuracy": accuracy}
    config = {**BASE, "dropout": number / 100}
    return TrialRecord(number, None, {}, config, status, metrics, 1, 1.0, confirms=confirms)


def record(number: int, accuracy: float, **changes: Any) -> TrialRecord:
    """Return a complete trial whose settings are its number's."""
    fields: dict[str, Any] = {"dropout": number / 100, **changes.pop("settings", {})}
    config = TrialConfig.model_validate(fields).model_dump()
    return TrialRecord(number, None, {}, config, "complete", {"val_accuracy": accuracy}, 1, 1.0, **changes)


def spec_of(confirm: str | None) -> SweepSpec:
    """Return a sweep that confirms."""
    return SweepSpec(family="transfer", confirm=confirm)


@pytest.mark.parametrize("text", ["3", "0x3", "3x0", "3by3", "3x3x3", "-1x2", "100x1", " 3x3", "3×3"])
def test_what_is_no_extent_is_refused_with_the_form(text: str) -> None:
    """A wrong --confirm is a mistake of the user's, told before anything runs."""
    with pytest.raises(SpecError, match="confirm: must be NxM"):
        load_spec("transfer", overrides={"confirm": text})


def test_how_a_winner_is_chosen_is_no_part_of_the_digest() -> None:
    """A sweep that is done can be confirmed, or refitted, by the same command with the option."""
    assert spec_of("3x3").digest == spec_of(None).digest == SweepSpec(family="transfer", refit=True).digest


def test_choice_survives_the_spec_file() -> None:
    """What is written to spec.yaml is read back equal."""
    spec = SweepSpec(family="transfer", confirm="3x3", refit=True)
    assert spec_of_yaml(spec.to_yaml()) == spec


def test_fresh_seeds_differ_from_each_other_and_from_the_searchs() -> None:
    """No run repeats another one, and none the run that was chosen."""
    for seed in range(50):
        seeds = fresh_seeds(seed, TrialConfig(seed=seed), 20)
        assert len({*seeds, seed}) == 21
        assert all(0 <= fresh < 2**31 for fresh in seeds)


def test_fresh_seeds_follow_from_seed_and_training_alone() -> None:
    """The same ones come again; other trainings get others; more of them begin with the fewer."""
    config = TrialConfig(dropout=0.3)
    assert fresh_seeds(0, config, 3) == fresh_seeds(0, config, 5)[:3]
    assert not set(fresh_seeds(0, config, 3)) & set(fresh_seeds(1, config, 3))
    assert not set(fresh_seeds(0, config, 3)) & set(fresh_seeds(0, TrialConfig(dropout=0.2), 3))


def test_trials_that_train_alike_share_their_fresh_trainings() -> None:
    """Retrieval with another k is the same extractor, also with fresh seeds."""
    one = TrialConfig(family="retrieval", unfreezing="full", k=3)
    assert fresh_seeds(0, one, 3) == fresh_seeds(0, one.model_copy(update={"k": 7}), 3)


def test_the_best_trials_are_repeated_best_first() -> None:
    """2x3 repeats the two best complete trials three times each, with their settings and other seeds."""
    records = [record(0, 0.5), record(1, 0.7), record(2, 0.9), record(3, 0.8)]
    records[2] = replace(records[2], status="pruned")
    repeats = repeats_wanted(spec_of("2x3"), records)
    assert [repeat.confirms for repeat in repeats] == [3, 3, 3, 1, 1, 1]
    assert {repeat.config.dropout for repeat in repeats} == {0.03, 0.01}
    assert len({repeat.config.seed for repeat in repeats}) == 6


def test_of_a_trial_and_its_siblings_the_best_is_the_candidate() -> None:
    """A sibling is repeated by its own settings, and does not crowd out other networks."""
    own = {"family": "retrieval"}
    records = [
        record(0, 0.6, settings={**own, "k": 1}),
        record(1, 0.8, settings={**own, "dropout": 0.0, "k": 2}, sibling_of=0),
        record(2, 0.7, settings={**own, "dropout": 0.0, "k": 3}, sibling_of=0),
        record(3, 0.5, settings={**own, "k": 4}),
    ]
    repeats = repeats_wanted(SweepSpec(family="retrieval", confirm="2x1"), records)
    assert [(repeat.confirms, repeat.config.k) for repeat in repeats] == [(1, 2), (3, 4)]


def test_equal_settings_are_one_candidate() -> None:
    """Two trials that differ in nothing that matters are repeated once."""
    same = record(1, 0.7, settings={"dropout": 0.0, "backbone_lr": 0.5})  # frozen: that rate means nothing
    repeats = repeats_wanted(spec_of("2x1"), [record(0, 0.8), same, record(2, 0.1)])
    assert [repeat.confirms for repeat in repeats] == [0, 2]


def test_confirming_runs_are_no_candidates() -> None:
    """A lucky run with a fresh seed does not enter the search by the back door."""
    records = [record(0, 0.5), record(1, 0.9, settings={"seed": 7}, confirms=0), record(2, 0.4)]
    assert [repeat.confirms for repeat in repeats_wanted(spec_of("2x1"), records)] == [0, 2]


def test_fewer_trials_than_asked_are_all_repeated() -> None:
    """9x2 of two trials is two trials."""
    assert len(repeats_wanted(spec_of("9x2"), [record(0, 0.5), record(1, 0.6)])) == 4


def test_nothing_is_repeated_unasked() -> None:
    """Without --confirm there is nothing to run after the search."""
    assert repeats_wanted(spec_of(None), [record(0, 0.5)]) == []


def test_numbers_of_fresh_seeds_are_those_of_the_statistics_module() -> None:
    """Mean, spread and shrinkage of three runs."""
    scores = [0.61, 0.64, 0.58]
    (one,) = confirmed_of([trial(0, 0.7), *(trial(i + 1, score, 0) for i, score in enumerate(scores))])
    assert (one.number, one.asked, one.runs, one.search) == (0, 3, (1, 2, 3), 0.7)
    assert one.mean == pytest.approx(statistics.mean(scores))
    assert one.spread == pytest.approx(statistics.stdev(scores))
    assert one.shrinkage == pytest.approx(statistics.mean(scores) - 0.7)


def test_one_run_has_no_spread() -> None:
    """A standard deviation of one number is unknown, not zero."""
    (one,) = confirmed_of([trial(0, 0.7), trial(1, 0.6, 0)])
    assert one.spread is None
    assert one.mean == 0.6


def test_the_winner_is_chosen_by_fresh_seeds_only() -> None:
    """The trial with the lucky score in the search loses to the one that is good again and again."""
    trials = [trial(0, 0.9), trial(1, 0.8), trial(2, 0.6, 0), trial(3, 0.62, 0), trial(4, 0.79, 1), trial(5, 0.75, 1)]
    winner = Leaderboard(tuple(trials)).best_confirmed
    assert winner is not None
    assert winner.number == 1


def test_a_trial_of_which_a_run_failed_stands_behind_whole_ones() -> None:
    """The mean of those runs that went well would be luck again."""
    trials = [
        *(trial(0, 0.9), trial(1, 0.8)),
        *(trial(2, 0.9, 0), trial(3, None, 0, "failed"), trial(4, 0.7, 1), trial(5, 0.7, 1)),
    ]
    confirmed = confirmed_of(trials)
    assert [(one.number, one.is_whole) for one in confirmed] == [(1, True), (0, False)]


def test_no_finished_run_confirms_nothing() -> None:
    """When every run with a fresh seed failed, there is no winner by them."""
    assert Leaderboard((trial(0, 0.9), trial(1, None, 0, "failed"))).best_confirmed is None


def test_the_registered_run_is_the_one_nearest_to_the_mean() -> None:
    """Neither the best of the fresh runs, which was lucky, nor the worst; ties go to the lower number."""
    trials = [trial(0, 0.9), trial(1, 0.5, 0), trial(2, 0.71, 0), trial(3, 0.8, 0)]
    (one,) = confirmed_of(trials)
    assert typical_run(one, trials).number == 2
    two = [trial(0, 0.9), trial(1, 0.5, 0), trial(2, 0.7, 0)]
    assert typical_run(confirmed_of(two)[0], two).number == 1


def test_leaderboard_puts_confirmed_trials_first_and_keeps_their_runs_inside() -> None:
    """Ranks follow the means of fresh seeds, then the search; a fresh run has no row."""
    trials = [trial(0, 0.9), trial(1, 0.8), trial(2, 0.85), trial(3, 0.6, 0), trial(4, 0.7, 1)]
    board = Leaderboard(tuple(trials), BASE, 100)
    assert [(row.rank, row.trial.number) for row in board.rows] == [(1, 1), (2, 0), (3, 2)]
    assert [None if row.confirmed is None else row.confirmed.mean for row in board.rows] == [0.7, 0.6, None]
    assert board.rows[0].trial.metrics["val_accuracy"] == 0.8
    assert board.best is trials[4]  # stands for trial 1, in the result as in the status


def test_without_confirmation_fresh_runs_change_nothing() -> None:
    """The best of the search is the best, whatever a run with a fresh seed has scored."""
    best = find_best([trial(0, 0.5), trial(1, 0.9, 0)])
    assert best is not None
    assert best.number == 0


def test_the_luck_of_the_best_of_thirty_equal_trials_is_gone_after_confirmation() -> None:
    """Thirty settings are equally good (70%), each run is off by 2 points: the best search score lies about two
    standard deviations too high, its fresh seeds at the truth, and the shrinkage is that luck.
    """
    rng = np.random.default_rng(0)
    winners, means, shrinkages = [], [], []
    for _ in range(300):
        search = [trial(number, float(score)) for number, score in enumerate(rng.normal(0.70, 0.02, 30))]
        best = sorted(search, key=lambda one: -one.metrics["val_accuracy"])[:3]
        fresh = [
            trial(100 + 10 * place + run, float(rng.normal(0.70, 0.02)), one.number)
            for place, one in enumerate(best)
            for run in range(3)
        ]
        confirmed = {one.number: one for one in confirmed_of([*search, *fresh])}
        top = confirmed[best[0].number]
        assert top.mean is not None
        assert top.shrinkage is not None
        winners.append(top.search)
        means.append(top.mean)
        shrinkages.append(top.shrinkage)
    assert np.mean(winners) == pytest.approx(0.70 + 2.04 * 0.02, abs=0.002)  # expected largest of 30 normal draws
    assert np.mean(means) == pytest.approx(0.70, abs=0.002)
    assert np.mean(shrinkages) == pytest.approx(-2.04 * 0.02, abs=0.003)


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
    """A run names the trial that it confirms, counts among the trials to come, and is never the best of the search."""
    begun = replace(record(1, 0.9, confirms=0), status="running")
    view = SweepView(SweepSpec(family="transfer", trials=1, confirm="1x1"), Console(file=io.StringIO()))
    assert begun.name == "confirms trial 0"
    assert view.how_far().startswith("0 of 2 trials")
    won = record(0, 0.5)
    assert find_best([won, record(1, 0.9, confirms=0)]) is won
