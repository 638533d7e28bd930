"""The training loop: cached equals computed, resumed equals uninterrupted, frozen stays frozen, NaN stops."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import events_of
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.errors import NonFiniteLoss
from carcls.models.classifier import build_classifier
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.training import loop
from carcls.training.checkpoint import load_model
from carcls.training.features import FrozenFeatures
from carcls.training.images import ImageSource
from carcls.training.loop import Trainer

CLASSES = 4
IMAGES = 40
SIDE = 32
SMALL = TrialConfig(
    backbone="efficientnet_lite0",
    image_size=SIDE,
    epochs=3,
    batch_size=7,
    dropout=0.3,
    crop="random",
    flip=True,
    rotation=15,
    jitter=0.2,
    precision="fp32",
)
PLAIN = SMALL.model_copy(update={"augmentation_strength": 0, "dropout": 0.0})


def _pixels() -> np.ndarray:
    """Tinted noise: the tint tells the class."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 60, (IMAGES, SIDE, SIDE, 3))
    tints = np.array([[190, 0, 0], [0, 190, 0], [0, 0, 190], [150, 150, 0]])
    return (pixels + tints[np.arange(IMAGES) % CLASSES][:, None, None, :]).astype(np.uint8)


def _trainer(config: TrialConfig, store: StageStore | None) -> Trainer:
    torch.manual_seed(0)
    classifier = build_classifier(config, CLASSES).to(memory_format=torch.channels_last)
    images = ImageSource(_pixels(), classifier.backbone.mean, classifier.backbone.std, torch.device("cpu"))
    rows = np.arange(IMAGES)
    features = FrozenFeatures(store, lambda: classifier.backbone, images, "fp32", {"data": "blobs"}) if store else None
    return Trainer(config, classifier, images, rows % CLASSES, rows[:28], rows[28:], "fp32", features)


def _fit(trainer: Trainer, folder: Path) -> tuple[NDArray[np.float32], list[Measurement]]:
    """Train in a folder that is made; return the validation logits and what was reported."""
    folder.mkdir(exist_ok=True)
    reports: list[Measurement] = []
    return trainer.fit(folder, reports.append), reports


def _same_tensors(ours: Trainer, theirs: Trainer) -> bool:
    expected = theirs.classifier.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in ours.classifier.state_dict().items())


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "seconds"}


def _losses_of_every_step(trainer: Trainer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    losses: list[float] = []
    step = trainer._step

    def noted(parts: Iterable[tuple[torch.Tensor, torch.Tensor]], size: int) -> torch.Tensor:
        loss = step(parts, size)
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(trainer, "_step", noted)
    _fit(trainer, folder)
    return losses


@pytest.mark.parametrize(("unfreezing", "closed"), [("frozen", 3), ("2:all", 2)])
def test_cached_views_train_the_same_steps_as_computing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreezing: str, closed: int
) -> None:
    """Step for step, a trial on cached views of the images has the losses, metrics and weights of one that computes.

    Until the step after the backbone opens: from there on BatchNorm makes much of a little rounding.
    """
    config = SMALL.model_copy(update={"unfreezing": unfreezing})
    cached, computed = _trainer(config, StageStore(tmp_path / "store")), _trainer(config, None)
    losses = _losses_of_every_step(cached, tmp_path / "a", monkeypatch)
    expected = _losses_of_every_step(computed, tmp_path / "b", monkeypatch)
    assert len(losses) == 3 * 4
    alike = 4 * closed + 1
    assert losses[:alike] == pytest.approx(expected[:alike], rel=1e-4)
    for ours, theirs in zip(cached.progress.history[:closed], computed.progress.history[:closed], strict=True):
        assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=1e-3)
    if unfreezing == "frozen":
        torch.testing.assert_close(cached.classifier.head.weight, computed.classifier.head.weight, rtol=1e-3, atol=1e-5)


def test_each_view_is_computed_once_for_all_frozen_trials(tmp_path: Path) -> None:
    """A second frozen trial with other head settings computes no features; one that unfreezes shares its head phase."""
    store = StageStore(tmp_path / "store")
    _fit(_trainer(SMALL, store), tmp_path / "a")
    made = [event for event in events_of(store) if event.event == "made"]
    assert len(made) == 3 + 1  # one view an epoch, and the validation images as they are
    for name, other in (("b", {"head_lr": 0.01, "dropout": 0.0, "batch_size": 5}), ("c", {"unfreezing": "2:1"})):
        _fit(_trainer(SMALL.model_copy(update=other), store), tmp_path / name)
    assert [event for event in events_of(store) if event.event == "made"] == made


@pytest.mark.parametrize(("unfreezing", "optimizer"), [("frozen", "sgd"), ("1:1,2:all", "adamw"), ("1:1,2:all", "sgd")])
def test_a_trial_killed_after_any_epoch_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreezing: str, optimizer: str
) -> None:
    """Weights and measurements after a resume are those of the uninterrupted trial, bit for bit."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_HEADS", 0.0)
    settings = {"unfreezing": unfreezing, "optimizer": optimizer, "lr_schedule": "onecycle", "label_smoothing": 0.1}
    config, store = SMALL.model_copy(update=settings), StageStore(tmp_path / "store")
    whole, resumed = _trainer(config, store), _trainer(config, store)
    logits, expected = _fit(whole, tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    for kill_after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            _trainer(config, store).fit(folder, _interrupt_after(kill_after))
    again, reports = _fit(resumed, folder)
    assert [(r.epoch, _numbers(r.metrics)) for r in reports] == [(r.epoch, _numbers(r.metrics)) for r in expected]
    np.testing.assert_array_equal(again, logits)
    assert _same_tensors(resumed, whole)


def _interrupt_after(epoch: int) -> Callable[[Measurement], None]:
    def report(measurement: Measurement) -> None:
        if measurement.epoch == epoch:
            raise KeyboardInterrupt

    return report


def test_the_written_model_answers_as_the_trained_one(tmp_path: Path) -> None:
    """Loading the trained tensors over a fresh classifier gives the validation logits of the last epoch."""
    config = SMALL.model_copy(update={"unfreezing": "1:2"})
    trainer, fresh = _trainer(config, StageStore(tmp_path / "store")), _trainer(config, None)
    logits, _ = _fit(trainer, tmp_path / "trial")
    load_model(tmp_path / "trial", fresh.classifier)
    fresh.progress = trainer.progress
    np.testing.assert_allclose(fresh.validation_logits(2), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unfreezing", ["frozen", "full"])
def test_training_without_validation_images_is_the_same_training(tmp_path: Path, unfreezing: str) -> None:
    """A refit, which measures nothing, ends with the tensors of a training that measures, and tells its loss only.

    Neither weights nor BatchNorm statistics of a frozen backbone have moved; in full training both have.
    """
    config, store = SMALL.model_copy(update={"unfreezing": unfreezing}), StageStore(tmp_path / "store")
    measured, blind = _trainer(config, store), _trainer(config, store)
    before = {name: tensor.clone() for name, tensor in blind.classifier.backbone.state_dict().items()}
    _fit(measured, tmp_path / "measured")
    blind.validation = blind.validation[:0]
    logits, told = _fit(blind, tmp_path / "blind")
    assert logits.shape == (0, CLASSES)
    assert {name for measurement in told for name in measurement.metrics} == {"train_loss", "seconds"}
    assert _same_tensors(blind, measured)
    after = blind.classifier.backbone.state_dict()
    moved = {name.rpartition(".")[2] for name in after if not torch.equal(after[name], before[name])}
    assert moved >= {"running_mean", "weight"} if unfreezing == "full" else not moved


@pytest.mark.parametrize("unfreezing", ["frozen", "full"])
def test_the_loss_is_what_is_minimised_and_validation_stays_cross_entropy(tmp_path: Path, unfreezing: str) -> None:
    """With the cosine loss training minimises that one; the validation loss is the cross entropy of the same logits."""
    config = SMALL.model_copy(update={"unfreezing": unfreezing, "loss": "cosine", "epochs": 2, "label_smoothing": 0.1})
    trainer, other = _trainer(config, None), _trainer(config.model_copy(update={"loss": "cross_entropy"}), None)
    logits, _ = _fit(trainer, tmp_path / "cosine")
    labels = torch.from_numpy(trainer.labels[trainer.validation])
    cross_entropy = torch.nn.functional.cross_entropy(torch.from_numpy(logits), labels).item()
    assert trainer.progress.history[-1]["val_loss"] == pytest.approx(cross_entropy, rel=1e-4)
    _fit(other, tmp_path / "cross entropy")
    assert trainer.progress.history[0]["train_loss"] < other.progress.history[0]["train_loss"] / 1.1
    assert not torch.equal(trainer.classifier.head.weight, other.classifier.head.weight)


def test_a_head_on_frozen_features_learns_what_can_be_learned(tmp_path: Path) -> None:
    """Twenty epochs of the head alone tell the tints apart, far above chance."""
    config = PLAIN.model_copy(update={"epochs": 20, "head_lr": 0.02})
    _, reports = _fit(_trainer(config, StageStore(tmp_path / "store")), tmp_path / "trial")
    assert reports[-1].metrics["val_accuracy"] >= 0.75
    assert reports[-1].metrics["val_loss"] < reports[0].metrics["val_loss"]


def test_full_training_fits_the_training_images(tmp_path: Path) -> None:
    """With everything open the training loss falls to less than half."""
    settings = {"unfreezing": "full", "optimizer": "adamw", "lr_schedule": "onecycle", "epochs": 8, "head_lr": 5e-3}
    _, reports = _fit(_trainer(PLAIN.model_copy(update=settings), None), tmp_path / "trial")
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"] / 2


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_trial_with_its_name(tmp_path: Path, broken: float) -> None:
    """NaN or infinity ends in NonFiniteLoss that says where and what to change, and leaves no checkpoint of it."""
    trainer = _trainer(SMALL, None)
    with torch.no_grad():
        trainer.classifier.head.bias[0] = broken
    with pytest.raises(NonFiniteLoss, match=r"epoch 1.*lower the learning rates"):
        trainer.fit(tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With SGD, a learning rate of one and no momentum, no step is longer than the clipped gradient."""
    settings = {"optimizer": "sgd", "momentum": 0.0, "head_lr": 1.0, "clip_norm": 0.01, "epochs": 1}
    trainer = _trainer(SMALL.model_copy(update=settings), None)
    before = torch.cat([p.detach().flatten() for p in trainer.classifier.head.parameters()]).clone()
    _fit(trainer, tmp_path)
    after = torch.cat([p.detach().flatten() for p in trainer.classifier.head.parameters()])
    assert 0 < float((after - before).norm()) <= 4 * 0.01 + 1e-6
