"""Transfer and scratch on images read from disk: reproducible, resumable, shared, and exported as they were tested."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_trials import SIZE, numbers, one_thread, read, run
from helpers import events_of

from carcls.catalog import BACKBONES, FAMILIES, BackboneRecord
from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.export import load_export
from carcls.families import evaluate_on_test, export_trial, known_costs, preflight, run_trial
from carcls.outcome import Measurement
from carcls.stages import StageStore

TRANSFER = TrialConfig(
    backbone="efficientnet_lite0", image_size=SIZE, epochs=2, batch_size=8, unfreezing="full", precision="fp32"
)
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
KINDS = pytest.mark.parametrize("config", [TRANSFER, BASIC, RESIDUAL], ids=["transfer", "basic", "residual"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 16 training and 5 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 16, 5)


@pytest.fixture
def stages(tmp_path: Path) -> StageStore:
    """An empty store."""
    return StageStore(tmp_path / "stages")


@KINDS
def test_two_runs_of_a_trial_give_the_same_numbers(config: TrialConfig, folder: Path, tmp_path: Path) -> None:
    """In two stores that share nothing, equal config and seed give equal measurements, also after each epoch's kill.

    Another seed gives others.
    """
    stages = [StageStore(tmp_path / name) for name in ("a", "b")]
    reports, _ = run(config, read(folder, stages[0]), stages[0])
    first = numbers(config, read(folder, stages[0]), stages[0])
    assert [report.epoch for report in reports] == list(range(1, config.epochs + 1))
    for kill_after in range(1, config.epochs):
        with pytest.raises(KeyboardInterrupt):
            run_trial(config, read(folder, stages[1]), stages[1], _interrupt_after(kill_after))
    assert numbers(config, read(folder, stages[1]), stages[1]) == first
    assert numbers(config.model_copy(update={"seed": 1}), read(folder, stages[0]), stages[0]) != first


def _interrupt_after(epoch: int) -> Any:
    def report(measurement: Measurement) -> None:
        if measurement.epoch == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    ("config", "same"),
    [
        (TRANSFER.model_copy(update={"unfreezing": "frozen"}), {"backbone_lr": 0.5, "momentum": 0.1}),
        (BASIC, {"family": "transfer", "unfreezing": "progressive", "backbone_lr": 0.5}),
    ],
    ids=["frozen", "scratch"],
)
def test_a_trial_that_was_trained_before_is_answered_from_the_store(
    config: TrialConfig, same: dict[str, Any], folder: Path, stages: StageStore
) -> None:
    """Settings that cannot matter, and another family, make no other training: nothing is trained, all is reported."""
    data = read(folder, stages)
    reports, outcome = run(config, data, stages)
    again, found = run(config.model_copy(update=same), data, stages)
    assert (outcome.reused, found.reused) == (False, True)
    assert [report.metrics for report in again] == [report.metrics for report in reports]
    assert [e.event for e in events_of(stages) if e.kind == "training"] == ["made", "reused"]


def test_the_tints_are_learned(folder: Path, stages: StageStore) -> None:
    """Twelve epochs of the smallest network tell three tints apart."""
    config = BASIC.model_copy(update={"epochs": 12, "depth": 2, "head_lr": 3e-3, "head_pooling": "average"})
    assert numbers(config, read(folder, stages), stages)[-1]["val_accuracy"] >= 0.9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@KINDS
def test_the_exported_model_answers_the_test_images_as_the_test_score_says(
    config: TrialConfig, precision: str, folder: Path, tmp_path: Path, stages: StageStore
) -> None:
    """Reading the files again, the servable model's hits are the test accuracy, and its probabilities those written.

    To the last bit on the machine that evaluated it, whatever number format it was trained in.
    """
    config, data = config.model_copy(update={"precision": precision}), read(folder, stages)
    _, outcome = run(config, data, stages)
    score = evaluate_on_test(config, data, stages, outcome.model, tmp_path / "test.npz")
    export_trial(config, data, stages, outcome.model, tmp_path / "model")
    written = np.load(tmp_path / "test.npz")
    paths = [data.manifest.root / data.manifest.images[row].path for row in data.splits.test]
    predictor = load_export(tmp_path / "model")
    np.testing.assert_array_equal(predictor.probabilities(paths), written["probabilities"])
    labels = [prediction.label for prediction in predictor.predict(paths)]
    truth = [data.classes[data.labels[row]] for row in data.splits.test]
    hits = np.mean([ours == theirs for ours, theirs in zip(labels, truth, strict=True)])
    assert score.metrics["test_accuracy"] == pytest.approx(hits)
    assert score.interval[0] <= hits <= score.interval[1]
    assert score.images == 15
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description.get("architecture", {}) == config.architecture()


def test_a_trial_says_which_numbers_it_computed_with(folder: Path, stages: StageStore) -> None:
    """What ``auto`` came to is in the outcome, and the same trial, asked again, comes to the same."""
    auto = TRANSFER.model_copy(update={"precision": "auto", "epochs": 1})
    _, outcome = run(auto, read(folder, stages), stages)
    assert outcome.precision in ("fp32", "bf16")
    _, again = run(auto, read(folder, stages), StageStore(stages.root))
    assert (again.precision, again.reused) == (outcome.precision, True)


def test_another_network_may_be_trained_from_scratch(folder: Path, stages: StageStore) -> None:
    """A named backbone with random weights trains whole, whatever the unfreezing says."""
    changes = {"backbone": "timm:resnet10t", "weights": "random", "unfreezing": "frozen", "epochs": 1}
    config = BASIC.model_copy(update=changes)
    assert preflight([config], stages.root)[0] == []
    (measures,) = numbers(config, read(folder, stages), stages)
    assert 0 <= measures["val_accuracy"] <= 1
    assert not [event for event in events_of(stages) if event.kind == "features"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet50", "weights": "auto"}, r"backbone must be scratch, or have random weights.*'resnet50'"),
        ({"backbone": "resnet50", "weights": "some/file.pth"}, r"--set backbone=scratch or --weights random"),
        ({"weights": "some/file.pth"}, r"weights must be random.*'some/file.pth'. Leave --weights out"),
        ({"depth": 6}, r"image_size must be at least 64 .* got 32. Use --set image_size=64 or --set depth=5"),
        ({"family": "retrieval", "pooling": "gem"}, r"pooling must be average for scratch"),
    ],
)
def test_a_mistake_is_found_before_the_sweep(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Pretrained weights and images that are too small are refused in one line, without looking for weights."""
    with pytest.raises(InputError, match=message) as caught:
        preflight([BASIC, BASIC.model_copy(update=settings)], tmp_path)
    assert "\n" not in str(caught.value)


def test_scratch_networks_need_nothing_but_images(tmp_path: Path) -> None:
    """The documented ones pass; in the transfer family it is said that nothing is transferred."""
    documented = [BASIC, BASIC.model_copy(update={"depth": 4, "batch_norm": True, "dropout": 0.5})]
    assert preflight(documented, tmp_path)[0] == []
    (note,), _ = preflight([BASIC.model_copy(update={"family": "transfer"})], tmp_path)
    assert "nothing is transferred" in note


def test_a_scratch_network_embeds_for_retrieval(folder: Path, stages: StageStore) -> None:
    """The retrieval family searches a scratch network's own embeddings."""
    reports, _ = run(BASIC.model_copy(update={"family": "retrieval", "k": 3}), read(folder, stages), stages)
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert 0 <= reports[-1].metrics["val_recall_at_1"] <= 1


def test_a_family_and_a_backbone_are_added_by_their_records(
    folder: Path, stages: StageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is all that has to be there: trials can name them, are checked, run, and share what they compute."""
    record = BackboneRecord("tiny", "timm", model="resnet10t", embedding=512, gmacs=1.1, parameters=4.9)
    monkeypatch.setitem(BACKBONES, "tiny", record)
    monkeypatch.setitem(FAMILIES, "twin", FAMILIES["transfer"])
    with pytest.raises(ValueError, match="Did you mean twin"):
        TrialConfig(family="twins")
    config = TrialConfig(
        family="twin", backbone="tiny", weights="random", image_size=SIZE, epochs=1, precision="fp32", batch_size=8
    )
    notes, networks = preflight([config], stages.root)
    assert (notes, networks) == (["tiny starts from random weights: nothing is transferred."], {"tiny": record})
    data = read(folder, stages)
    _, outcome = run(config, data, stages)
    assert outcome.metrics["parameters"] == known_costs(config, 3)["parameters"]
    _, again = run(config.model_copy(update={"family": "transfer"}), data, stages)
    assert again.model == outcome.model
