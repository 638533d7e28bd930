"""Two sweeps beside each other: what their specs have otherwise, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import trial_record

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult, TestEvaluation
from sweeps.run.difference import compare_two
from sweeps.spec.loading import load_spec
from sweeps.spec.sweep_file import write_file

IMAGES = 200
Run = Callable[..., tuple[int, str, str]]


def write(out: Path, name: str, *sets: str, family: str = "transfer", wrong: int | None = None) -> None:
    """Write a sweep: with a result and its winner's answers to the test images when so many of them are ``wrong``."""
    spec = load_spec(family, sets=[*sets, f"name={name}"])
    write_file(out / name, "sweep", None, [spec])
    if wrong is None:
        return
    base = TrialConfig.model_validate({"family": family})
    trial, share = trial_record(0, 0.75, config=base.model_dump()), 1 - wrong / IMAGES
    labels = np.arange(IMAGES) % 7
    predicted = np.where(np.arange(IMAGES) < wrong, 7, labels)
    np.savez(out / name / "test-predictions.npz", rows=np.arange(IMAGES), labels=labels, predicted=predicted)
    SweepResult(
        sweep=name,
        family=family,
        out=str(out),
        data=DataSummary("cars", "0123456789abcdef", 600, 7, {"train": 300, "validation": 100, "test": IMAGES}),
        board=Leaderboard((trial,), base.model_dump(), 100),
        winner=0,
        test=TestEvaluation({"test_accuracy": share, "test_f1": share}, (share - 0.04, share + 0.04), IMAGES),
        registered=None,
        tracking_uri="",
        seconds=75.0,
        spent={"seconds": 120.0, "epochs": 14, "cost": 0.5, "currency": "$", "by_status": {}},
    ).save(out / name / "result.json")


def test_settings_that_a_trial_would_notice_are_told_with_both_values(tmp_path: Path) -> None:
    """Not the names and notes, and no base value that both fix, search, or have anyway."""
    write(tmp_path, "one", "epochs=5", "search.dropout.high=0.4", "hours=2", "note=mine")
    write(tmp_path, "other", "epochs=7", "search.dropout.high=0.6", "config.jitter=0.3", "data.margin=0.1")
    (found,), _ = compare_two(tmp_path, "one", "other")
    assert found.settings == {
        "hours": (2.0, None),
        "data.margin": (0.0, 0.1),
        "config.jitter": (0.0, 0.3),
        "fixed.epochs": (5, 7),
        "search.dropout": ({"low": 0.0, "high": 0.4}, {"low": 0.0, "high": 0.6}),
    }


def test_results_stand_side_by_side_with_the_paired_test(run: Run, tmp_path: Path) -> None:
    """Winners on the same test images are compared as ``carsweep compare`` does; the JSON has the same numbers."""
    write(tmp_path / "runs", "one", "epochs=5", wrong=30)
    write(tmp_path / "runs", "other", "epochs=7", wrong=10)
    code, told, _ = run("diff", "one", "other")
    rows = {line[:15].strip(): line[15:].split("  ") for line in told.splitlines()}
    assert code == 0
    assert [text.strip() for text in rows["test accuracy"] if text.strip()] == ["85.0% ±4.0", "95.0% ±4.0"]
    assert [text.strip() for text in rows["cost"] if text.strip()] == ["$0.50", "$0.50"]
    assert "other – one: +10.00 [" in told
    (value,) = json.loads(run("diff", "one", "other", "--json")[1])["differences"]
    assert (value["settings"], value["same_images"]) == ({"fixed.epochs": [5, 7]}, True)
    assert value["pair"]["numbers"]["first_only"] == 20
    assert [result["test_accuracy"] for result in value["results"]] == [0.85, 0.95]


def test_the_same_spec_is_said_to_be_the_same(run: Run, tmp_path: Path) -> None:
    """Names alone make no difference; without a result what came so far is told."""
    write(tmp_path / "runs", "one", wrong=30)
    write(tmp_path / "runs", "other")
    code, told, _ = run("diff", "one", "other")
    assert (code, "The same spec: no setting differs" in told, "unfinished" in told) == (0, True, True)
    assert "p =" not in told


def test_jobs_are_set_side_by_side_by_family(run: Run, tmp_path: Path) -> None:
    """A sweep beside a job is compared with the job's sweep of its family; what only one side has is named."""
    out = tmp_path / "runs"
    for job in ("a", "b"):
        families = ("transfer", "scratch") if job == "a" else ("transfer", "retrieval")
        specs = [load_spec(family, sets=[f"name={job}-{family}"]) for family in families]
        write_file(out / job, "all", None, specs)
        for family in families:
            write(out, f"{job}-{family}", f"epochs={5 if job == 'a' else 7}", family=family)
    found, alone = compare_two(out, "a", "b")
    assert ([one.names for one in found], alone) == ([("a-transfer", "b-transfer")], ["a-scratch", "b-retrieval"])
    assert [one.names for one in compare_two(out, "a", "b-transfer")[0]] == [("a-transfer", "b-transfer")]
    assert "Only one of them has a-scratch, b-retrieval." in run("diff", "a", "b")[1]


@pytest.mark.parametrize(
    ("words", "said"), [("one oter", "Did you mean other?"), ("one", "Missing argument 'B'"), ("one a", "in common")]
)
def test_a_mistake_is_told_in_a_line(words: str, said: str, run: Run, tmp_path: Path) -> None:
    """Unknown names, too few, and jobs of other families."""
    out = tmp_path / "runs"
    write(out, "one")
    write(out, "other")
    write_file(out / "a", "all", None, [load_spec(family) for family in ("scratch", "retrieval")])
    for family in ("scratch", "retrieval"):
        write(out, f"a-{family}", family=family)
    code, told, error = run("diff", *words.split())
    assert (code, told, error.count("\n"), said in error) == (2, "", 1, True), error


def test_tables_fit_into_80_columns(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer goes on in the next line, and no name of a setting is broken."""
    monkeypatch.setenv("COLUMNS", "80")
    write(tmp_path / "runs", "one", wrong=30)
    write(tmp_path / "runs", "other", "data=/cars", "search.augmentation_strength=[0.5, 1.0]", wrong=10)
    told = run("diff", "one", "other")[1]
    assert "search.augmentation_strength  " in told
    assert [line for line in told.splitlines() if len(line) > 80 and "–" not in line] == []
