"""Derived trials: settings that a trial answers on its way become trials of the study, and cost nothing."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import helpers
from helpers import ask, asked_of, rewrite_journal, study_spec

from carcls.config import TrialConfig
from sweeps.spec.space import Choice, Range
from sweeps.study.records import read_history
from sweeps.study.sampling import Sampler
from sweeps.study.study import Asked, Study
from sweeps.trial import TrialRecord

# Two extractors, and twelve ways to ask their neighbours.
SEARCH = {
    "dropout": Choice((0.0, 0.5)),
    "k": Choice((1, 3, 5, 7, 10, 20)),
    "distance": Choice(("euclidean", "cosine")),
}
DROPOUTS = Choice(tuple(step / 100 for step in range(50)))
spec_of = partial(study_spec, family="retrieval", trials=24, config={"unfreezing": "full"}, search=SEARCH)


def accuracy(config: TrialConfig) -> float:
    """An accuracy that depends on extractor, k and distance, and is never the same twice."""
    return 0.5 + config.dropout / 10 - config.k / 1000 + (config.distance == "cosine") / 50


def answers_of(config: TrialConfig) -> list[dict[str, Any]]:
    """Return what a neighbour search answers besides: every k, distance and vote."""
    found = []
    for k, distance, vote in product(range(1, 21), ("euclidean", "cosine"), ("uniform", "distance", "softmax")):
        settings = {"k": k, "distance": distance, "vote": vote}
        other = config.model_copy(update=settings)
        if other.digest != config.digest:
            found.append({"settings": settings, "metrics": {"val_accuracy": accuracy(other)}})
    return found


def complete(study: Study, asked: Asked) -> None:
    """Close a trial with all its answers."""
    more = {"model": f"embeddings/{asked.number}", "derived": answers_of(asked.config)}
    helpers.complete(study, asked, {"val_accuracy": accuracy(asked.config)}, **more)


def run(study: Study) -> list[Asked]:
    """Complete all that the study still owes."""
    done = []
    for asked in asked_of(study):
        complete(study, asked)
        done.append(asked)
    return done


def test_two_extractors_are_two_trials_whatever_is_asked_of_their_neighbours(tmp_path: Path) -> None:
    """24 combinations of 2 extractors with 12 neighbour settings: 2 trials run, and 22 are derived from them.

    Each has its own settings and metrics, takes no time, and leads to what its parent trained.
    """
    with Study.open(tmp_path, spec_of()) as study:
        done = run(study)
        records = study.records()
    assert len({asked.config.dropout for asked in done}) == len(done) == 2
    assert len({record.trial_config.digest for record in records}) == len(records) == 24
    derived = [record for record in records if record.derived_from is not None]
    assert len(derived) == 22
    for record in derived:
        config = record.trial_config
        assert (record.status, record.model, record.seconds) == ("complete", f"embeddings/{record.derived_from}", 0.0)
        assert record.metrics == {"val_accuracy": accuracy(config)}
        assert record.settings == {"dropout": config.dropout, "k": config.k, "distance": config.distance}


def test_derived_trials_cost_no_budget(tmp_path: Path) -> None:
    """A budget of five trials with many values of dropout runs five trials."""
    with Study.open(tmp_path, spec_of(search={**SEARCH, "dropout": DROPOUTS}, trials=5)) as study:
        assert len(run(study)) == 5
        assert len(study.records()) == 5 * 12


def test_only_what_the_sweep_searches_is_derived(tmp_path: Path) -> None:
    """A vote that is not searched and a k outside of its domain are left out."""
    search = {"dropout": Choice((0.0, 0.5)), "k": Range(2, 4, step=1)}
    with Study.open(tmp_path, spec_of(search=search)) as study:
        complete(study, ask(study))
        assert sorted(record.config["k"] for record in study.records()) == [2, 3, 4]
        assert {record.config["vote"] for record in study.records()} == {"uniform"}


def test_a_documented_experiment_is_always_run(tmp_path: Path) -> None:
    """The second documented experiment differs from the first in k alone, and keeps its own row."""
    names = ("retrieval/resnet50-k3-euclidean", "retrieval/resnet50-k10-euclidean")
    with Study.open(tmp_path, spec_of(experiments=names, trials=3, search={"k": Choice((3, 5, 10))})) as study:
        done = run(study)
        records = study.records()
    assert [asked.experiment for asked in done[:2]] == list(names)
    assert [record.config["k"] for record in records if record.experiment] == [3, 10]
    assert [record.config["k"] for record in records if record.derived_from == 0] == [5]


def test_derived_trials_are_stored_once_and_numbered_as_if_each_had_a_line(tmp_path: Path) -> None:
    """The parent's end lists them; whoever opens or reads the journal finds the same numbers and goes on after them."""
    with Study.open(tmp_path, spec_of()) as study:
        complete(study, ask(study))
        assert [record.number for record in study.take_finished()] == [*range(1, 12), 0]
        lines = (tmp_path / "study.journal").read_text().splitlines()
        assert sum('"vote":' in line for line in lines) == 1  # that of asking: each setting and metric is in one line
        complete(study, ask(study))
        everything = study.records()
    assert [record.derived_from for record in everything] == [None, *[0] * 11, None, *[12] * 11]
    assert [record.number for record in everything] == list(range(24))
    with Study.open(tmp_path, spec_of()) as study:
        assert study.records() == everything == list(read_history(tmp_path).records)
        assert study.ask() is None


def test_derived_trials_of_older_journals_are_read_and_gone_on_from(tmp_path: Path) -> None:
    """Each had a line of its own, and its parent's end a list of all that was answered; nothing is read twice."""
    with Study.open(tmp_path, spec_of()) as study:
        asked = ask(study)
        complete(study, asked)
        everything = study.records()
    rewrite_journal(tmp_path, lambda logs: as_before(logs, everything))
    assert [(r.number, r.settings, r.metrics, r.model, r.reason) for r in read_history(tmp_path).records] == [
        (r.number, r.settings, r.metrics, r.model, "") for r in everything
    ]
    with Study.open(tmp_path, spec_of()) as study:
        (other,) = run(study)
        assert (other.number, len(study.records())) == (12, 24)
        assert other.config.dropout != asked.config.dropout


def as_before(logs: list[dict[str, Any]], records: list[TrialRecord]) -> list[dict[str, Any]]:
    """Return the lines as older versions wrote them: a line for each derived trial, no numbers."""
    for log in logs:
        log.get("user_attrs", {}).get("asked", {}).pop("number", None)
        outcome = log.get("user_attr", {}).get("outcome", {})
        outcome |= {"siblings": outcome.pop("derived")} if outcome else {}
    created, found = next(log for log in logs if "user_attrs" in log), list(logs)
    for record in (record for record in records if record.derived_from is not None):
        asked = {"experiment": None, "settings": record.settings, "config": record.config}
        asked |= {"digest": record.trial_config.digest, "sibling_of": record.derived_from}
        outcome = {"status": "complete", "metrics": record.metrics, "model": record.model, "epochs": record.epochs}
        outcome |= {"reason": f"answered by trial {record.derived_from}"}
        found.append({**created, "user_attrs": {"asked": asked, "outcome": outcome}})
    return found


def test_the_sampler_sees_the_best_derived_trial_of_each_only(tmp_path: Path) -> None:
    """Hundreds of answers of one network would outweigh all else: draws are equal with and without the lesser ones."""
    search = {**SEARCH, "dropout": Range(0.0, 0.5), "k": Range(1, 20, step=1)}
    with Study.open(tmp_path, spec_of(search=search, trials=12)) as study:
        run(study)
        records = study.records()
    best = {record.derived_from: record for record in sorted(records, key=lambda r: r.metrics["val_accuracy"])}
    fewer = [record for record in records if record.derived_from is None or record is best[record.derived_from]]
    assert len(fewer) < len(records) / 5
    for number in range(5):
        assert Sampler(search, 0).draw(records, number) == Sampler(search, 0).draw(fewer, number)


def test_nothing_is_derived_from_what_was_not_run(tmp_path: Path) -> None:
    """A near-duplicate takes over a result, not what else was answered: no derived trial has another one's dropout."""
    search = {"dropout": Range(0.0, 0.5), "k": Range(1, 20, step=1)}
    with Study.open(tmp_path, spec_of(search=search, trials=12, near=0.1)) as study:
        run(study)
        records = {record.number: record for record in study.records()}
    derived = [record for record in records.values() if record.derived_from is not None]
    assert any(record.duplicates for record in records.values())
    assert all(records[d.derived_from or 0].config["dropout"] == d.config["dropout"] for d in derived)


def test_what_nobody_has_answered_is_found_where_the_sampler_repeats_itself(tmp_path: Path) -> None:
    """In a space of twenty networks with forty answers each, a budget of more than twenty trials runs every one."""
    search = {"dropout": Choice(DROPOUTS.choices[:20]), "k": Range(1, 20, step=1)}
    with Study.open(tmp_path, spec_of(search=search, trials=25)) as study:
        done = run(study)
    assert len({asked.config.dropout for asked in done}) == len(done) == 20
