"""Confirming runs in the durable study, without Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import helpers
import pytest
from helpers import ask, asked_of, run_study, study_spec

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.run.session import repeats_wanted
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.study.confirmation import Repeat, repeats_of
from sweeps.study.study import Asked, Study

# Four searched trials, of which the two best get two fresh seeds.
spec_of = partial(study_spec, trials=4, confirm="2x2")


def complete(study: Study, asked: Asked, accuracy: float | None = None) -> None:
    """Close the trial; the less dropout, the better it is."""
    helpers.complete(study, asked, {"val_accuracy": 1 - asked.config.dropout if accuracy is None else accuracy})


def search(folder: Path, spec: SweepSpec) -> Study:
    """Run the search to its end; leave the study open."""
    study = Study.open(folder, spec)
    for asked in asked_of(study):
        complete(study, asked)
    return study


def wanted(study: Study, spec: SweepSpec) -> list[Repeat]:
    """Return the runs that confirm what is in the study."""
    return repeats_wanted(spec, study.records())


def test_confirming_runs_follow_the_search_and_cost_nothing_of_it(tmp_path: Path) -> None:
    """Four runs come after four trials, name what they confirm, and leave the budget as it was."""
    spec = spec_of()
    with search(tmp_path, spec) as study:
        assert study.ask() is None
        repeats = wanted(study, spec)
        assert study.confirm(repeats)
        asked = [study.ask() for _ in range(4)]
        assert study.ask() is None
        assert [one.config for one in asked if one] == [repeat.config for repeat in repeats]
        assert study.left() == 0
        records = study.records()
    assert [record.confirms for record in records[4:]] == [repeat.confirms for repeat in repeats]
    assert all(record.config["seed"] == repeat.config.seed for record, repeat in zip(records[4:], repeats, strict=True))


def test_a_killed_driver_repeats_only_what_is_missing(tmp_path: Path) -> None:
    """Of four runs one is complete and one was begun: the next driver gets that one first, then two more."""
    spec = spec_of()
    with search(tmp_path, spec) as study:
        study.confirm(wanted(study, spec))
        first, begun = ask(study), ask(study)
        complete(study, first, 0.5)
    with Study.open(tmp_path, spec) as study:
        assert not study.has_work
        assert study.ask() is None
        assert study.confirm(wanted(study, spec))
        rest = [asked.number for asked in run_study(study, lambda _: {"val_accuracy": 0.5})]
        assert rest[0] == begun.number
        assert len(rest) == 3
    with Study.open(tmp_path, spec) as study:
        assert not study.confirm(wanted(study, spec))


def test_a_run_that_was_begun_is_ended_though_others_are_the_best_by_now(tmp_path: Path) -> None:
    """Else the sweep would stay unfinished for ever."""
    with search(tmp_path, spec_of()) as study:
        study.confirm(wanted(study, spec_of()))
        begun = ask(study)
    spec = spec_of(trials=6)
    with Study.open(tmp_path, spec, edits=[]) as study:
        run_study(study, lambda _: {"val_accuracy": 1.0})
        repeats = wanted(study, spec)
        assert begun.config.digest not in {repeat.config.digest for repeat in repeats}
        assert study.confirm(repeats)
        again = ask(study)
        assert again.number == begun.number
        assert len([study.ask() for _ in range(4)]) == 4
        assert study.ask() is None


def test_confirming_runs_are_never_pruned_and_prune_nobody(tmp_path: Path) -> None:
    """A poor first epoch stops no run with a fresh seed, and good ones of theirs stop no trial of the search."""
    spec = spec_of(config={"epochs": 3})
    with search(tmp_path, spec) as study:
        study.confirm(wanted(study, spec))
        asked = ask(study)
        assert not study.report(asked.number, Measurement(1, {"val_accuracy": 0.0}))
        study.tell_complete(asked.number, {"val_accuracy": 1.0}, 3, 1.0, {})
        for _ in range(3):
            other = ask(study)
            study.report(other.number, Measurement(1, {"val_accuracy": 1.0}))
            study.tell_complete(other.number, {"val_accuracy": 1.0}, 3, 1.0, {})
    # The best in two goes on: 0.9 is second to none of the search, but would be fourth to the runs with fresh seeds.
    stopping = EarlyStopping(min_epochs=1, reduction=2)
    with Study.open(tmp_path, spec_of(config={"epochs": 3}, trials=5, early_stopping=stopping), edits=[]) as study:
        more = ask(study)
        assert not study.report(more.number, Measurement(1, {"val_accuracy": 0.999}))


def test_the_search_goes_on_as_if_nothing_was_confirmed(tmp_path: Path) -> None:
    """A sweep that is extended after its confirmation draws by its search alone."""
    spec, more = spec_of(), spec_of(trials=5)
    best = TrialConfig.model_validate({"seed": 0, "dropout": 0.49})
    drawn: list[object] = []
    for folder, repeats in ((tmp_path / "one", []), (tmp_path / "other", repeats_of(0, best, 0, 3))):
        with search(folder, spec) as study:
            study.confirm(repeats)
            run_study(study, lambda _: {"val_accuracy": 1.0})
        with Study.open(folder, more) as study:
            asked = ask(study)
            drawn.append(asked.settings)
            assert study.left() == 0
    assert drawn[0] == drawn[1]


def test_siblings_of_a_confirming_run_are_told_to_nobody(tmp_path: Path) -> None:
    """What a run with a fresh seed answers on its way becomes no trial."""
    spec = spec_of(family="retrieval", search={"k": Range(1, 9, step=1)})
    with search(tmp_path, spec) as study:
        before = len(study.records())
        study.confirm(wanted(study, spec)[:1])
        asked = ask(study)
        sibling = {"settings": {"k": 9}, "metrics": {"val_accuracy": 1.0}}
        study.tell_complete(asked.number, {"val_accuracy": 0.5}, 1, 1.0, {"siblings": [sibling]})
        assert all(record.config["k"] != 9 for record in study.records())
        assert len(study.records()) == before + 1
    with Study.open(tmp_path, spec) as study:
        assert len(study.records()) == before + 1


@pytest.mark.parametrize("experiment", ["transfer/frozen-augmented", "transfer/finetuned"])
def test_what_is_logged_of_a_confirming_run_is_what_runs(tmp_path: Path, experiment: str) -> None:
    """Its settings give its config back, seed and documented settings included."""
    spec = spec_of(trials=1, experiments=(experiment,), confirm="1x1", fixed={"epochs": 2, "dropout": 0.11})
    with search(tmp_path, spec) as study:
        study.confirm(wanted(study, spec))
        asked = ask(study)
        assert asked.experiment is None
        assert spec.trial_config(asked.settings, asked.experiment) == asked.config
        assert asked.config.epochs == 2
