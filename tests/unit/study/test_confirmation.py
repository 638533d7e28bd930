"""What fresh seeds make of the best trials: who is repeated, who wins, and what is left of the winner's luck."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ask, complete, run_study, spec_of_yaml, study_spec
from helpers import trial_record as record

from carcls.config import TrialConfig
from carcls.errors import SpecError
from carcls.outcome import Measurement
from sweeps.results.leaderboard import Leaderboard, find_best
from sweeps.run.check import claim_folder
from sweeps.run.command import specs_of_all
from sweeps.run.session import repeats_wanted
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.loading import load_spec
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file
from sweeps.study.confirmation import confirmed_of, fresh_seeds, repeats_of, typical_run
from sweeps.study.study import Asked, Study
from sweeps.trial import TrialRecord

# Four searched trials, of which the two best get two fresh seeds.
spec_of = partial(study_spec, trials=4, confirm="2x2")


def fresh(number: int, accuracy: float | None, confirms: int, **changes: Any) -> TrialRecord:
    """Return a run with a fresh seed."""
    return record(number, accuracy, confirms=confirms, **changes)


@pytest.mark.parametrize("text", ["3", "0x3", "3x0", "3by3", "3x3x3", "-1x2", "100x1", " 3x3", "3×3"])
def test_what_is_no_extent_is_refused_with_the_form(text: str) -> None:
    """A wrong --confirm is a mistake of the user's, told before anything runs."""
    with pytest.raises(SpecError, match="confirm: must be NxM"):
        load_spec("transfer", overrides={"confirm": text})


def test_how_a_winner_is_chosen_stays_with_the_sweep_and_is_no_part_of_its_digest(tmp_path: Path) -> None:
    """It is written down; a command that says nothing of it keeps the choice, one that says another extent gets that.

    So a sweep that is done can be confirmed, or refitted, by the same command with the option; run all confirms each.
    """
    plain = SweepSpec(family="transfer", name="mine")
    chosen = plain.model_copy(update={"confirm": "3x3", "refit": True})
    assert spec_of_yaml(chosen.to_yaml()) == chosen
    assert chosen.digest == plain.digest
    assert claim_folder(plain, tmp_path) == plain
    write_file(tmp_path / "mine", "sweep", None, [chosen])
    assert claim_folder(plain, tmp_path) == chosen
    assert claim_folder(plain.model_copy(update={"confirm": "2x5"}), tmp_path).confirm == "2x5"
    specs = specs_of_all(name="all", sets=(), overrides={"confirm": "2x2", "refit": True}, trials=None)
    assert [(spec.confirm, spec.refit) for spec in specs] == [("2x2", True)] * 3


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
    record(0, 0.6, config={"family": "retrieval", "k": 1}),
    record(1, 0.8, config={"family": "retrieval", "k": 2}, derived_from=0),
    record(2, 0.7, config={"family": "retrieval", "k": 3}, derived_from=0),
    record(3, 0.5, config={"family": "retrieval", "k": 4}),
]
SAME = {"dropout": 0.0, "backbone_lr": 0.5}  # frozen: that rate means nothing


@pytest.mark.parametrize(
    ("confirm", "records", "chosen"),
    [
        pytest.param("2x2", [record(0, 0.5), record(1, 0.7), record(2, 0.8)], [2, 2, 1, 1], id="the best, best first"),
        pytest.param("9x1", [record(0, 0.5), record(1, 0.6)], [1, 0], id="fewer than asked are all"),
        pytest.param("1x1", [record(0, 0.5), record(1, 0.9, status="pruned")], [0], id="only complete ones"),
        pytest.param("2x1", [record(0, 0.8), record(1, 0.7, config=SAME), record(2, 0.1)], [0, 2], id="others"),
        pytest.param("2x1", NEIGHBOURS, [1, 3], id="of a trial and those derived from it the best"),
        pytest.param("2x1", [record(0, 0.5), fresh(1, 0.9, 0), record(2, 0.4)], [0, 2], id="no run with a fresh seed"),
        pytest.param(None, [record(0, 0.5)], [], id="nothing unasked"),
    ],
)
def test_which_trials_are_repeated(confirm: str | None, records: list[TrialRecord], chosen: list[int]) -> None:
    """Each by its own settings, with another seed each time."""
    repeats = repeats_wanted(SweepSpec(family="transfer", confirm=confirm), records)
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
    trials = [record(0, 0.9), record(1, 0.8), record(2, 0.85), fresh(3, 0.6, 0), fresh(4, 0.7, 1)]
    board = Leaderboard(tuple(trials))
    assert [(row.rank, row.trial.number) for row in board.rows] == [(1, 1), (2, 0), (3, 2)]
    assert [None if row.confirmed is None else row.confirmed.mean for row in board.rows] == [0.7, 0.6, None]
    assert board.rows[0].trial.metrics["val_accuracy"] == 0.8
    assert board.best is trials[4]  # stands for trial 1, in the result as in the status
    failed = [record(0, 0.9), record(1, 0.8), fresh(2, 0.9, 0), fresh(3, None, 0, status="failed"), fresh(4, 0.7, 1)]
    assert [(one.number, one.is_whole) for one in confirmed_of(failed)] == [(1, True), (0, False)]
    assert Leaderboard((failed[0], failed[3])).best_confirmed is None
    assert find_best([record(0, 0.5), fresh(1, 0.9, 0)]) == record(0, 0.5)


def test_the_registered_run_is_the_one_nearest_to_the_mean() -> None:
    """Neither the best of the fresh runs, which was lucky, nor the worst; ties go to the lower number."""
    for scores, number in ((0.5, 0.71, 0.8), 2), ((0.5, 0.7), 1):
        trials = [record(0, 0.9), *(fresh(i, score, 0) for i, score in enumerate(scores, start=1))]
        assert typical_run(confirmed_of(trials)[0], trials).number == number


def test_once_confirm_was_taken_back_the_search_chooses() -> None:
    """Fresh runs are still there, and a trial of the search that was not repeated may win."""
    board = Leaderboard((record(0, 0.9), record(1, 0.8), fresh(2, 0.95, 1)), by_seeds=False)
    assert board.best is board.trials[0]
    assert board.confirmed == ()
    assert [(row.rank, row.trial.number) for row in board.rows] == [(1, 0), (2, 1)]


def by_dropout(asked: Asked) -> dict[str, float]:
    """The less dropout, the better."""
    return {"val_accuracy": 1 - asked.config.dropout}


def searched(folder: Path, spec: SweepSpec) -> Study:
    """Run the search to its end; leave the study open."""
    study = Study.open(folder, spec)
    run_study(study, by_dropout)
    return study


def confirming(folder: Path, spec: SweepSpec) -> Study:
    """Run the search to its end, and begin to confirm it."""
    study = searched(folder, spec)
    assert study.confirm(repeats_wanted(spec, study.records()))
    return study


def test_confirming_runs_follow_the_search_and_cost_nothing_of_it(tmp_path: Path) -> None:
    """Four runs come after four trials, name what they confirm, and leave the budget as it was."""
    spec = spec_of()
    with searched(tmp_path, spec) as study:
        assert study.ask() is None
        repeats = repeats_wanted(spec, study.records())
        assert study.confirm(repeats)
        assert [ask(study).config for _ in range(4)] == [repeat.config for repeat in repeats]
        assert study.ask() is None
        assert study.left() == 0
        records = study.records()[4:]
    assert [(r.confirms, r.config["seed"]) for r in records] == [(one.confirms, one.config.seed) for one in repeats]
    assert {r.name for r in records} == {f"confirms trial {one.confirms}" for one in repeats}


def test_a_killed_driver_repeats_only_what_is_missing(tmp_path: Path) -> None:
    """Of four runs one is complete and one was begun: the next driver gets that one first, then two more."""
    spec = spec_of()
    with confirming(tmp_path, spec) as study:
        first, begun = ask(study), ask(study)
        study.tell_complete(first.number, {"metrics": {"val_accuracy": 0.5}, "epochs": 1})
    with Study.open(tmp_path, spec) as study:
        assert not study.has_work
        assert study.ask() is None
        assert study.confirm(repeats_wanted(spec, study.records()))
        rest = [asked.number for asked in run_study(study, lambda _: {"val_accuracy": 0.5})]
        assert rest[0] == begun.number
        assert len(rest) == 3
    with Study.open(tmp_path, spec) as study:
        assert not study.confirm(repeats_wanted(spec, study.records()))


def test_a_trial_that_the_hours_leave_is_owed_after_the_confirmation(tmp_path: Path) -> None:
    """It came back when no trial of the search could start any more: whoever asks is told that there is more to run."""
    with Study.open(tmp_path, spec_of(trials=2)) as study:
        complete(study, ask(study), {"val_accuracy": 0.5})
        study.hand_back(ask(study).number, counted=False)
        study.confirm(repeats_of(0, TrialConfig(), 0, 1))
        run_study(study, by_dropout)
        assert study.has_work


def test_a_run_that_was_begun_is_ended_though_others_are_the_best_by_now(tmp_path: Path) -> None:
    """Else the sweep would stay unfinished for ever."""
    with confirming(tmp_path, spec_of()) as study:
        begun = ask(study)
    spec = spec_of(trials=6)
    with Study.open(tmp_path, spec, edits=[]) as study:
        run_study(study, lambda _: {"val_accuracy": 1.0})
        repeats = repeats_wanted(spec, study.records())
        assert begun.config.digest not in {repeat.config.digest for repeat in repeats}
        assert study.confirm(repeats)
        assert ask(study).number == begun.number
        assert len([ask(study) for _ in range(4)]) == 4
        assert study.ask() is None


def test_confirming_runs_are_never_pruned_and_prune_nobody(tmp_path: Path) -> None:
    """A poor first epoch stops no run with a fresh seed, and good ones of theirs stop no trial of the search."""
    with confirming(tmp_path, spec_of(config={"epochs": 3})) as study:
        for accuracy in (0.0, 1.0, 1.0, 1.0):
            asked = ask(study)
            assert not study.report(asked.number, Measurement(1, {"val_accuracy": accuracy}))
            study.tell_complete(asked.number, {"metrics": {"val_accuracy": 1.0}, "epochs": 3})
    # The best in two goes on: 0.9 is second to none of the search, but would be fourth to the runs with fresh seeds.
    stopping = EarlyStopping(min_epochs=1, reduction=2)
    with Study.open(tmp_path, spec_of(config={"epochs": 3}, trials=5, early_stopping=stopping), edits=[]) as study:
        assert not study.report(ask(study).number, Measurement(1, {"val_accuracy": 0.999}))


def test_the_search_goes_on_as_if_nothing_was_confirmed(tmp_path: Path) -> None:
    """A sweep that is extended after its confirmation draws by its search alone."""
    drawn: list[object] = []
    for folder, repeats in (tmp_path / "one", []), (tmp_path / "other", repeats_of(0, TrialConfig(dropout=0.49), 0, 3)):
        with searched(folder, spec_of()) as study:
            study.confirm(repeats)
            run_study(study, lambda _: {"val_accuracy": 1.0})
        with Study.open(folder, spec_of(trials=5)) as study:
            drawn.append(ask(study).settings)
            assert study.left() == 0
    assert drawn[0] == drawn[1]


def test_nothing_is_derived_from_a_confirming_run(tmp_path: Path) -> None:
    """What a run with a fresh seed answers on its way becomes no trial."""
    spec = spec_of(family="retrieval", search={"k": Range(1, 9, step=1)}, confirm="1x1")
    with confirming(tmp_path, spec) as study:
        before = study.records()
        derived = {"settings": {"k": 9}, "metrics": {"val_accuracy": 1.0}}
        study.tell_complete(ask(study).number, {"metrics": {"val_accuracy": 0.5}, "epochs": 1, "derived": [derived]})
    with Study.open(tmp_path, spec) as study:
        assert study.records()[:-1] == before
        assert all(record.config["k"] != 9 for record in study.records())


@pytest.mark.parametrize("experiment", ["transfer/frozen-augmented", "transfer/finetuned"])
def test_what_is_logged_of_a_confirming_run_is_what_runs(tmp_path: Path, experiment: str) -> None:
    """Its settings give its config back, seed and documented settings included."""
    spec = spec_of(trials=1, experiments=(experiment,), confirm="1x1", fixed={"epochs": 2, "dropout": 0.11})
    with confirming(tmp_path, spec) as study:
        asked = ask(study)
    assert asked.experiment is None
    assert spec.trial_config(asked.settings, asked.experiment) == asked.config
    assert asked.config.epochs == 2
