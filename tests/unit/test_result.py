"""The object that --json writes, and its way to disk and back."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

from sweeps.record import TrialRecord, Twin
from sweeps.result import (
    Compared,
    Confirmed,
    DataSummary,
    RegisteredModel,
    SweepResult,
    TestReading,
)
from sweeps.study_lines import EpochHistory

TRIAL = TrialRecord(0, "transfer/frozen", {}, {"dropout": 0.5}, "complete", {"val_accuracy": 0.5}, 3, 1.5)
RESULT = SweepResult(
    sweep="mine",
    family="transfer",
    out="/runs",
    data=DataSummary("cars", "abc", 30, 2, {"train": 20, "validation": 4, "test": 6}),
    trials=(TRIAL, replace(TRIAL, number=1, experiment=None, status="failed", metrics={}, reason="NaN loss")),
    winner=0,
    test=TestReading({"test_accuracy": 0.5}, (0.2, 0.8), 6),
    registered=RegisteredModel("carsweep-transfer", "1", "challenger", "models:/carsweep-transfer@challenger"),
    tracking_uri="sqlite:////runs/mlflow.db",
    seconds=12.5,
)


def test_object_has_exactly_the_documented_fields() -> None:
    """Scripts find the fields that docs/json.md names, and no others."""
    value = RESULT.as_dict()
    assert set(value) == {
        "sweep",
        "family",
        "out",
        "data",
        "trials",
        "best",
        "test",
        "registered",
        "tracking_uri",
        "seconds",
        "saved_seconds",
        "interrupted",
        "confirmed",
        "comparison",
        "spent",
        "objectives",
        "constraints",
        "pareto",
    }
    assert set(value["data"]) == {"name", "digest", "images", "classes", "splits"}
    assert set(value["trials"][0]) == {
        "number",
        "experiment",
        "status",
        "params",
        "metrics",
        "epochs",
        "seconds",
        "reason",
        "sibling_of",
        "confirms",
        "failure",
        "twins",
    }
    assert set(value["best"]) == {"number", "params", "metrics", "confirms"}
    assert set(value["test"]) == {"metrics", "interval", "images", "readings", "models", "refit"}
    assert set(value["registered"]) == {"name", "version", "alias", "uri"}


def test_saved_result_is_read_back_equal(tmp_path: Path) -> None:
    """Nothing is lost between save and load."""
    RESULT.save(tmp_path / "result.json")
    assert SweepResult.load(tmp_path / "result.json") == RESULT


def test_confirmed_result_is_read_back_equal(tmp_path: Path) -> None:
    """Fresh seeds and comparisons come back as they were, also where a mean or a spread is unknown."""
    confirmed = (Confirmed(0, 2, (2, 3), 0.5, 0.45, 0.01, -0.05), Confirmed(1, 2, (), 0.4, None, None, None))
    compared = (Compared(1, 0.05, (-0.01, 0.11), 0.2, False),)
    result = replace(RESULT, confirmed=confirmed, comparison=compared)
    result.save(tmp_path / "result.json")
    assert SweepResult.load(tmp_path / "result.json") == result


def test_twins_are_read_back_equal(tmp_path: Path) -> None:
    """What was not run since another trial answers it is beside that trial, with what was drawn; no twins is none."""
    result = replace(RESULT, trials=(replace(TRIAL, twins=(Twin(9, True, {"dropout": 0.501}),)), RESULT.trials[1]))
    result.save(tmp_path / "result.json")
    assert SweepResult.load(tmp_path / "result.json") == result
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["trials"][0]["twins"] == [{"number": 9, "near": True, "settings": {"dropout": 0.501}}]
    del stored["trials"][0]["twins"], stored["trials"][1]["twins"]
    assert SweepResult.from_dict(stored) == RESULT


def test_result_of_an_older_version_is_read() -> None:
    """What was written before there were confirmations has none."""
    old = RESULT.as_dict()
    del old["confirmed"], old["comparison"], old["best"]["confirms"], old["test"]["models"], old["test"]["refit"]
    for trial in old["trials"]:
        for later in ("reason", "sibling_of", "confirms", "failure", "twins"):
            del trial[later]
    first, second = RESULT.trials
    assert SweepResult.from_dict(old) == replace(RESULT, trials=(first, replace(second, reason="")))


def test_what_only_the_journal_knows_is_not_told(tmp_path: Path) -> None:
    """A result of the journal's own records reads none of their histories, and tells the same once it is read back."""
    history = EpochHistory(tmp_path / "there is no such journal", (0,))
    own = replace(
        TRIAL,
        settings={"dropout": 0.5},
        model="training/x",
        late_stages={"training/x": 2.0},
        history=history,
        seconds=1.23456,
    )
    sibling = replace(own, number=1, sibling_of=0, reason="answered by trial 0")
    result = replace(RESULT, trials=(own, sibling))
    told = result.as_dict()
    assert [(trial["seconds"], trial["reason"]) for trial in told["trials"]] == [(1.235, ""), (1.235, "")]
    assert SweepResult.from_dict(told).as_dict() == told
    assert pickle.loads(pickle.dumps(result)).as_dict() == told  # noqa: S301 - our own bytes


def test_sweep_without_winner_is_read_back_equal(tmp_path: Path) -> None:
    """A sweep whose trials all failed has nulls where the winner would be."""
    lost = replace(RESULT, winner=None, test=None, registered=None, interrupted=True)
    lost.save(tmp_path / "result.json")
    assert SweepResult.load(tmp_path / "result.json") == lost


def test_not_a_number_becomes_null_and_not_a_number_again() -> None:
    """The JSON is strict: NaN, which JSON cannot say, is null, and reading it back gives NaN."""
    strange = replace(RESULT, trials=(replace(TRIAL, metrics={"val_loss": math.nan}),))
    text = json.dumps(strange.as_dict(), allow_nan=False)
    assert '"val_loss": null' in text
    assert math.isnan(SweepResult.from_dict(json.loads(text)).trials[0].metrics["val_loss"])


def test_a_result_from_before_there_were_goals_is_read() -> None:
    """What an older carsweep wrote is a sweep after accuracy alone."""
    old = {
        name: value for name, value in RESULT.as_dict().items() if name not in ("objectives", "constraints", "pareto")
    }
    read = SweepResult.from_dict(old)
    assert (read.objectives, read.constraints, read.pareto) == (("accuracy",), (), ())
