"""The live picture of a sweep, drawn of records without a terminal."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from carcls.data.config import DataSummary
from carcls.gpus import Gpu
from carcls.outcome import Measurement
from sweeps.cli.live import draw
from sweeps.cli.machine import MachineUse
from sweeps.cli.state import SweepState, distinguishing, facts_of
from sweeps.engine.budget import BudgetStatus
from sweeps.results.leaderboard import find_best
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec
from sweeps.trial import Spent, TrialRecord

DATA = DataSummary("cars", "abc", 1000, 10, {"train": 700, "validation": 100, "test": 200})
SEARCHED = {
    "dropout": 0.148,
    "unfreezing": "progressive",
    "optimizer": "adamw",
    "head_lr": 0.00235,
    "backbone_lr": 0.00046,
    "weight_decay": 0.00324,
    "lr_schedule": "onecycle",
    "label_smoothing": 0.1,
    "augmentation_strength": 1.5,
}


def record(
    spec: SweepSpec, number: int, curve: Sequence[float], status: str = "complete", **changes: Any
) -> TrialRecord:
    """Return a searched trial whose epochs had these accuracies; ``settings`` are its own, ``changes`` the record's."""
    settings, experiment = changes.pop("settings", {}), changes.get("experiment")
    history = [Measurement(n, {"val_accuracy": accuracy}) for n, accuracy in enumerate(curve, 1)]
    config = {**spec.trial_config(settings, experiment).model_dump(), "epochs": 10}
    made = TrialRecord(number, None, settings, config, status, {}, len(curve), 30.0, history=history)  # type: ignore[arg-type]
    return replace(made, **{"metrics": history[-1].metrics if history else {}, **changes})


def state_of(spec: SweepSpec, *records: TrialRecord, **changes: Any) -> SweepState:
    """Return the state of a sweep of these trials, all of which this session has begun."""
    best, known = find_best(records, spec.goals), {one.number: one for one in records}
    ended = sum(one.status != "running" for one in records)
    status = BudgetStatus(Spent(60.0, 20, wall=70.0), None, ended, best, records=known)
    facts = {one.number: facts_of(one, spec) for one in records}
    return replace(SweepState(spec, status, facts, dict.fromkeys(known, 70.0), DATA, seconds=75.0), **changes)


def lines_of(state: SweepState, width: int = 80, height: int = 24, *, ascii_only: bool = False) -> list[str]:
    """Return what a terminal shows, without blanks at the ends of lines."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(state, width, height, ascii_only=ascii_only))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.fixture
def spec() -> SweepSpec:
    """Return a transfer sweep of twenty trials of ten epochs."""
    return load_spec("transfer", sets=["epochs=10"], overrides={"trials": 20})


def busy_state(family: str) -> SweepState:
    """Return the state of a sweep with each documented experiment, 40 searched trials, two of which run, and GPUs."""
    spec = load_spec(family)
    settings = {name: value for name, value in SEARCHED.items() if name in spec.search}
    named = [record(spec, n, [0.1, 0.5], experiment=name) for n, name in enumerate(spec.experiments)]
    searched = [record(spec, n, [0.1 * (n % 7)], "pruned", settings=settings) for n in range(len(named), 40)]
    running = [record(spec, n, [0.1, 0.3], "running", settings=settings) for n in (40, 41)]
    use = MachineUse(0.5, 2 * 10**9, 16 * 10**9, (Gpu("GPU-a", 0, 81920, 40960, "A100", 0.4),), ("features",))
    return state_of(spec, *named, *searched, *running, use=use, seconds_left=100.0)


@pytest.mark.parametrize("family", ["transfer", "retrieval", "scratch"])
def test_the_picture_fits_every_terminal(family: str) -> None:
    """No line is wider and there are no more lines than it has, from one column and one line on, in ASCII as well."""
    state = busy_state(family)
    for width, height, ascii_only in itertools.product((1, 20, 40, 60, 80, 120, 200), (1, 3, 8, 24, 60), (True, False)):
        lines = lines_of(state, width, height, ascii_only=ascii_only)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
        assert not ascii_only or "".join(lines).replace("–", "").isascii()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_line_has_status_bar_accuracy_curve_and_two_settings(spec: SweepSpec, width: int) -> None:
    """At eighty columns and more; a documented experiment has its name before them."""
    best = record(spec, 1, [0.1, 0.2, 0.4, 0.45, 0.5], settings={"dropout": 0.5, "head_lr": 0.01})
    named = record(spec, 0, [0.1], "running", experiment="transfer/finetuned")
    lines = lines_of(state_of(spec, named, best), width)
    shown = {line.split()[0]: line.split() for line in lines if line.strip()[:1].isdigit()}
    assert shown["0"][1] == "running"
    assert shown["1"][1] == "complete"
    assert shown["1"][2].startswith("━")
    assert shown["1"][3:7] == ["5/10", "50.0%", "*", "▁▃▆▇█"]
    assert shown["1"][-2:] == ["head_lr=0.01", "dropout=0.5"]
    assert "finetuned" in shown["0"]


def test_a_trial_is_told_by_the_settings_that_differ_most(spec: SweepSpec) -> None:
    """A rate at the end of its range differs wholly, one choice of three by two thirds, half of a range by a half."""
    assert spec.trial_config({}).head_lr == 1e-3  # the middle of its range, 1e-4 to 1e-2 by factors
    given: Mapping[str, Any] = {"dropout": 0.35, "unfreezing": "full", "head_lr": 1e-2, "backbone_lr": 1e-3}
    found = distinguishing(record(spec, 0, [], settings=given), spec)
    assert list(found.items()) == [("head_lr", 1e-2), ("unfreezing", "full"), ("dropout", 0.35)]
    frozen = record(spec, 0, [], settings={"unfreezing": "frozen", "backbone_lr": 1e-5})
    assert distinguishing(frozen, spec) == {}  # a backbone that is frozen, as in the base, has no rate


def test_a_trial_shows_the_number_of_its_best_derived_trial() -> None:
    """Of retrieval's k, distances and votes one decides: its accuracy and its settings stand in its trial's line."""
    spec = load_spec("retrieval")
    own = record(spec, 0, [0.5], settings={"k": 1})
    derived = [
        record(spec, n, [accuracy], settings={"k": k}, derived_from=0, epochs=1)
        for n, accuracy, k in ((1, 0.7, 9), (2, 0.6, 30))
    ]
    lines = lines_of(state_of(spec, own, *derived), 120)
    rows = [line for line in lines if line.strip()[:1].isdigit()]
    assert len(rows) == 1
    assert "70.0% *" in rows[0]
    assert "k=9" in rows[0]
    assert "accuracy 70.0% ±8.8 · trial 1" in lines[1]


def test_the_lines_above_say_how_the_sweep_is(spec: SweepSpec) -> None:
    """Trials, the best with Wilson's interval for 50 of 100, rungs, speed, machine and what was spent, at eighty."""
    trials = [
        record(spec, 0, [0.5] * 10, settings={"dropout": 0.5}),
        record(spec, 1, [0.1] * 2, "pruned"),
        record(spec, 2, [0.1] * 2, "pruned"),
        record(spec, 3, [0.2] * 6, "pruned"),
        record(spec, 4, [0.2] * 5, "running", late_stages={"features/a": 65.0, "features/b": None}),
    ]
    use = MachineUse(0.875, 2 * 10**9, 16 * 10**9, (Gpu("GPU-a", 0, 81920, 40960, "A100", 0.4),), ("features",))
    state = state_of(spec, *trials, use=use, seconds_left=100.0, began=Spent(epochs=10, wall=20.0))
    assert lines_of(state)[:5] == [
        "sweep    4 of 20 trials · 1 min 15 s · about 1 min 40 s to go · 1 running",
        "best     accuracy 50.0% ±9.6 · trial 0 · search",
        "rungs    epoch 2: 2 of 5 stopped · epoch 6: 1 of 2 stopped",
        "machine  140 images/s · making features · CPU 88% · memory 2.0 GB of 16.0 GB",
        "spent    20 epochs trained · cached stages saved 1 min 05 s",
    ]
    assert "GPU 0 40%, 40.0 of 80 GiB" in lines_of(state, 120)[3]


def test_what_decides_is_the_sweeps_own_objective() -> None:
    """The column has it, and so has the best; its accuracy is told beside it."""
    spec = load_spec("transfer", overrides={"objectives": ["predict_time"]})
    slow = record(spec, 0, [0.9], metrics={"val_accuracy": 0.9, "predict_ms": 4.0})
    fast = record(spec, 1, [0.5], metrics={"val_accuracy": 0.5, "predict_ms": 2.0})
    lines = lines_of(state_of(spec, slow, fast))
    assert lines[1] == "best     predict_time 2 ms · accuracy 50.0% ±9.6 · trial 1 · search"
    assert any("2 ms *" in line for line in lines)
    assert not any(line.startswith("rungs") for line in lines)  # such a sweep stops no trial early


def test_where_not_all_have_room_those_that_run_the_best_and_the_newest_are_shown() -> None:
    """In the order of their numbers; the rest are counted."""
    state = busy_state("transfer")
    lines = lines_of(state, 80, 18)
    numbers = [int(line.split()[0]) for line in lines if line.strip()[:1].isdigit()]
    assert numbers == [0, *range(43 - len(numbers), 42)]
    assert len(lines) == 18
    assert lines[-1] == f"… and {42 - len(numbers)} more trials"


def test_unfinished_trials_wait_until_somebody_goes_on_with_them(spec: SweepSpec) -> None:
    """One of an earlier session waits; one that runs is unfinished at the end, with its time until then."""
    trials = [record(spec, 0, [0.1], "running"), record(spec, 1, [0.1], "running")]
    state = state_of(spec, *trials, told={1: 70.0})
    words = [line.split()[1] for line in lines_of(state) if line.strip()[:1].isdigit()]
    assert words == ["waiting", "running"]
    over = lines_of(replace(state, is_over=True), 120)
    assert [line.split()[1] for line in over if line.strip()[:1].isdigit()] == ["unfinished", "unfinished"]
    assert [re.findall(r"[0-9.]+ s\b", line) for line in over[-2:]] == [["30.0 s"], ["35.0 s"]]
