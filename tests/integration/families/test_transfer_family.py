"""The transfer family on images read from disk: reproducible, shared, and exported as it was validated."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import events_of

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.export import load_export
from carcls.families import evaluate_on_test, export_trial, run_trial
from carcls.outcome import Measurement
from carcls.stages import StageStore

SIZE = 32
CONFIG = TrialConfig(
    backbone="efficientnet_lite0",
    image_size=SIZE,
    epochs=2,
    batch_size=8,
    unfreezing="full",
    crop="random",
    flip=True,
    precision="fp32",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 12 training and 4 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 12, 4)


def _data(folder: Path, stages: StageStore) -> Dataset:
    return prepare_dataset(DataConfig(path=str(folder), validation_fraction=0.3), stages, SIZE)


def _run(config: TrialConfig, data: Dataset, stages: StageStore) -> tuple[list[dict[str, float]], bool]:
    reports: list[Measurement] = []
    outcome = run_trial(config, data, stages, reports.append)
    assert [report.epoch for report in reports] == list(range(1, config.epochs + 1))
    numbers = [{k: v for k, v in report.metrics.items() if k != "seconds"} for report in reports]
    return numbers, outcome.reused


def test_two_runs_of_a_trial_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    """In two stores that share nothing, equal config and seed give equal measurements; another seed does not."""
    stores = [StageStore(tmp_path / name) for name in ("a", "b")]
    first, second = (_run(CONFIG, _data(folder, store), store) for store in stores)
    assert first == second
    assert not first[1]
    other = _run(CONFIG.model_copy(update={"seed": 1}), _data(folder, stores[0]), stores[0])
    assert other[0] != first[0]


def test_a_trial_that_was_trained_before_is_answered_from_the_store(folder: Path, tmp_path: Path) -> None:
    """Settings that cannot matter do not make another trial: nothing is trained, every epoch is reported."""
    stages = StageStore(tmp_path)
    data = _data(folder, stages)
    config = CONFIG.model_copy(update={"unfreezing": "frozen"})
    numbers, reused = _run(config, data, stages)
    again, reused_again = _run(config.model_copy(update={"backbone_lr": 0.5, "momentum": 0.1}), data, stages)
    assert (reused, reused_again) == (False, True)
    assert again == numbers
    assert [e.event for e in events_of(stages) if e.kind == "training"] == ["made", "reused"]


def test_the_exported_model_answers_the_test_images_as_the_test_score_says(folder: Path, tmp_path: Path) -> None:
    """Reading the files again, the servable model's hits are the test accuracy, and its probabilities those written."""
    stages = StageStore(tmp_path / "stages")
    data = _data(folder, stages)
    outcome = run_trial(CONFIG, data, stages, lambda _: None)
    score = evaluate_on_test(CONFIG, data, stages, outcome.model, tmp_path / "test.npz")
    export_trial(CONFIG, data, stages, outcome.model, tmp_path / "model")
    written = np.load(tmp_path / "test.npz")
    paths = [data.manifest.root / data.manifest.images[row].path for row in data.splits.test]
    predictor = load_export(tmp_path / "model")
    np.testing.assert_allclose(predictor.probabilities(paths), written["probabilities"], atol=1e-4)
    labels = [prediction.label for prediction in predictor.predict(paths)]
    truth = [data.classes[data.labels[row]] for row in data.splits.test]
    hits = np.mean([ours == theirs for ours, theirs in zip(labels, truth, strict=True)])
    assert score.metrics["test_accuracy"] == pytest.approx(hits)
    assert score.interval[0] <= hits <= score.interval[1]
    assert score.images == 12


def test_a_trial_says_which_numbers_it_computed_with(folder: Path, tmp_path: Path) -> None:
    """What ``auto`` came to is in the outcome, and the same trial, asked again, comes to the same."""
    stages = StageStore(tmp_path)
    data = _data(folder, stages)
    auto = CONFIG.model_copy(update={"precision": "auto", "epochs": 1})
    outcome = run_trial(auto, data, stages, lambda _: None)
    assert outcome.precision in ("fp32", "bf16")
    again = run_trial(auto, data, StageStore(tmp_path), lambda _: None)
    assert (again.precision, again.reused) == (outcome.precision, True)
