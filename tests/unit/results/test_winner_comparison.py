"""Whether the winner differs from those that it won against, from stored answers to the validation images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from carcls.stages import StageStore
from sweeps.cli.summary import verdict_lines
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.models import compare_winner
from sweeps.results.result import Compared, SweepResult
from sweeps.trial import TrialRecord

IMAGES = 200
LABELS = np.zeros(IMAGES, np.int64)


@dataclass
class Sweep:
    """Trials with stored answers, in a folder."""

    folder: Path
    records: list[TrialRecord] = field(default_factory=list)

    def add(self, hits: NDArray[np.bool_], **changes: Any) -> None:
        """Add a complete trial that has ``hits`` right."""
        number = len(self.records)
        name = f"trial-{number}.npz"
        predicted = np.where(hits, 0, 1).astype(np.int64)
        np.savez(self.folder / name, rows=np.arange(IMAGES), labels=LABELS, predicted=predicted)
        config = TrialConfig(dropout=number / 100).model_dump()
        metrics = {"val_accuracy": float(hits.mean())}
        self.records.append(
            TrialRecord(number, None, {}, config, "complete", metrics, 1, 1.0, predictions=name, **changes)
        )

    @property
    def result(self) -> SweepResult:
        """The sweep's result without a comparison."""
        trials = tuple(self.records)
        best = max((t for t in trials if t.confirms is None), key=lambda trial: trial.metrics["val_accuracy"])
        data = DataSummary("cars", "abc", 400, 2, {"train": 100, "validation": IMAGES, "test": 100})
        return SweepResult("mine", "transfer", "/runs", data, Leaderboard(trials), best.number, None, None, "", 1.0)

    def compare(self) -> tuple[Compared, ...]:
        """Compare the winner."""
        data: Any = SimpleNamespace(splits=SimpleNamespace(validation=np.arange(IMAGES)))
        return compare_winner(data, StageStore(self.folder), result=self.result)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Return a sweep without trials, whose folder is the cached stage of their answers."""
    (tmp_path / "key.json").touch()
    return Sweep(tmp_path)


def hits_of(right: int, first: int = 0) -> NDArray[np.bool_]:
    """Return answers of which ``right`` are right, from an image on."""
    hits = np.zeros(IMAGES, bool)
    hits[first : first + right] = True
    return hits


def test_winner_is_compared_with_the_runner_up_by_exact_mcnemar(sweep: Sweep) -> None:
    """Without confirmation there is one comparison, with the second of the leaderboard."""
    for right, first in ((100, 20), (120, 0), (60, 0)):
        sweep.add(hits_of(right, first))
    (compared,) = sweep.compare()
    assert compared.against == 0
    assert compared.difference == pytest.approx(0.1)
    assert compared.p == pytest.approx(binomtest(20, 20).pvalue)
    assert compared.interval[0] < 0.1 < compared.interval[1]
    assert compared.shown


def test_a_small_difference_is_not_shown_and_said_so(sweep: Sweep) -> None:
    """Three images more are no difference, in these words."""
    sweep.add(hits_of(103))
    sweep.add(hits_of(100, 2))
    result = sweep.result
    compared = sweep.compare()
    assert not compared[0].shown
    (line,) = verdict_lines(replace(result, comparison=compared))
    assert line.startswith("Trial 0 against the runner-up, trial 1, on 200 validation images: +1.5 points (95% ")
    assert line.endswith("no difference shown.")


def test_siblings_of_the_winner_are_no_runner_up(sweep: Sweep) -> None:
    """Combinations of the same network are skipped: the runner-up is another network."""
    sweep.add(hits_of(120))
    sweep.add(hits_of(119), sibling_of=0)
    sweep.add(hits_of(110))
    (compared,) = sweep.compare()
    assert compared.against == 2


def test_confirmed_winner_is_compared_with_each_other_one_over_all_seeds(sweep: Sweep) -> None:
    """Differences are of means over fresh seeds, p-values are corrected by Holm, and the search's runs do not speak."""
    rng = np.random.default_rng(0)
    for right in (150, 100, 102):
        sweep.add(hits_of(right))
    for number, share in ((0, 0.5), (0, 0.55), (1, 0.9), (1, 0.92), (2, 0.89), (2, 0.9)):
        sweep.add(rng.random(IMAGES) < share, confirms=number)
    compared = sweep.compare()
    means = {one.number: one.mean for one in sweep.result.board.confirmed}
    winner, *others = means
    assert [one.against for one in compared] == others
    assert (winner in (1, 2), others[1]) == (True, 0)
    for one in compared:
        assert one.difference == pytest.approx((means[winner] or 0) - (means[one.against] or 0))
    assert [one.shown for one in compared] == [False, True]
    assert compared[1].p < 0.001


def test_where_there_are_no_pairs_nothing_is_compared(sweep: Sweep) -> None:
    """One trial alone; a runner-up that answered other images, or whose answers are gone; a winner whose are gone."""
    sweep.add(hits_of(120))
    assert sweep.compare() == ()
    assert verdict_lines(sweep.result) == []
    sweep.add(hits_of(100))
    assert sweep.compare() != ()
    np.savez(sweep.folder / "trial-1.npz", rows=np.arange(IMAGES) + 1, labels=LABELS, predicted=LABELS)
    assert sweep.compare() == ()
    for name in ("trial-1.npz", "trial-0.npz"):
        (sweep.folder / name).unlink()
        assert sweep.compare() == ()


@pytest.mark.parametrize(("changed", "idle"), [("predict_ms", True), ("ms_per_query", True), ("val_f1", False)])
def test_seeds_that_change_nothing_but_times_are_idle(changed: str, idle: bool, sweep: Sweep) -> None:
    """Runs of one model differ in what the clock says of them, which is no difference; any score is one."""
    sweep.add(hits_of(120))
    for run in range(2):
        sweep.add(hits_of(120), confirms=0)
        sweep.records[-1].metrics.update({"val_f1": 0.5, "predict_seconds": 1.0 + run, changed: 2.0 + run})  # type: ignore[attr-defined]
    said = "The seed changes nothing in trial 0: all its runs are the same model."
    assert (said in verdict_lines(sweep.result)) == idle
