"""The scratch family on images read from disk: reproducible, resumable, shared with other families, exported whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import events_of

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.errors import InputError
from carcls.export import load_export
from carcls.families import evaluate_on_test, export_trial, preflight, run_trial
from carcls.outcome import Measurement
from carcls.stages import StageStore

SIZE = 32
BASIC = TrialConfig(
    family="scratch",
    precision="fp32",
    backbone="scratch",
    depth=3,
    width=8,
    image_size=SIZE,
    epochs=3,
    batch_size=8,
    lr_schedule="constant",
    crop="random",
    flip=True,
    jitter=0.2,
)
RESIDUAL = BASIC.model_copy(
    update={
        "depth": 2,
        "batch_norm": True,
        "residual": True,
        "stem": "stride2",
        "head_pooling": "max",
        "dropout": 0.3,
        "loss": "cosine",
        "label_smoothing": 0.1,
    }
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small lose more by sharing the work than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 16 training and 5 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 16, 5)


def _data(folder: Path, stages: StageStore) -> Dataset:
    return prepare_dataset(DataConfig(path=str(folder), validation_fraction=0.3), stages, SIZE)


def _numbers(reports: list[Measurement]) -> list[dict[str, float]]:
    return [
        {"epoch": report.epoch, **{k: v for k, v in report.metrics.items() if k != "seconds"}} for report in reports
    ]


def _run(config: TrialConfig, folder: Path, stages: StageStore) -> list[dict[str, float]]:
    reports: list[Measurement] = []
    run_trial(config, _data(folder, stages), stages, reports.append)
    return _numbers(reports)


@pytest.mark.parametrize("config", [BASIC, RESIDUAL], ids=["basic", "residual"])
def test_two_runs_of_a_trial_give_the_same_numbers(config: TrialConfig, folder: Path, tmp_path: Path) -> None:
    """In two stores that share nothing, equal config and seed give equal measurements; another seed does not."""
    first, second = (_run(config, folder, StageStore(tmp_path / name)) for name in ("a", "b"))
    assert first == second
    assert [report["epoch"] for report in first] == [1, 2, 3]
    assert first[-1]["train_loss"] < first[0]["train_loss"]
    assert _run(config.model_copy(update={"seed": 1}), folder, StageStore(tmp_path / "a")) != first


@pytest.mark.parametrize("config", [BASIC, RESIDUAL], ids=["basic", "residual"])
def test_a_killed_trial_goes_on_to_the_same_numbers(config: TrialConfig, folder: Path, tmp_path: Path) -> None:
    """A trial that is killed after each epoch in turn reports what the uninterrupted one reports."""
    whole = _run(config, folder, StageStore(tmp_path / "whole"))
    stages = StageStore(tmp_path / "killed")
    data = _data(folder, stages)
    for kill_after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_trial(config, data, stages, _interrupt_after(kill_after))
    assert _run(config, folder, stages) == whole


def _interrupt_after(epoch: int) -> Any:
    def report(measurement: Measurement) -> None:
        if measurement.epoch == epoch:
            raise KeyboardInterrupt

    return report


def test_a_training_is_shared_with_other_families(folder: Path, tmp_path: Path) -> None:
    """The same network in the transfer family is answered from the store: nothing is trained twice."""
    stages = StageStore(tmp_path)
    numbers = _run(BASIC, folder, stages)
    same = BASIC.model_copy(update={"family": "transfer", "unfreezing": "progressive", "backbone_lr": 0.5})
    assert _run(same, folder, stages) == numbers
    assert [e.event for e in events_of(stages) if e.kind == "training"] == ["made", "reused"]


def test_the_tints_are_learned(folder: Path, tmp_path: Path) -> None:
    """Twelve epochs of the smallest network tell three tints apart."""
    config = BASIC.model_copy(update={"epochs": 12, "depth": 2, "head_lr": 3e-3, "head_pooling": "average"})
    assert _run(config, folder, StageStore(tmp_path))[-1]["val_accuracy"] >= 0.9


@pytest.mark.parametrize("config", [BASIC, RESIDUAL], ids=["basic", "residual"])
def test_the_exported_model_answers_as_the_test_score_says(config: TrialConfig, folder: Path, tmp_path: Path) -> None:
    """The served model rebuilds the network from its folder alone; its probabilities are those of the test score."""
    stages = StageStore(tmp_path / "stages")
    data = _data(folder, stages)
    outcome = run_trial(config, data, stages, lambda _: None)
    score = evaluate_on_test(config, data, stages, outcome.model, tmp_path / "test.npz")
    export_trial(config, data, stages, outcome.model, tmp_path / "model")
    written = np.load(tmp_path / "test.npz")
    paths = [data.manifest.root / data.manifest.images[row].path for row in data.splits.test]
    predictor = load_export(tmp_path / "model")
    np.testing.assert_allclose(predictor.probabilities(paths), written["probabilities"], atol=1e-4)
    assert score.metrics["test_accuracy"] == pytest.approx((written["predicted"] == written["labels"]).mean())
    assert score.images == 15
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description["architecture"] == config.architecture()


def test_another_network_may_be_trained_from_nothing(folder: Path, tmp_path: Path) -> None:
    """A named backbone with random weights trains whole, whatever the unfreezing says."""
    config = BASIC.model_copy(
        update={"backbone": "timm:resnet10t", "weights": "random", "unfreezing": "frozen", "epochs": 1}
    )
    assert preflight([config], tmp_path)[0] == []
    stages = StageStore(tmp_path)
    (numbers,) = _run(config, folder, stages)
    assert 0 <= numbers["val_accuracy"] <= 1
    assert not [event for event in events_of(stages) if event.kind == "features"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet50", "weights": "auto"}, r"backbone must be scratch, or have random weights.*'resnet50'"),
        ({"backbone": "resnet50", "weights": "some/file.pth"}, r"--set backbone=scratch or --weights random"),
        ({"weights": "some/file.pth"}, r"weights must be random.*'some/file.pth'. Leave --weights out"),
        ({"depth": 6}, r"image_size must be at least 64 .* got 32. Use --set image_size=64 or --set depth=5"),
    ],
)
def test_a_mistake_is_found_before_the_sweep(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Pretrained weights and images that are too small are refused in one line, without looking for weights."""
    with pytest.raises(InputError, match=message) as caught:
        preflight([BASIC, BASIC.model_copy(update=settings)], tmp_path)
    assert "\n" not in str(caught.value)


def test_documented_networks_pass(tmp_path: Path) -> None:
    """The networks of the documented experiments need nothing but images."""
    documented = [BASIC, BASIC.model_copy(update={"depth": 4, "batch_norm": True, "dropout": 0.5})]
    assert preflight(documented, tmp_path)[0] == []


def test_the_transfer_family_says_that_nothing_is_transferred(tmp_path: Path) -> None:
    """A scratch network in the transfer family is allowed, and noted."""
    (note,), _ = preflight([BASIC.model_copy(update={"family": "transfer"})], tmp_path)
    assert "nothing is transferred" in note


def test_a_scratch_network_embeds_for_retrieval(folder: Path, tmp_path: Path) -> None:
    """The retrieval family searches a scratch network's own embeddings, and takes no other pooling."""
    config = BASIC.model_copy(update={"family": "retrieval", "k": 3})
    preflight([config], tmp_path)
    reports = _run(config, folder, StageStore(tmp_path))
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert 0 <= reports[-1]["val_recall_at_1"] <= 1
    with pytest.raises(InputError, match="pooling must be average for scratch"):
        preflight([config.model_copy(update={"pooling": "gem"})], tmp_path)
