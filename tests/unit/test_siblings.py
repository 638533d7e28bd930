"""Settings that a trial answers on its way become trials of the study, and cost nothing."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from carcls.config import TrialConfig
from sweeps.leaderboard import condensed, make_leaderboard
from sweeps.space import Choice, FloatDomain, IntDomain
from sweeps.spec import SweepSpec
from sweeps.spec_stopping import EarlyStopping
from sweeps.study import Asked, Study
from sweeps.study_parts import to_distribution
from sweeps.study_sampling import draw

KS, DISTANCES = (1, 3, 10), ("euclidean", "cosine")
VOTES = ("uniform", "distance", "softmax")


def spec_of(**changes: Any) -> SweepSpec:
    """Two extractors, and twelve ways to ask their neighbours."""
    fields: dict[str, Any] = {
        "family": "retrieval",
        "trials": 24,
        "config": {"unfreezing": "full"},
        "search": {
            "dropout": Choice((0.0, 0.5)),
            "k": Choice((1, 3, 5, 7, 10, 20)),
            "distance": Choice(("euclidean", "cosine")),
        },
        "early_stopping": EarlyStopping(enabled=False),
    }
    return SweepSpec.model_validate({**fields, **changes})


def accuracy(config: TrialConfig) -> float:
    """An accuracy that depends on extractor, k and distance, and is never the same twice."""
    return 0.5 + config.dropout / 10 - config.k / 1000 + (config.distance == "cosine") / 50


def siblings_of(config: TrialConfig, most: int = 20) -> list[dict[str, Any]]:
    """Return what a neighbour search answers besides: every k, distance and vote."""
    found = []
    for k, distance, vote in product(range(1, most + 1), DISTANCES, VOTES):
        other = config.with_settings({"k": k, "distance": distance, "vote": vote})
        if other.digest != config.digest:
            settings = {"k": k, "distance": distance, "vote": vote}
            found.append({"settings": settings, "metrics": {"val_accuracy": accuracy(other)}})
    return found


def complete(study: Study, asked: Asked) -> None:
    """Close a trial with all its siblings."""
    more = {"model": f"embeddings/{asked.number}", "siblings": siblings_of(asked.config)}
    study.tell_complete(asked.number, {"val_accuracy": accuracy(asked.config)}, 2, 1.0, more)


def run(study: Study) -> list[Asked]:
    """Complete all that the study still owes."""
    done = []
    while (asked := study.ask()) is not None:
        complete(study, asked)
        done.append(asked)
    return done


def test_two_extractors_are_two_trials_whatever_is_asked_of_their_neighbours(tmp_path: Path) -> None:
    """24 combinations of 2 extractors with 12 neighbour settings: 2 trials run, and 22 are answered on the way."""
    with Study.open(tmp_path, spec_of()) as study:
        done = run(study)
        records = study.records()
    assert len({asked.config.dropout for asked in done}) == len(done) == 2
    assert len(records) == 24
    assert sum(record.sibling_of is not None for record in records) == 22
    assert len({TrialConfig.model_validate(dict(record.config)).digest for record in records}) == 24


def test_siblings_are_complete_trials_with_their_parents_model(tmp_path: Path) -> None:
    """A sibling carries its own settings and metrics, takes no time, and leads to what its parent trained."""
    with Study.open(tmp_path, spec_of()) as study:
        asked = study.ask()
        assert asked is not None
        complete(study, asked)
        siblings = [record for record in study.records() if record.sibling_of == asked.number]
    assert len(siblings) == 11
    for record in siblings:
        config = TrialConfig.model_validate(dict(record.config))
        assert (record.status, record.model, record.seconds) == ("complete", f"embeddings/{asked.number}", 0.0)
        assert record.metrics == {"val_accuracy": accuracy(config)}
        assert record.settings == {"dropout": asked.config.dropout, "k": config.k, "distance": config.distance}


def test_only_what_the_sweep_searches_becomes_a_sibling(tmp_path: Path) -> None:
    """A vote that is not searched and a k outside of its domain are left out."""
    search = {"dropout": Choice((0.0, 0.5)), "k": IntDomain(2, 4)}
    with Study.open(tmp_path, spec_of(search=search)) as study:
        asked = study.ask()
        assert asked is not None
        complete(study, asked)
        found = [record.config for record in study.records() if record.sibling_of is not None]
    assert sorted([asked.config.k, *(config["k"] for config in found)]) == [2, 3, 4]
    assert {config["vote"] for config in found} == {"uniform"}


def test_siblings_cost_no_budget(tmp_path: Path) -> None:
    """A budget of five trials with many values of dropout runs five trials."""
    search = {**spec_of().search, "dropout": Choice(tuple(step / 100 for step in range(50)))}
    with Study.open(tmp_path, spec_of(search=search, trials=5)) as study:
        assert len(run(study)) == 5
        assert len(study.records()) == 5 * 12


def test_a_documented_experiment_is_never_answered_by_a_sibling(tmp_path: Path) -> None:
    """The second documented experiment differs from the first in k alone, and keeps its own row."""
    names = ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean")
    with Study.open(tmp_path, spec_of(experiments=names, trials=3, search={"k": Choice((3, 5, 10))})) as study:
        done = run(study)
        records = study.records()
    assert [asked.experiment for asked in done[:2]] == list(names)
    assert [record.config["k"] for record in records if record.experiment] == [3, 10]
    assert [record.config["k"] for record in records if record.sibling_of == 0] == [5]


def test_siblings_lost_between_their_parent_and_themselves_come_back_once(tmp_path: Path) -> None:
    """A driver that dies while it tells siblings leaves some; the next one adds the rest and doubles none."""
    with Study.open(tmp_path, spec_of()) as study:
        asked = study.ask()
        assert asked is not None
        complete(study, asked)
        everything = [(record.number, record.config) for record in study.records()]
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-5]))
    for _ in range(2):
        with Study.open(tmp_path, spec_of()) as study:
            assert [(record.number, record.config) for record in study.records()] == everything


def test_starts_are_run_after_the_experiments_and_once(tmp_path: Path) -> None:
    """A start may lie outside of the search space, comes before the search, and is not run again after a restart."""
    spec = spec_of(
        experiments=("retrieval/resnet50-k3-euclidean",),
        starts=({"dropout": 0.33, "epochs": 4},),
        trials=4,
        search={**spec_of().search, "dropout": Choice(tuple(step / 100 for step in range(30)))},
    )
    with Study.open(tmp_path, spec) as study:
        first, second = study.ask(), study.ask()
        assert first is not None
        assert second is not None
        assert (first.experiment, second.experiment) == ("retrieval/resnet50-k3-euclidean", None)
        assert (second.config.dropout, second.config.epochs) == (0.33, 4)
        complete(study, first)
        complete(study, second)
    with Study.open(tmp_path, spec) as study:
        rest = run(study)
    assert len(rest) == 2
    assert all(asked.config.dropout != 0.33 for asked in rest)


def test_the_leaderboard_shows_the_best_of_each_trial_and_its_siblings(tmp_path: Path) -> None:
    """All are ranked; condensed, each search and its siblings are one row, and experiments keep theirs."""
    names = ("retrieval/resnet50-k3-euclidean",)
    with Study.open(tmp_path, spec_of(experiments=names, trials=2)) as study:
        run(study)
        trials = study.records()
    base = spec_of().trial_config({}).model_dump()
    board = make_leaderboard(trials, base=base, validation_images=100)
    rows = condensed(board.rows)
    assert len(board.rows) == len(trials) > 20
    assert [row.experiment for row in rows if row.experiment] == list(names)
    assert len(rows) <= 3
    assert rows[0] == board.rows[0]


def test_the_sampler_sees_the_best_sibling_of_each_trial_only(tmp_path: Path) -> None:
    """Hundreds of answers of one network would outweigh all else: draws are equal with and without the lesser ones."""
    search = {**spec_of().search, "dropout": FloatDomain(0.0, 0.5), "k": IntDomain(1, 20)}
    with Study.open(tmp_path, spec_of(search=search, trials=12)) as study:
        run(study)
        trials = study._book.known()
    siblings = [trial for trial in trials if "sibling_of" in trial.user_attrs["asked"]]
    best: dict[int, Any] = {}
    for trial in siblings:
        parent = trial.user_attrs["asked"]["sibling_of"]
        if parent not in best or trial.value > best[parent].value:
            best[parent] = trial
    fewer = [trial for trial in trials if trial not in siblings or trial in best.values()]
    assert len(fewer) < len(trials) / 5
    distributions = {name: to_distribution(domain) for name, domain in search.items()}
    for number in range(5):
        assert draw(trials, distributions, 0, number) == draw(fewer, distributions, 0, number)


def test_what_nobody_has_answered_is_found_where_the_sampler_repeats_itself(tmp_path: Path) -> None:
    """In a space of twenty networks with forty answers each, a budget of more than twenty trials runs every one."""
    search = {"dropout": Choice(tuple(step / 100 for step in range(20))), "k": IntDomain(1, 20)}
    with Study.open(tmp_path, spec_of(search=search, trials=25)) as study:
        done = run(study)
    assert len({asked.config.dropout for asked in done}) == len(done) == 20
