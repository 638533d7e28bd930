"""Several objectives and constraints in the durable study, without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from helpers import run_study, study_spec

from carcls.config import TrialConfig
from sweeps.spec.objectives import Goals
from sweeps.spec.space import Choice, Range
from sweeps.spec.spec import SweepSpec
from sweeps.study.study import Asked, Study

COSTS = {"resnet50": 23.9e6, "densenet121": 7.2e6}
SEEDS = 8


SEARCH = {"dropout": Range(0.0, 0.9), "label_smoothing": Range(0.0, 0.9)}
spec_of = partial(study_spec, trials=30, search=SEARCH, early_stopping={})


def by_backbone(config: TrialConfig) -> dict[str, float]:
    """Return what is known of a trial before it runs."""
    return {"parameters": COSTS[config.backbone]}


def run(study: Study, measure: Callable[[TrialConfig], dict[str, float]]) -> list[Asked]:
    """Complete all that the study owes with what ``measure`` says."""
    return run_study(study, lambda asked: measure(asked.config))


def toy(config: TrialConfig) -> dict[str, float]:
    """Accuracy and time both grow with dropout, so that the best is what the limit allows."""
    return {"val_accuracy": config.dropout, "predict_ms": 10 * config.dropout + config.label_smoothing}


def test_a_sampler_with_a_limit_draws_more_feasible_trials_than_chance(tmp_path: Path) -> None:
    """Over many seeds, more of the later draws keep predict_ms <= 2 than uniform draws would, or draws without it."""
    limit = ["predict_ms <= 2"]
    kept = {"limited": 0, "free": 0}
    for seed in range(SEEDS):
        for name, constraints in (("limited", limit), ("free", [])):
            with Study.open(tmp_path / f"{name}-{seed}", spec_of(seed=seed, constraints=constraints)) as study:
                late = run(study, toy)[10:]
            kept[name] += sum(toy(asked.config)["predict_ms"] <= 2 for asked in late)
    draws = random.Random(0)
    uniform = sum(10 * draws.uniform(0, 0.9) + draws.uniform(0, 0.9) <= 2 for _ in range(SEEDS * 20))
    assert kept["limited"] > 2 * uniform
    assert kept["limited"] > 4 * kept["free"]


def test_two_objectives_spread_over_the_front_where_one_climbs_to_its_end(tmp_path: Path) -> None:
    """With accuracy and time the search tries fast trials too; with accuracy alone it goes where that is highest."""
    fast = {}
    for objectives in (("accuracy",), ("accuracy", "predict_time")):
        count = 0
        for seed in range(SEEDS):
            with Study.open(tmp_path / f"{len(objectives)}-{seed}", spec_of(seed=seed, objectives=objectives)) as study:
                count += sum(asked.config.dropout < 0.45 for asked in run(study, toy)[10:])
        fast[objectives] = count
    assert fast["accuracy", "predict_time"] > 2 * fast[("accuracy",)]


def test_what_breaks_a_limit_is_not_run_and_costs_no_trial(tmp_path: Path) -> None:
    """A trial that is known to be too large is closed with its reason; the budget goes to trials that may win."""
    search = {"backbone": Choice(("resnet50", "densenet121")), "dropout": Range(0.0, 0.5)}
    spec = spec_of(trials=8, experiments=["transfer/frozen"], search=search, constraints=["parameters <= 10M"], seed=1)
    with Study.open(tmp_path, spec, costs=by_backbone) as study:
        done = run(study, toy)
        records = study.records()
    refused = [record for record in records if record.refused]
    assert {asked.config.backbone for asked in done} == {"densenet121"}
    assert len(done) == 8
    assert refused[0].experiment == "transfer/frozen"
    assert {(r.status, r.epochs, r.metrics["parameters"]) for r in refused} == {("pruned", 0, 23.9e6)}
    assert refused[0].reason == "not run, since it breaks a constraint: parameters 23.9M > 10.0M"


def test_where_no_trial_keeps_the_limit_the_sweep_ends_at_once_and_a_loosened_one_readmits(tmp_path: Path) -> None:
    """Nothing is run, and asking ends; a documented experiment that was refused is run when the limit is lifted."""
    spec = spec_of(trials=2, experiments=["transfer/frozen"], constraints=["parameters <= 10M"])
    with Study.open(tmp_path, spec, costs=by_backbone) as study:
        assert run(study, toy) == []
        assert all(record.refused for record in study.records())
    loose = spec.model_copy(update={"constraints": ("parameters <= 30M",)})
    with Study.open(tmp_path, loose, edits=["constraints"], costs=by_backbone) as study:
        assert [asked.experiment for asked in run(study, toy)] == ["transfer/frozen", None]


def test_trials_without_the_new_measures_do_not_stop_the_search(tmp_path: Path) -> None:
    """A journal from before predict_ms was measured can go on with it: old trials tell the sampler nothing."""
    spec = spec_of(trials=12)
    with Study.open(tmp_path, spec) as study:
        run(study, lambda config: {"val_accuracy": config.dropout})
    wider = SweepSpec.model_validate(
        {**spec.model_dump(), "search": spec.search, "trials": 16, "objectives": ("accuracy", "predict_time")}
        | {"constraints": ("predict_ms <= 5",)}
    )
    with Study.open(tmp_path, wider, edits=["objectives"]) as study:
        assert len(run(study, toy)) == 4
    old = {"val_accuracy": 0.9}
    assert wider.goals.infeasible(old) == "predict_ms was not measured"


def test_goals_belong_to_the_spec_and_change_its_digest_only_when_given() -> None:
    """A spec of accuracy alone keeps the digest that it had before there were goals; others are written and read."""
    plain = spec_of()
    with_goals = spec_of(objectives=["accuracy", "predict_ms"], constraints=["parameters <= 10M"])
    assert plain.goals == Goals()
    assert with_goals.digest != plain.digest
    assert plain.early_stopping.enabled
    assert not with_goals.early_stopping.enabled
