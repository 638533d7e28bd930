"""All families as one job: who gets which settings, how trials and hours are divided, and the table at the end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from carcls.catalog import FAMILIES
from carcls.data.config import DataSummary
from carcls.errors import SpecError
from sweeps.cli.summary import print_outcome
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Registered, SweepResult, TestEvaluation
from sweeps.run.command import specs_of_all
from sweeps.run.comparison import NARROW_COLUMNS, WINNER_COLUMNS, Together
from sweeps.run.several import with_share
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import read_file, write_file
from sweeps.text import Column
from sweeps.trial import TrialRecord


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


def result(family: str, accuracy: float | None = None, **changes: Any) -> SweepResult:
    """Return the result of a family with a winner, or without one."""
    trials, test, registered = (), None, None
    if accuracy is not None:
        metrics = {"val_accuracy": accuracy}
        trials = (TrialRecord(0, f"{family}/densenet121-k7-cosine", {}, {}, "complete", metrics, 1, 1.0),)
        test = TestEvaluation({"test_accuracy": accuracy, "test_f1": accuracy}, (accuracy - 0.01, accuracy + 0.01), 9)
        registered = Registered(f"carsweep-{family}", "12", "challenger", "")
    data, winner = DataSummary("cars", "d", 0, 0, {"validation": 1900}), None if accuracy is None else 0
    made = SweepResult("a", family, "/", data, Leaderboard(trials), winner, test, registered, "", 7e4)
    return replace(made, **changes)


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
    before = [result("transfer", spent={"epochs": epochs - 5, "cost": cost}), result("scratch", spent={"epochs": 5})]
    spec = specs(hours=6.0, epochs_budget=100, price="1/hour", max_cost=10.0)["retrieval"]
    given = with_share(spec, hours, before, left)
    assert (given.hours, given.epochs_budget, given.max_cost) == share
    assert with_share(specs()["retrieval"], hours, before, left) == specs()["retrieval"]
    write_file(tmp_path, "sweep", None, [given])  # a share of 0 is a budget like another one, and is read again
    assert read_file(tmp_path).read_specs() == (given,)


@pytest.mark.parametrize(("width", "columns"), [(80, NARROW_COLUMNS), (120, WINNER_COLUMNS)])
def test_the_table_has_a_row_for_each_family(width: int, columns: list[Column[SweepResult]]) -> None:
    """A family without a winner has dashes, and keeps the job from being whole; a narrow terminal cuts nothing off."""
    results = {"transfer": result("transfer", 0.731), "retrieval": result("retrieval", 0.7)}
    assert Together("job", 7e4, results).is_whole
    together = Together("job", 7e4, {**results, "scratch": result("scratch")})
    assert not together.is_whole
    assert "| scratch | none | – | – | – | 0 | 19 h 26 min | – |" in together.markdown().splitlines()
    file = io.StringIO()
    print_outcome(Console(file=file, width=width), Path("runs"), together)
    text = file.getvalue().partition("the winners of all families, in 19 h 26 min\n")[2].partition("\n\n")[0]
    assert "…" not in text
    assert all(column.title in text.splitlines()[0] for column in columns)
    assert all(word in text for word in ("73.1% ±2.0", "73.1% ±1.0", "carsweep-retrieval 12", "–"))
    assert max(len(line) for line in text.splitlines()) <= width
    assert not [line for line in text.splitlines() if line != line.rstrip()]


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
