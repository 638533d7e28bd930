"""Several objectives and constraints in the durable study, without Ray."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from helpers import run_study, study_spec

from carcls.config import TrialConfig
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


def toy(asked: Asked) -> dict[str, float]:
    """Accuracy and time both grow with dropout, so that the best is what the limit allows."""
    return {"val_accuracy": asked.config.dropout, "predict_ms": time_of(asked.config)}


def time_of(config: TrialConfig) -> float:
    """Return the milliseconds of an answer."""
    return 10 * config.dropout + config.label_smoothing


def later_draws(folder: Path, **goals: Any) -> list[TrialConfig]:
    """Return what searches of many seeds draw once they have learned."""
    drawn = []
    for seed in range(SEEDS):
        with Study.open(folder / str(seed), spec_of(seed=seed, **goals)) as study:
            drawn += [asked.config for asked in run_study(study, toy)[10:]]
    return drawn


def test_a_sampler_learns_what_the_goals_are(tmp_path: Path) -> None:
    """With a limit more draws keep it than uniform ones would, or draws without it; with accuracy and time as
    objectives it tries fast trials too, where with accuracy alone it goes where that is highest.
    """
    free = later_draws(tmp_path / "free")
    limited = later_draws(tmp_path / "limited", constraints=["predict_ms <= 2"])
    both = later_draws(tmp_path / "both", objectives=("accuracy", "predict_time"))
    dice = random.Random(0)
    uniform = sum(10 * dice.uniform(0, 0.9) + dice.uniform(0, 0.9) <= 2 for _ in free)
    kept = {name: sum(time_of(config) <= 2 for config in drawn) for name, drawn in (("free", free), ("limit", limited))}
    assert kept["limit"] > max(2 * uniform, 4 * kept["free"])
    assert sum(config.dropout < 0.45 for config in both) > 2 * sum(config.dropout < 0.45 for config in free)


def test_what_breaks_a_limit_is_not_run_and_costs_no_trial(tmp_path: Path) -> None:
    """A trial that is known to be too large is closed with its reason; the budget goes to trials that may win."""
    search = {"backbone": Choice(("resnet50", "densenet121")), "dropout": Range(0.0, 0.5)}
    spec = spec_of(trials=8, experiments=["transfer/frozen"], search=search, constraints=["parameters <= 10M"], seed=1)
    with Study.open(tmp_path, spec, costs=by_backbone) as study:
        done = run_study(study, toy)
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
        assert run_study(study, toy) == []
        assert all(record.refused for record in study.records())
    loose = spec.model_copy(update={"constraints": ("parameters <= 30M",)})
    with Study.open(tmp_path, loose, edits=["constraints"], costs=by_backbone) as study:
        assert [asked.experiment for asked in run_study(study, toy)] == ["transfer/frozen", None]


def test_trials_without_the_new_measures_do_not_stop_the_search(tmp_path: Path) -> None:
    """A journal from before predict_ms was measured can go on with it: old trials tell the sampler nothing."""
    spec = spec_of(trials=12)
    with Study.open(tmp_path, spec) as study:
        run_study(study, lambda asked: {"val_accuracy": asked.config.dropout})
    wider = SweepSpec.model_validate(
        {**spec.model_dump(), "search": spec.search, "trials": 16, "objectives": ("accuracy", "predict_time")}
        | {"constraints": ("predict_ms <= 5",)}
    )
    with Study.open(tmp_path, wider, edits=["objectives"]) as study:
        assert len(run_study(study, toy)) == 4
    old = {"val_accuracy": 0.9}
    assert wider.goals.infeasible(old) == "predict_ms was not measured"


def test_goals_change_the_digest_and_stop_early_stopping_only_when_given() -> None:
    """A spec of accuracy alone keeps the digest that it had before there were goals."""
    plain, goals = spec_of(objectives=["accuracy"]), spec_of(objectives=["accuracy", "predict_ms"])
    assert len({spec_of().digest, plain.digest, goals.digest, spec_of(constraints=["f1 >= 0.5"]).digest}) == 3
    assert (plain.early_stopping.enabled, goals.early_stopping.enabled) == (True, False)
