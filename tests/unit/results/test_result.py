"""The object that --json writes, and its way to disk and back."""

from __future__ import annotations

import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from carcls.errors import InputError
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Compared, Registered, SweepResult, TestEvaluation, read_result
from sweeps.spec.objectives import Goals
from sweeps.study.journal import EpochHistory
from sweeps.trial import Duplicate, TrialRecord

TRIAL = TrialRecord(0, "transfer/frozen", {}, {"dropout": 0.5}, "complete", {"val_accuracy": 0.5}, 3, 1.5)
FAILED = replace(TRIAL, number=1, experiment=None, status="failed", metrics={}, reason="NaN loss")


def board_of(*trials: TrialRecord) -> Leaderboard:
    """Return a leaderboard as that of a result which was read back."""
    return Leaderboard(trials, TrialConfig().model_dump(), 4)


RESULT = SweepResult(
    sweep="mine",
    family="transfer",
    out="/runs",
    data=DataSummary("cars", "abc", 30, 2, {"train": 20, "validation": 4, "test": 6}),
    board=board_of(TRIAL, FAILED),
    winner=0,
    test=TestEvaluation({"test_accuracy": 0.5}, (0.2, 0.8), 6),
    registered=Registered("carsweep-transfer", "1", "challenger", "models:/carsweep-transfer@challenger"),
    tracking_uri="sqlite:////runs/mlflow.db",
    seconds=12.5,
)


def test_object_has_exactly_the_documented_fields() -> None:
    """Scripts find the fields that the example in docs/json.md shows, and no others but old names of these."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "json.md").read_text(encoding="utf-8")
    shown = json.loads(text.split("```json\n")[1].split("```")[0])
    old = set(re.findall(r"^\| `(\w+)` \| `\w+` \|", text, re.MULTILINE))
    told = replace(RESULT, comparison=(Compared(1, 0.0, (0.0, 0.0), 1.0, False),)).as_dict()
    assert set(told) == set(shown)
    for part in ("data", "best", "test", "registered"):
        assert set(told[part]) - old == set(shown[part])
    for part in ("trials", "comparison"):
        assert set(told[part][0]) - old == set(shown[part][0])


TWIN = replace(TRIAL, duplicates=(Duplicate(9, True, {"dropout": 0.501}),))
GOALS = Goals.parse(["predict_time", "accuracy"], ["parameters <= 10M"])


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        replace(RESULT, board=board_of(TRIAL, replace(TRIAL, number=2, confirms=0)), winner=2),
        replace(RESULT, comparison=(Compared(1, 0.05, (-0.01, 0.11), 0.2, False),)),
        replace(RESULT, board=board_of(TWIN, FAILED)),
        replace(RESULT, board=replace(RESULT.board, goals=GOALS)),
        replace(RESULT, winner=None, test=None, registered=None, interrupted=True),
    ],
    ids=["plain", "confirmed", "compared", "twins", "goals", "no winner"],
)
def test_saved_result_is_read_back_equal(tmp_path: Path, result: SweepResult) -> None:
    """Nothing is lost between writing and reading, and a folder that was renamed gives the sweep its name."""
    folder = tmp_path / "renamed"
    folder.mkdir()
    assert read_result(folder) is None
    result.save(folder / "result.json")
    assert read_result(folder) == replace(result, sweep="renamed")


def test_damaged_result_says_what_to_do(tmp_path: Path) -> None:
    """A file that is no result is named, with the way on."""
    (tmp_path / "result.json").write_text('{"sweep": "mi')
    with pytest.raises(InputError, match=r"result\.json must be one that this carsweep wrote.*Move it away"):
        read_result(tmp_path)


def test_result_of_an_older_version_is_read() -> None:
    """What was written before there were confirmations and goals has none, and is a sweep after accuracy alone."""
    old = RESULT.as_dict()
    for later in ("confirmed", "comparison", "objectives", "constraints", "pareto"):
        del old[later]
    del old["best"]["confirms"], old["test"]["models"], old["test"]["refit"]
    for trial in old["trials"]:
        for later in ("reason", "sibling_of", "confirms", "failure", "twins"):
            del trial[later]
    first, second = RESULT.trials
    assert SweepResult.from_dict(old) == replace(RESULT, board=board_of(first, replace(second, reason="")))


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
    sibling = replace(own, number=1, derived_from=0)
    result = replace(RESULT, board=board_of(own, sibling))
    told = result.as_dict()
    assert [(trial["seconds"], trial["reason"]) for trial in told["trials"]] == [(1.235, ""), (1.235, "")]
    assert SweepResult.from_dict(told).as_dict() == told
    assert pickle.loads(pickle.dumps(result)).as_dict() == told  # noqa: S301 - our own bytes


def test_not_a_number_becomes_null_and_not_a_number_again() -> None:
    """The JSON is strict: NaN, which JSON cannot say, is null, and reading it back gives NaN."""
    test = replace(RESULT.test, metrics={"test_loss": math.inf})
    strange = replace(RESULT, test=test, board=board_of(replace(TRIAL, metrics={"val_loss": math.nan})))
    text = json.dumps(strange.as_dict(), allow_nan=False)
    assert '"val_loss": null' in text
    read = SweepResult.from_dict(json.loads(text))
    assert math.isnan(read.trials[0].metrics["val_loss"])
    assert read.test is not None
    assert math.isnan(read.test.metrics["test_loss"])
