"""Sweeps compared with one another: as values, and by ``carsweep compare`` on folders as sweeps leave them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import trial_record
from rich.console import Console
from scipy.stats import binomtest

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from carcls.evaluation.predictions import StoredPredictions
from carcls.evaluation.significance import wilson_interval
from sweeps.cli.summary import print_outcome
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import Registered, SweepResult, TestEvaluation
from sweeps.run.comparison import NARROW_COLUMNS, WINNER_COLUMNS, Together, compare, sweep_json
from sweeps.tables import Column
from sweeps.trial import TrialRecord

IMAGES = 200


def trial(number: int, accuracy: float | None, *, derived_from: int | None = None, **settings: Any) -> TrialRecord:
    """Return a complete trial, or a failed one without accuracy."""
    family = "retrieval" if derived_from is not None or "k" in settings else "transfer"
    failed = {"status": "failed", "reason": "the loss became NaN"} if accuracy is None else {}
    config = {"dropout": TrialConfig().dropout, "family": family, **settings}
    return trial_record(number, accuracy, config=config, derived_from=derived_from, **failed)


def sweep(
    name: str, *trials: TrialRecord, test: float | None = None, digest: str = "d1", interrupted: bool = False
) -> SweepResult:
    """Return a sweep whose winner has a test accuracy."""
    complete = [t for t in trials if t.status == "complete"]
    best = max(complete, key=lambda t: t.metrics["val_accuracy"], default=None)
    family = trials[0].config["family"]
    splits = {"train": 300, "validation": 100, "test": IMAGES}
    return SweepResult(
        sweep=name,
        family=str(family),
        out="/runs",
        data=DataSummary("cars", digest, 600, 7, splits),
        board=Leaderboard(trials, TrialConfig.model_validate({"family": family}).model_dump(), 100),
        winner=best.number if best else None,
        test=None if test is None else TestEvaluation({"test_accuracy": test, "test_f1": test}, (0.0, 1.0), IMAGES),
        registered=None if test is None else Registered("carsweep-transfer", "3", "challenger", "models:/x"),
        tracking_uri="sqlite:////runs/mlflow.db",
        seconds=10.0,
        interrupted=interrupted,
    )


def answers(wrong: range, *, first_row: int = 0) -> StoredPredictions:
    """Return answers to all test images, right but for ``wrong``."""
    labels = np.arange(IMAGES) % 7
    predicted = labels.copy()
    predicted[list(wrong)] = 7
    return StoredPredictions(np.arange(first_row, first_row + IMAGES), labels, predicted)


def test_winners_on_the_same_images_are_compared_in_pairs_best_first() -> None:
    """Every pair has its discordant counts and a p-value; Holm multiplies the smallest of three by three."""
    results = [sweep("b", trial(0, 0.5), test=0.8), sweep("a", trial(0, 0.6), test=0.95)]
    results.append(sweep("c", trial(0, 0.4), test=0.79))
    stored = {"a": answers(range(10)), "b": answers(range(40)), "c": answers(range(20, 62))}
    (group,) = compare(results, stored)
    assert [line.sweep for line in group.sweeps] == ["a", "b", "c"]
    assert [(pair.first, pair.second) for pair in group.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    counts = [(pair.numbers.first_only, pair.numbers.second_only) for pair in group.pairs]
    assert counts == [(30, 0), (42, 10), (22, 20)]
    p_values = [binomtest(one, one + other, 0.5).pvalue for one, other in counts]
    adjusted = [pair.adjusted for pair in group.pairs]
    assert adjusted == pytest.approx([3 * p_values[0], 2 * p_values[1], p_values[2]])
    assert [pair.verdict for pair in group.pairs] == ["better", "better", "no difference shown"]


def test_correction_takes_back_what_one_test_alone_would_show() -> None:
    """Nine to one is shown at 5% between two sweeps, and no longer when three pairs are tested."""
    two = {"a": answers(range(1)), "b": answers(range(1, 10))}
    named = {"a": sweep("a", trial(0, 0.5), test=199 / 200), "b": sweep("b", trial(0, 0.5), test=191 / 200)}
    named["c"] = sweep("c", trial(0, 0.5), test=198 / 200)
    alone = compare([named["a"], named["b"]], two)[0].pairs
    assert [pair.verdict for pair in alone] == ["better"]
    three = compare(list(named.values()), {**two, "c": answers(range(20, 22))})[0].pairs
    (pair,) = [pair for pair in three if (pair.first, pair.second) == ("a", "b")]
    assert pair.numbers == alone[0].numbers
    assert pair.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("digest", "other"),
    [("d2", answers(range(40))), ("d1", answers(range(40), first_row=5)), ("d1", answers(range(41)))],
)
def test_answers_to_other_images_or_of_an_earlier_winner_are_in_no_pair(digest: str, other: StoredPredictions) -> None:
    """Another data set, with its own ranking; rows that differ; an accuracy that is not the result's."""
    results = [sweep("a", trial(0, 0.5), test=0.95), sweep("b", trial(0, 0.5), test=0.8, digest=digest)]
    groups = compare(results, {"a": answers(range(10)), "b": other})
    assert [len(group.sweeps) for group in groups] == ([2] if digest == "d1" else [1, 1])
    assert not any(group.pairs for group in groups)


def test_interrupted_and_failed_sweeps_show_as_such_after_those_with_a_score() -> None:
    """Without a test score a sweep stands below, with its status and the reason of a failure."""
    results = [
        sweep("broken", trial(0, None)),
        sweep("stopped", trial(0, 0.9), interrupted=True),
        sweep("done", trial(0, 0.2), test=0.1),
    ]
    sweeps = compare(results, {})[0].sweeps
    statuses = {"done": "complete", "stopped": "interrupted", "broken": "failed"}
    assert [(one.sweep, one.status) for one in sweeps] == list(statuses.items())
    done, stopped, broken = map(sweep_json, sweeps)
    assert broken["reason"] == "the loss became NaN"
    assert (broken["val_accuracy"], stopped["test_accuracy"], stopped["registered"]) == (None, None, "")
    assert done["registered"] == "carsweep-transfer 3"
    low, high = wilson_interval(20, 100)
    assert done["val_half_width"] == pytest.approx((high - low) / 2)


def test_a_line_names_the_experiment_that_won() -> None:
    """The documented experiment, also where a run of it with a fresh seed stands for it; the search; or nothing."""
    named, searched = replace(trial(0, 0.5), experiment="transfer/frozen"), trial(1, 0.4)
    trials = ([named, searched], [named, replace(trial(2, 0.6), confirms=0)], [searched], [trial(0, None)])
    assert [sweep("a", *some).model for some in trials] == ["transfer/frozen", "transfer/frozen", "search", "none"]


def test_top_rows_have_the_best_of_each_network_and_what_differs_between_sweeps() -> None:
    """Of a trial and what it answered on its way the best is shown, only trials that ran are counted; a NaN is null.

    A setting that is the same in all sweeps of the data set is left out; one at its default goes unsaid.
    """
    trials = [trial(0, 0.5, k=10), trial(1, 0.6, k=5, derived_from=0), trial(2, 0.4, k=1, derived_from=0)]
    (group,) = compare([sweep("r", *trials, trial(3, 0.55, k=7), test=float("nan"))], {"r": answers(range(0))})
    (told,) = json.loads(json.dumps(group.as_dict(), allow_nan=False))["sweeps"]
    assert (told["test_accuracy"], told["trials"]) == (None, 2)
    assert [row["number"] for row in told["top"]] == [1, 3]
    one = sweep("a", trial(0, 0.5, image_size=64, dropout=0.3), trial(1, 0.4, image_size=64), test=0.5)
    other = sweep("b", trial(0, 0.3, image_size=64, optimizer="sgd"), test=0.4)
    (group,) = compare([one, other], {})
    tops = [[row.settings for row in group.top(result, 1)] for result in group.sweeps]
    assert tops == [[{"dropout": 0.3}], [{"optimizer": "sgd"}]]


@pytest.mark.parametrize(("width", "columns"), [(80, NARROW_COLUMNS), (120, WINNER_COLUMNS)])
def test_the_table_has_a_row_for_each_family(width: int, columns: list[Column[SweepResult]]) -> None:
    """A family without a winner has dashes, and keeps the job from being whole; a narrow terminal cuts nothing off."""
    won = {"transfer": trial(0, 0.731), "retrieval": trial(0, 0.7, k=3)}
    results = {family: sweep(family, best, test=0.731) for family, best in won.items()}
    assert Together("job", 7e4, results).is_whole
    together = Together("job", 7e4, {**results, "scratch": sweep("none", trial(0, None, family="scratch"))})
    assert not together.is_whole
    assert "| scratch | none | – | – | – | 1 | 10.0 s | – |" in together.markdown().splitlines()
    file = io.StringIO()
    print_outcome(Console(file=file, width=width), Path("runs"), together)
    text = file.getvalue().partition("the winners of all families, in 19 h 26 min\n")[2].partition("\n\n")[0]
    assert "…" not in text
    assert all(column.title in text.splitlines()[0] for column in columns)
    assert all(word in text for word in ("73.1% ±8.6", "73.1% ±50.0", "carsweep-transfer 3", "–"))
    assert max(len(line) for line in text.splitlines()) <= width
    assert not [line for line in text.splitlines() if line != line.rstrip()]


Run = Callable[..., tuple[int, str, str]]


def write(name: str, wrong: range, *, digest: str = "0123456789abcdef", **settings: Any) -> Path:
    """Write what a sweep with one trial leaves that the command reads; return its folder."""
    folder, given = Path("runs") / name, answers(wrong)
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("family: transfer\n")
    np.savez(folder / "test-predictions.npz", rows=given.rows, labels=given.labels, predicted=given.predicted)
    sweep(name, trial(0, 0.5, **settings), test=given.accuracy, digest=digest).save(folder / "result.json")
    return folder


@pytest.fixture
def compare_command(run: Run) -> Run:
    """Run the command beside two sweeps that differ, one that differs from neither, and one of another data set."""
    write("weak", range(30), dropout=0.4)
    write("strong", range(10))
    write("middle", range(10, 22))
    write("elsewhere", range(5), digest="fedcba9876543210")
    return lambda *words: run("compare", *words)


def test_all_sweeps_are_shown_with_their_pairs(compare_command: Run) -> None:
    """Each data set has a table, best first; pairs say who is better or that no difference is shown."""
    code, told, _ = compare_command()
    assert (code, told.count("test accuracy")) == (0, 2)
    assert told.index("strong") < told.index("middle") < told.index("weak")
    assert "strong – weak: +10.00 [" in told
    assert "right alone 20 and 0, p = 5.72e-06: strong is better" in told
    assert "strong – middle: +1.00 [" in told
    assert "right alone 12 and 10, p = 0.832: no difference shown" in told
    assert ("elsewhere –" in told, "– elsewhere" in told) == (False, False)
    assert "ui --out runs" in told


def test_tables_fit_a_narrow_terminal(compare_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 80 columns no line of a table is wider; sentences wrap where the terminal wraps them."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = compare_command("strong", "weak")[1].splitlines()
    assert sum(line.startswith("rank") for line in narrow) == 2
    assert all(len(line) <= 80 for line in narrow if "–" not in line and "MLflow" not in line)


def test_what_is_damaged_or_unfinished_is_told_beside_the_others(compare_command: Run) -> None:
    """The JSON has groups, and what is unfinished or unreadable; without its answers a sweep is in no pair."""
    Path("runs/running").mkdir()
    Path("runs/running/spec.yaml").write_text("family: transfer\n")
    (write("damaged", range(3)) / "result.json").write_text("{")
    code, told, _ = compare_command("--json")
    value = json.loads(told)
    groups = [[line["sweep"] for line in group["sweeps"]] for group in value["groups"]]
    assert (code, groups) == (0, [["elsewhere"], ["strong", "middle", "weak"]])
    assert (len(value["groups"][1]["pairs"]), value["unfinished"]) == (3, ["running"])
    assert value["unreadable"][0].startswith("damaged: result.json must be one that this carsweep wrote, got")
    Path("runs/weak/test-predictions.npz").write_bytes(b"PK\x03\x04 not a zip")
    code, told, _ = compare_command("weak", "strong")
    assert code == 0
    assert "85.0%" in told
    assert "weak: test-predictions.npz must hold rows, labels and predicted" in told
    assert "p =" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stron"], "got 'stron'. Did you mean strong? Known: elsewhere, middle, strong, weak."),
        (["--top", "0"], "--top"),
        (["--out", "."], "--out must be a folder with sweeps"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], said: str, compare_command: Run) -> None:
    """An unknown sweep names the nearest one; a folder without sweeps says what to name; exit code 2."""
    code, told, error = compare_command(*words)
    assert (code, told, error.count("\n")) == (2, "", 1)
    assert said in error
