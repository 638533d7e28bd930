"""Reproducing the documented experiments: what is run, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carcls.data.config import DataSummary
from sweeps.results.result import TestEvaluation
from sweeps.run.command import Command, chosen_experiments, specs_of_experiments
from sweeps.run.reproduction import Reproduced, Reproduction, reproduction_of
from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK, find_experiment
from sweeps.trial import Status, TrialRecord

NAMES = [experiment.name for experiment in EXPERIMENTS]
ROOT = Path(__file__).resolve().parents[3]


def row(name: str, test: dict[str, float] | str | None = None) -> Reproduced:
    """Return an experiment that came out at half of everything, or so, or that failed, on 8,041 test images."""
    if not isinstance(test, str):
        shares = test or dict.fromkeys(("loss", "accuracy", "f1", "precision", "recall"), 0.5)
        test = TestEvaluation({f"test_{measure}": value for measure, value in shares.items()}, (0.489, 0.511), 8041)
    status: Status = "failed" if isinstance(test, str) else "complete"
    record = TrialRecord(0, name, {}, {}, status, {"val_accuracy": 0.6}, 1, 1.0)
    return Reproduced(find_experiment(name), {}, record, test)


def reproduction(*rows: Reproduced, **changes: Any) -> Reproduction:
    """Return a reproduction on Stanford Cars."""
    splits = {"train": 6922, "validation": 1222, "test": 8041}
    best = {row.experiment.family: row.experiment.name for row in rows}
    return replace(Reproduction("mine", "stanford_cars", False, splits, 196, True, rows, best), **changes)


def row_of(text: str, start: str) -> list[str]:
    """Return the cells of the table row that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_cell_is_documented_beside_measured() -> None:
    """The columns are the documentation's; what was not reported or not measured is a dash; about 47% has its sign."""
    text = reproduction(*map(row, NAMES)).markdown()
    shares = [f"{documented}% / 50.00%" for documented in (73.78, 73.63, 78.18, 73.78)]
    assert row_of(text, "finetuned")[1:] == ["0.9012 / 0.5000", *shares, "48.9% to 51.1%"]
    assert [cell.startswith("~") for cell in row_of(text, "frozen-augmented")[1:6]] == [True] * 5
    timed = row("retrieval/resnet50-k3-euclidean", {"accuracy": 0.5, "predict_seconds": 0.25})
    cells = row_of(reproduction(timed).markdown(), "resnet50-k3-euclidean")
    assert cells[1:5] == ["74.93% / 50.00%", "75.23% / –", "77.38% / –", "74.93% / –"]
    assert cells[5:7] == ["0.0092 s / –", "1.1998 s / 0.2500 s"]
    assert row_of(text, "basic")[5] == "– / 50.00%"


def test_the_leaked_number_is_marked_wherever_it_stands() -> None:
    """72.26% never stands without its mark, and the note under the table says why it compares with nothing."""
    text = reproduction(*map(row, NAMES)).markdown()
    assert len([line for line in text.splitlines() if "72.26%" in line]) == 2
    assert text.count("72.26%") == text.count(f"72.26%{LEAK_MARK}") == 3
    assert row_of(text, "augmented")[1] == f"1.1026{LEAK_MARK} / 0.5000"
    assert LEAK_MARK not in "".join(row_of(text, "basic"))
    assert [line for line in text.splitlines() if line.startswith(f"- augmented {LEAK_MARK}: ") and "99.7%" in line]


def test_a_failed_experiment_says_why_under_its_table() -> None:
    """Its measured numbers are dashes, its status takes the interval's place, and the reason is a note of one line."""
    failed = row("transfer/frozen", "loss must be\nfinite")
    whole = reproduction(failed, row("transfer/finetuned"), best={"transfer": "transfer/finetuned"})
    text = whole.markdown()
    assert row_of(text, "frozen")[1:3] == ["2.3724 / –", "42.37% / –"]
    assert row_of(text, "frozen")[-1] == "failed"
    assert "- frozen: no result: loss must be finite." in text.splitlines()
    assert not whole.is_whole


def test_the_best_of_a_family_is_the_best_by_validation() -> None:
    """The measured one is that of validation, even where another did better on test; the documented one is fixed."""
    rows = row("scratch/basic", {"accuracy": 0.1}), row("scratch/regularized", {"accuracy": 0.8})
    text = reproduction(*rows, best={"scratch": "scratch/basic"}).markdown()
    assert f"- best: augmented, 72.26%{LEAK_MARK} documented; basic, 10.00% measured." in text.splitlines()
    assert "; none finished measured." in reproduction(*rows, best={}).markdown()


def test_what_differs_is_told_under_its_table() -> None:
    """Each change has its sentence, with the experiments that it is a change of."""
    shared = {"backbone": ("resnet50", "efficientnet_lite0"), "epochs": (10, 2)}
    first = replace(row("transfer/frozen"), changed=shared)
    second = replace(row("transfer/finetuned"), changed={**shared, "dropout": (0.5, 0.1)})
    lines = reproduction(first, second).markdown().splitlines()
    assert "- all: backbone efficientnet_lite0 instead of resnet50." in lines
    assert "- all: epochs 2 instead of 10." in lines
    assert "- finetuned: dropout 0.1 instead of 0.5." in lines
    assert "instead of" not in reproduction(row("transfer/frozen")).markdown()


def test_an_experiment_in_micro_batches_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that ran out of memory was given smaller parts: its experiment was run."""
    name = "transfer/frozen"
    chosen, data = chosen_experiments([name], None), {"data": "/cars"}
    (spec,) = specs_of_experiments(chosen, name="mine", sets=(), overrides=data, demo_scale=False)
    ((_, config),) = spec.experiment_configs()
    given = {**config.model_dump(), "micro_batch": 8}
    record = TrialRecord(0, name, {}, given, "complete", {"val_accuracy": 0.6}, 1, 1.0)
    images = DataSummary("cars", "d", 9, 2, {"train": 3, "validation": 3, "test": 3})
    result = SimpleNamespace(sweep=spec.name, family="transfer", trials=(record,), data=images)
    dataset = SimpleNamespace(manifest=SimpleNamespace(images=()))
    monkeypatch.setattr("sweeps.run.reproduction.Dataset.load", lambda _: dataset)
    tests = {name: TestEvaluation({"test_accuracy": 0.5}, (0.4, 0.6), 3)}
    made = reproduction_of(Command("reproduce", "mine", (spec,)), [result], tests)  # type: ignore[list-item]
    assert [(one.status, one.changed) for one in made.comparisons] == [("complete", {"micro_batch": (None, 8)})]
    assert made.best == {"transfer": name}


@pytest.mark.parametrize(("cut", "words"), [(True, "cut to their bounding boxes here"), (False, "as they are here")])
def test_the_protocol_is_told(cut: bool, words: str) -> None:
    """The report says whose test images these are, how many, how they were cut, and what demo cars compare with."""
    text = reproduction(row("transfer/frozen"), cut=cut, demo=cut).markdown()
    assert words in text
    assert "test split has 8,041 images" in text
    assert ("no measured number can be compared" in text) == cut


def test_each_field_of_the_object_is_documented() -> None:
    """docs/json.md names every field of reproduction.json."""
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8").partition("\n## Reproductions\n")[2]
    value = reproduction(row("transfer/frozen")).as_dict()
    names = [*value, *(f"comparisons[].{name}" for name in value["comparisons"][0])]
    assert [name for name in names if name != "comparisons" and f"`{name}`" not in text] == []


Run = Callable[..., tuple[int, str, str]]


def test_a_dry_run_tells_each_experiment_and_its_changes(run: Run) -> None:
    """The plan has a line for every experiment, and runs nothing."""
    code, out, _ = run("reproduce", "--dry-run", "--set", "epochs=2")
    assert code == 0
    assert [name for name in NAMES if f"  {name}" not in out] == []
    assert "epochs 2 instead of 40" in out
    assert "demo-cars" in out
    assert not Path("runs").exists()
    code, out, _ = run("reproduce", "--dry-run", "--json", "--family", "scratch")
    (plan,) = json.loads(out)["plans"]
    assert (code, plan["experiments"]) == (0, NAMES[6:])


def test_the_list_marks_the_leaked_number(run: Run) -> None:
    """All nine are listed; the one that compares with nothing says so."""
    code, out, _ = run("list", "experiments")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert (code, [head.split()[0] for head in heads]) == (0, NAMES)
    assert [head.split()[0] for head in heads if LEAK_MARK in head] == ["scratch/augmented"]
