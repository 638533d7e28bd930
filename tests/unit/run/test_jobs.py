"""Jobs of several sweeps: who gets which settings and experiments, and how trials and budgets are divided."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carcls.catalog import FAMILIES
from carcls.config import TrialConfig
from carcls.errors import InputError, SpecError
from sweeps.run.command import chosen_experiments, specs_of_all, specs_of_experiments
from sweeps.run.several import with_share
from sweeps.spec.documented import EXPERIMENTS, find_experiment
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import read_file, write_file

NAMES = [experiment.name for experiment in EXPERIMENTS]


def specs(*sets: str, trials: int | None = None, **overrides: object) -> dict[str, SweepSpec]:
    """Return the specs of a job called ``job``, by family."""
    return {s.family: s for s in specs_of_all(name="job", sets=sets, overrides=overrides, trials=trials)}


@pytest.mark.parametrize("trials", range(9, 22))
def test_all_trials_are_given_out_and_documented_experiments_always_fit(trials: int) -> None:
    """No trial is lost, nobody gets two more than another, and each family can run what is documented of it."""
    counts = [spec.trials - len(spec.experiments) for spec in specs(trials=trials).values()]
    assert sum(counts) + 9 == trials
    assert min(counts) >= 0
    assert max(counts) - min(counts) <= 1


def test_every_family_gets_a_trial_when_nothing_documented_is_run() -> None:
    """Three trials without experiments are one each; two are refused."""
    assert [spec.trials for spec in specs("experiments=[]", trials=3).values()] == [1, 1, 1]
    with pytest.raises(SpecError, match="at least 3"):
        specs("experiments=[]", trials=2)


def test_settings_and_experiments_reach_the_families_that_they_mean_something_in() -> None:
    """A backbone never reaches scratch, neighbours only retrieval, epochs all; names are of job and family."""
    given = {"backbone": "densenet121", "k": 3, "width": 24, "epochs": 2}
    experiments = "experiments=[scratch/basic,transfer/frozen,transfer/finetuned]"
    found = specs(*(f"{name}={value}" for name, value in given.items()), experiments, weights="random")
    assert [spec.name for spec in found.values()] == [f"job-{family}" for family in FAMILIES]
    names = (*given, "weights")
    fixed = {f: {name: spec.fixed[name] for name in names if name in spec.fixed} for f, spec in found.items()}
    assert fixed["transfer"] == {"backbone": "densenet121", "weights": "random", "epochs": 2}
    assert fixed["retrieval"] == {"backbone": "densenet121", "weights": "random", "epochs": 2, "k": 3}
    assert fixed["scratch"] == {"width": 24, "epochs": 2}
    own = [spec.experiments for spec in found.values()]
    assert own == [("transfer/frozen", "transfer/finetuned"), (), ("scratch/basic",)]


@pytest.mark.parametrize(
    ("spent", "left", "share"),
    [
        ((0.0, 0, 0.0), 3, (2.0, 34, pytest.approx(10 / 3))),
        ((1.0, 20, 1.0), 2, (2.5, 40, 4.5)),
        ((5.0, 60, 9.0), 1, (1.0, 40, 1.0)),
        ((5.5, 120, 11.0), 1, (0.5, 0, 0.0)),
    ],
)
def test_families_share_what_is_left(
    spent: tuple[float, int, float], left: int, share: tuple[float, int, float], tmp_path: Path
) -> None:
    """Of 6 hours, 100 epochs and 10 in money each family gets an equal part of what is left when it begins."""
    hours, epochs, cost = spent
    before: list[Any] = [SimpleNamespace(spent=own) for own in ({"epochs": epochs - 5, "cost": cost}, {"epochs": 5})]
    spec = specs(hours=6.0, epochs_budget=100, price="1/hour", max_cost=10.0)["retrieval"]
    given = with_share(spec, hours, before, left)
    assert (given.hours, given.epochs_budget, given.max_cost) == share
    assert with_share(specs()["retrieval"], hours, before, left) == specs()["retrieval"]
    write_file(tmp_path, "sweep", None, [given])  # a share of 0 is a budget like another one, and is read again
    assert read_file(tmp_path).read_specs() == (given,)


def reproduction_specs(
    *sets: str, experiments: tuple[str, ...] = (), demo: bool = False, **overrides: object
) -> dict[str, SweepSpec]:
    """Return the specs of a reproduction on data of the user's, by family."""
    chosen = chosen_experiments(experiments, None)
    given = {"data": "/cars", **overrides}
    specs = specs_of_experiments(chosen, name="mine", sets=sets, overrides=given, demo_scale=demo)
    return {spec.family: spec for spec in specs}


def test_all_nine_are_chosen_when_none_is_named() -> None:
    """Names come in the documented order, whatever order they were asked for; a family means its three."""
    assert [e.name for e in chosen_experiments((), None)] == NAMES
    assert [e.name for e in chosen_experiments((), "scratch")] == NAMES[6:]
    asked = ("scratch/basic", "transfer/frozen", "scratch/basic")
    assert [e.name for e in chosen_experiments(asked, None)] == ["transfer/frozen", "scratch/basic"]


def test_an_experiment_of_another_family_cannot_be_chosen() -> None:
    """It is named, with the remedy."""
    with pytest.raises(InputError, match=r"family scratch, got 'transfer/frozen'\. Leave --family out"):
        chosen_experiments(("scratch/basic", "transfer/frozen"), "scratch")


def test_at_the_documented_scale_nothing_differs_from_the_documentation() -> None:
    """Each family's sweep has its experiments with exactly their settings, and nothing to search or stop."""
    specs = reproduction_specs()
    assert list(specs) == ["transfer", "retrieval", "scratch"]
    for family, spec in specs.items():
        assert (spec.name, spec.trials, spec.search, spec.starts) == (f"mine-{family}", 3, {}, ())
        assert not spec.early_stopping.enabled
        for name, config in spec.experiment_configs():
            documented = {**find_experiment(name).settings, "family": family}
            assert config.canonical() == TrialConfig.model_validate(documented).canonical()
            assert spec.changed_settings(name) == {}


def test_every_changed_setting_is_told_where_it_means_something() -> None:
    """What is run otherwise than documented has both values; what cannot matter is not listed. One sweep a family."""
    specs = reproduction_specs("unfreezing=full", "k=5", "width=8", "epochs=4", "weights=random")
    for name in specs["scratch"].experiments:
        assert specs["scratch"].changed_settings(name) == {"width": (32, 8), "epochs": (40, 4)}
    spec = reproduction_specs("loss=cosine", "backbone_lr=0.01")["transfer"]
    assert spec.changed_settings("transfer/frozen") == {"loss": ("cross_entropy", "cosine")}
    assert set(spec.changed_settings("transfer/finetuned")) == {"loss", "backbone_lr"}
    (only,) = reproduction_specs(experiments=(NAMES[5],)).values()
    assert (only.family, only.experiments, only.trials) == ("retrieval", (NAMES[5],), 1)


def test_the_scale_of_the_demo_is_that_of_its_presets() -> None:
    """--scale demo takes its small networks and images on own data, settings go on top; without data it is the demo."""
    specs = reproduction_specs("epochs=2", demo=True)
    assert specs["transfer"].fixed["backbone"] == "efficientnet_lite0"
    assert specs["scratch"].fixed["image_size"] < 100
    assert {(spec.fixed["epochs"], spec.data.path) for spec in specs.values()} == {(2, "/cars")}
    for sets, small in (((), True), (("data.path=/cars",), False)):
        spec = reproduction_specs(*sets, experiments=("scratch/basic",), data=None)["scratch"]
        assert ("image_size" in spec.fixed) == (spec.data.path is None) == small


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trials=5", "--set trials"),
        ("search.dropout=[0.1, 0.2]", "--set search.dropout"),
        ("experiments=[transfer/frozen]", "--set experiments"),
        ("config.width=8", "--set config.width"),
        ("k=5", "scratch"),
        ("epochs=0", "epochs"),
        ("dropuot=0.1", "Did you mean dropout?"),
    ],
)
def test_a_set_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    """What would change nothing is told, like any other mistake, before anything runs."""
    with pytest.raises(SpecError) as caught:
        reproduction_specs(text, experiments=("scratch/basic",))
    assert words in str(caught.value)


ALL, REPRODUCE = ["run", "all", "--set", "backbone=efficientnet_lite0"], ["reproduce"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*ALL, "trials=30"], "trials: must be given as --trials"),
        ([*ALL, "--name", "a/b"], "name: must be up to 100 letters"),
        ([*ALL, "--name", "stages"], "name: must be none of stages"),
        ([*ALL, "--trials", "5"], "--trials: must be at least 9"),
        ([*ALL, "--spec", "mine.yaml"], "--spec is of one family"),
        ([*ALL, "k=100000"], "k must be at most"),
        ([*ALL, "dropout=1.5"], "dropout: must be at most 0.95"),
        ([*REPRODUCE, "transfer/fine"], "Did you mean transfer/finetuned?"),
        ([*REPRODUCE, "--name", "a/b"], "name: must be"),
        ([*REPRODUCE, "--set", "k=5", "--family", "transfer"], "--set k"),
        ([*REPRODUCE, "--data", "nowhere"], "nowhere"),
        ([*REPRODUCE, "--scale", "large"], "--scale"),
        ([*REPRODUCE, "--family", "retrieval", "--weights", "nowhere.pth"], "nowhere.pth"),
        ([*ALL, "--name", "mine"], "--name must be new, got 'mine', which is a sweep"),
        ([*REPRODUCE, "--name", "mine"], "--name must be new, got 'mine', which is a sweep"),
        ([*REPRODUCE, "--name", "ours"], "--name must be new, got 'ours', which is a job of all"),
        (["run", "scratch", "--name", "ours"], "--name must be new, got 'ours', which is a job of all"),
        ([*ALL, "--name", "their"], "--name must be new, got 'their-transfer', which is a job of reproduce"),
        (["run", "scratch", "--name", "older"], "--name must be new, got 'older', which is a job of all"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], told: str, run: Callable[..., tuple[int, str, str]]
) -> None:
    """Each is told before anything is run: not even what the families that have none of it could."""
    write_file(Path("runs/mine"), "sweep", None, [SweepSpec(family="transfer", name="mine")])
    write_file(Path("runs/ours"), "all", None, [SweepSpec(family="transfer", name="ours-transfer")])
    write_file(Path("runs/their-transfer"), "reproduce", None, [SweepSpec(family="transfer", name="a")])
    older = Path("runs/older/command.json")  # as versions before job.json wrote it
    older.parent.mkdir()
    older.write_text(json.dumps({"kind": "all", "specs": ["family: transfer\nname: older-transfer"]}))
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert {path.name for path in Path("runs").iterdir()} == {"mine", "ours", "older", "their-transfer"}
