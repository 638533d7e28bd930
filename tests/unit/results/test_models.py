"""The models of trials: compared by stored answers to the validation images, evaluated once on the test set."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import trial_record
from numpy.typing import NDArray
from scipy.stats import binomtest

import carcls.families
from carcls.config import TrialConfig
from carcls.data.config import DataSummary
from carcls.evaluation.predictions import read_predictions
from carcls.families import TestScore
from carcls.stages import StageStore
from sweeps.cli.summary import verdict_lines
from sweeps.results.evaluations import count_evaluations, evaluate, export, find_evaluation
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.models import compare_winner
from sweeps.results.result import Compared, SweepResult, TestEvaluation
from sweeps.trial import TrialRecord

IMAGES = 200
LABELS = np.zeros(IMAGES, np.int64)


@dataclass
class Sweep:
    """Trials with stored answers, in a folder."""

    folder: Path
    records: list[TrialRecord] = field(default_factory=list)

    def add(self, hits: int | NDArray[np.bool_], first: int = 0, **changes: Any) -> None:
        """Add a complete trial that has ``hits`` right, or as many from the image ``first`` on."""
        number = len(self.records)
        right = (np.arange(IMAGES) >= first) & (np.arange(IMAGES) < first + hits) if isinstance(hits, int) else hits
        predicted, name = np.where(right, 0, 1).astype(np.int64), f"trial-{number}.npz"
        np.savez(self.folder / name, rows=np.arange(IMAGES), labels=LABELS, predicted=predicted)
        self.records.append(trial_record(number, float(right.mean()), predictions=name, **changes))

    @property
    def result(self) -> SweepResult:
        """The sweep's result without a comparison."""
        board = Leaderboard(tuple(self.records), images=IMAGES)
        data = DataSummary("cars", "abc", 400, 2, {"train": 100, "validation": IMAGES, "test": 100})
        return SweepResult("mine", "transfer", "/runs", data, board, board.rows[0].trial.number, None, None, "", 1.0)

    def compare(self) -> tuple[Compared, ...]:
        """Compare the winner."""
        return self.compared_into(None)

    def compared_into(self, answers: Path | None) -> tuple[Compared, ...]:
        """Compare the winner, whose answers go to a file."""
        data: Any = SimpleNamespace(splits=SimpleNamespace(validation=np.arange(IMAGES)), classes=("a", "b"))
        return compare_winner(data, StageStore(self.folder), result=self.result, answers=answers)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Return a sweep without trials, whose folder is the cached stage of their answers."""
    (tmp_path / "key.json").touch()
    return Sweep(tmp_path)


def test_winner_is_compared_with_the_best_other_network_by_exact_mcnemar(sweep: Sweep) -> None:
    """Without confirmation there is one comparison; combinations of the winner's own network are skipped."""
    sweep.add(100, first=20)
    sweep.add(120)
    sweep.add(119, derived_from=1)
    sweep.add(60)
    (compared,) = sweep.compare()
    assert compared.against == 0
    assert compared.difference == pytest.approx(0.1)
    assert compared.p == pytest.approx(binomtest(20, 20).pvalue)
    assert compared.interval[0] < 0.1 < compared.interval[1]
    assert compared.shown


def test_a_small_difference_is_not_shown_and_said_so(sweep: Sweep) -> None:
    """Three images more are no difference, in these words."""
    sweep.add(103)
    sweep.add(100, first=2)
    compared = sweep.compare()
    assert not compared[0].shown
    (line,) = verdict_lines(replace(sweep.result, comparison=compared))
    assert line.startswith("Trial 0 against the runner-up, trial 1, on 200 validation images: +1.5 points (95% ")
    assert line.endswith("no difference shown.")


def test_confirmed_winner_is_compared_with_each_other_one_over_all_seeds(sweep: Sweep) -> None:
    """Differences are of means over fresh seeds, p-values are corrected by Holm, and the search's runs do not speak."""
    rng = np.random.default_rng(0)
    for right in (150, 100, 102):
        sweep.add(right)
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


def test_the_winners_answers_are_written_as_the_registry_compares_them(sweep: Sweep, tmp_path: Path) -> None:
    """Those of the run that the search chose first, then those of its fresh seeds; none stay where they are unknown."""
    sweep.add(150)
    sweep.add(100)
    file = tmp_path / "answers.npz"
    sweep.compared_into(file)
    assert read_predictions(file).hits.sum() == 150
    for hits in (149, 140):
        sweep.add(hits, confirms=0)
    sweep.compared_into(file)
    with np.load(file) as stored:
        assert (stored["confirmed"] == stored["labels"]).sum(axis=1).tolist() == [149, 140]
        assert stored["classes"].tolist() == ["a", "b"]
    assert read_predictions(file).hits.sum() == 150
    (tmp_path / "trial-2.npz").unlink()
    sweep.compared_into(file)
    assert not file.exists()


def test_where_there_are_no_pairs_nothing_is_compared(sweep: Sweep) -> None:
    """One trial alone; a runner-up that answered other images, or whose answers are gone; a winner whose are gone."""
    sweep.add(120)
    assert sweep.compare() == ()
    assert verdict_lines(sweep.result) == []
    sweep.add(100)
    assert sweep.compare() != ()
    np.savez(sweep.folder / "trial-1.npz", rows=np.arange(IMAGES) + 1, labels=LABELS, predicted=LABELS)
    assert sweep.compare() == ()
    for name in ("trial-1.npz", "trial-0.npz"):
        (sweep.folder / name).unlink()
        assert sweep.compare() == ()


@pytest.mark.parametrize(("changed", "idle"), [("predict_ms", True), ("ms_per_query", True), ("val_f1", False)])
def test_seeds_that_change_nothing_but_times_are_idle(changed: str, idle: bool, sweep: Sweep) -> None:
    """Runs of one model differ in what the clock says of them, which is no difference; any score is one."""
    sweep.add(120)
    for run in range(2):
        metrics = {"val_accuracy": 0.6, "val_f1": 0.5, "predict_seconds": 1.0 + run, changed: 2.0 + run}
        sweep.add(120, confirms=0, metrics=metrics)
    said = "The seed changes nothing in trial 0: all its runs are the same model."
    assert (said in verdict_lines(sweep.result)) == idle


@dataclass(frozen=True)
class Images:
    """What of a data set an evaluation asks for."""

    digest: str = "images"

    def refitted(self) -> Images:
        """Return what a refit is trained on."""
        return Images("images and validation")


@dataclass
class Reader:
    """Stands for the family that answers the test images; dies or fails when told to."""

    dies: bool = False
    fails: bool = False
    models: list[str] = field(default_factory=list)
    exports: Callable[[], None] = lambda: None

    def __call__(self, _config: object, _data: object, _stages: object, model: str, *_: object) -> TestScore:
        """Note the evaluation, and answer or die."""
        self.models.append(model)
        self.exports()
        if self.dies:
            raise KeyboardInterrupt
        if self.fails:
            raise MemoryError
        return TestScore({"test_accuracy": 0.5}, (0.4, 0.6), 100)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Take the place of reading images with a network."""
    reader = Reader()
    monkeypatch.setattr(carcls.families, "evaluate_on_test", reader)
    monkeypatch.setattr(carcls.families, "refit_trial", lambda config, *_: f"refit-{config.dropout}")
    monkeypatch.setattr("sweeps.results.evaluations.model_on_disk", lambda _stages, _data, record, *_: record.model)
    monkeypatch.setattr("sweeps.results.evaluations.confidence_of", lambda *_: None)
    return reader


def read(folder: Path, number: int, *, file: str = "test.json", refit: bool = False) -> TestEvaluation:
    """Evaluate the model of a trial, unless its score is known."""
    record, data = trial_record(number, 0.5, model=f"model-{number}"), Images()
    known = find_evaluation(record, data, folder / file, refit=refit)  # type: ignore[arg-type]
    if known is not None:
        return known
    more: dict[str, Any] = {"path": folder / file, "predictions": folder / "predictions.npz"}
    return evaluate(data, StageStore(folder / "stages"), record=record, refit=refit, **more)[0]  # type: ignore[arg-type]


def test_a_model_is_evaluated_once_and_another_model_is_another_evaluation(tmp_path: Path, reader: Reader) -> None:
    """Asked again, the sweep answers from what it wrote; with a new winner, or a refit, it says that it looked twice.

    Each documented experiment has a file of its own, and the sweep's count is over all of them.
    """
    assert read(tmp_path, 1) == read(tmp_path, 1)
    assert count_evaluations(tmp_path) == (1, 1)
    assert (read(tmp_path, 2).evaluations, read(tmp_path, 2).models) == (2, 2)
    refit = read(tmp_path, 2, refit=True)
    assert (refit.evaluations, refit.models, refit.refit) == (3, 3, True)
    documented = [read(tmp_path, number, file=f"test-{number:04d}.json") for number in (3, 4)]
    assert [(test.evaluations, test.models, test.refit) for test in documented] == [(4, 4, False), (5, 5, False)]
    assert reader.models == ["model-1", "model-2", "refit-0.02", "model-3", "model-4"]


def test_an_evaluation_whose_score_was_lost_counts(tmp_path: Path, reader: Reader) -> None:
    """Who dies while reading has read: the second attempt is the second evaluation of one model.

    A count that cannot be read is no reason to begin at nothing either: a damaged file held one at least.
    """
    reader.dies = True
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, 1)
    reader.dies = False
    test = read(tmp_path, 1)
    assert (test.evaluations, test.models) == (2, 1)
    (tmp_path / "test.json").write_text('{"readings": 1, "tri')
    assert read(tmp_path, 1).evaluations == 2
    assert reader.models == ["model-1"] * 3


def test_an_evaluation_that_failed_does_not_count(tmp_path: Path, reader: Reader) -> None:
    """As for lack of memory: nobody has seen a score, neither the first time nor of another model."""
    for number in (1, 2):
        reader.fails = True
        with pytest.raises(MemoryError):
            read(tmp_path, number)
        assert count_evaluations(tmp_path) == (number - 1, number - 1)
        reader.fails = False
        assert read(tmp_path, number).evaluations == number


@dataclass
class Exported:
    """Evaluates and exports a refit of trial 1; what is exported has the tensors ``content``.

    Attributes:
        content: of the file of weights, as its checksum.
        models: that were exported without being evaluated.
    """

    folder: Path
    content: str = "a"
    models: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Say which model, which data and which files."""
        record, data, stages = trial_record(1, 0.5, model="model-1"), Images(), StageStore(self.folder / "stages")
        self.given: dict[str, Any] = {"data": data, "stages": stages, "record": record, "refit": True}
        self.given |= {"path": self.folder / "test.json", "predictions": self.folder / "predictions.npz"}
        self.given |= {"folder": self.folder / "model", "details": {}}

    def write(self, *given: Any) -> None:
        """Stand for ``export_trial``."""
        self.models.append(given[3])
        self.describe()

    def describe(self) -> None:
        """Write what an export says of its files."""
        (self.folder / "model").mkdir(exist_ok=True)
        files = {"model.safetensors": {"blake2b": self.content}, "thumbnails.bin": {"blake2b": str(len(self.models))}}
        (self.folder / "model" / "model.json").write_text(json.dumps({"files": files}))


@pytest.fixture
def exported(tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Exported:
    """Take the place of exporting a model."""
    exported = Exported(tmp_path)
    reader.exports = exported.describe
    monkeypatch.setattr(carcls.families, "refit_trial", lambda config, *_: f"refit-in-{config.micro_batch}")
    monkeypatch.setattr(carcls.families, "export_trial", exported.write)
    return exported


@pytest.mark.parametrize("evaluated_in", [None, 16])
def test_the_model_that_is_exported_is_the_one_that_was_evaluated(
    reader: Reader, exported: Exported, evaluated_in: int | None
) -> None:
    """A refit that was trained in micro-batches for its score is another model, once memory is free again, too."""
    first, _ = evaluate(**exported.given, micro_batch=evaluated_in)
    assert export(**exported.given) == (first, [])
    assert reader.models == exported.models == [f"refit-in-{evaluated_in}"]


def test_a_model_that_is_not_the_one_that_was_evaluated_is_evaluated_too(reader: Reader, exported: Exported) -> None:
    """As one made again on another machine, or whose score is of an older version; it is counted and said."""
    evaluate(**exported.given)
    exported.content = "b"
    test, notes = export(**exported.given)
    assert (test.evaluations, test.models, len(notes)) == (2, 1, 1)
    path = exported.given["path"]
    written = json.loads(path.read_text())
    del written["tensors"]
    path.write_text(json.dumps(written))
    assert export(**exported.given)[0].evaluations == 3
    assert export(**exported.given)[0].evaluations == len(reader.models) == 3


def test_files_of_older_versions_count_one_model_an_evaluation(tmp_path: Path, reader: Reader) -> None:
    """A file without names of models may have counted another one at each evaluation; its score is kept."""
    old = {"trial": TrialConfig(dropout=0.01).digest, "data": "images", "number": 0, "readings": 2, "images": 100}
    old |= {"metrics": {"test_accuracy": 0.4}, "interval": [0.3, 0.5]}
    (tmp_path / "test.json").write_text(json.dumps(old))
    test = read(tmp_path, 1)
    assert (test.evaluations, test.models, test.metrics) == (2, 2, {"test_accuracy": 0.4})
    assert read(tmp_path, 2).models == 3
    assert reader.models == ["model-2"]
