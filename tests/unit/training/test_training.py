"""The training loop: cached equals computed, resumed equals uninterrupted, frozen stays frozen, NaN stops."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import events_of
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.errors import InputError, NonFiniteLoss
from carcls.models.classifier import build_backbone_of, build_classifier, stand_in
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.training import loop
from carcls.training.checkpoint import load_model
from carcls.training.embeddings import Embedder, frozen_features
from carcls.training.images import ImageSource, batches
from carcls.training.loop import Forward, Trainer
from carcls.training.parallel import ALONE, micro_batches

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
SCRATCH = TrialConfig(family="scratch", backbone="scratch", depth=2, width=4, image_size=SIDE, precision="fp32")


def _changed(config: TrialConfig, **settings: object) -> TrialConfig:
    return config.model_copy(update=settings)


def _pixels() -> np.ndarray:
    """Tinted noise: the tint tells the class."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 60, (IMAGES, SIDE, SIDE, 3))
    tints = np.array([[190, 0, 0], [0, 190, 0], [0, 0, 190], [150, 150, 0]])
    return (pixels + tints[np.arange(IMAGES) % CLASSES][:, None, None, :]).astype(np.uint8)


def _trainer(config: TrialConfig, store: StageStore | None = None, train: int = 28) -> Trainer:
    """Return a trainer on so many images; with a store a frozen trial's backbone is a stand-in."""
    bare = stand_in(config.backbone) if store and config.unfreezing == "frozen" else None
    classifier = build_classifier(config, CLASSES, bare).to(memory_format=torch.channels_last)
    images = ImageSource(_pixels(), classifier.backbone.mean, classifier.backbone.std, torch.device("cpu"))
    rows, features = np.arange(IMAGES), None
    if store:
        embedder = Embedder(store, lambda: build_backbone_of(config), lambda _: images, "fp32", 8)
        features = partial(frozen_features, embedder, {"data": "tints"})
    return Trainer(config, classifier, images, rows % CLASSES, rows[:train], rows[28:], "fp32", features)


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


@pytest.mark.parametrize(("unfreezing", "closed"), [("frozen", 3), ("2:all", 2)])
def test_cached_views_train_the_same_epochs_as_computing_them(tmp_path: Path, unfreezing: str, closed: int) -> None:
    """Epoch for epoch, a trial on cached views of the images has the measures and weights of one that computes.

    Until the backbone is unfrozen: from there on BatchNorm makes much of a little rounding.
    """
    config = _changed(SMALL, unfreezing=unfreezing)
    cached, computed = _trainer(config, StageStore(tmp_path / "store")), _trainer(config)
    _fit(cached, tmp_path / "a")
    _fit(computed, tmp_path / "b")
    for ours, theirs in zip(cached.progress.history[:closed], computed.progress.history[:closed], strict=True):
        assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=1e-3)
    if unfreezing == "frozen":
        torch.testing.assert_close(cached.classifier.head.weight, computed.classifier.head.weight, rtol=1e-3, atol=1e-5)


def test_each_view_is_computed_once_for_all_frozen_trials(tmp_path: Path) -> None:
    """A second trial with other head settings computes no features, and neither does one that unfreezes later."""
    store = StageStore(tmp_path / "store")
    _fit(_trainer(SMALL, store), tmp_path / "a")
    made = [event for event in events_of(store) if (event.event, event.kind) == ("made", "features")]
    assert len(made) == 3 + 1  # one view an epoch, and the validation images as they are
    for name, other in (("b", {"head_lr": 0.01, "dropout": 0.0, "batch_size": 5}), ("c", {"unfreezing": "2:1"})):
        _fit(_trainer(_changed(SMALL, **other), store), tmp_path / name)
    assert [event for event in events_of(store) if (event.event, event.kind) == ("made", "features")] == made


@pytest.mark.parametrize(("unfreezing", "optimizer"), [("frozen", "sgd"), ("1:1,2:all", "adamw"), ("1:1,2:all", "sgd")])
def test_a_trial_killed_after_any_epoch_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreezing: str, optimizer: str
) -> None:
    """Weights and measurements after a resume are those of the uninterrupted trial, bit for bit."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_HEADS", 0.0)
    settings = {"unfreezing": unfreezing, "optimizer": optimizer, "lr_schedule": "onecycle", "label_smoothing": 0.1}
    config, store = _changed(SMALL, **settings), StageStore(tmp_path / "store")
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
    config = _changed(SMALL, unfreezing="1:2")
    trainer, fresh = _trainer(config, StageStore(tmp_path / "store")), _trainer(config)
    logits, _ = _fit(trainer, tmp_path / "trial")
    load_model(tmp_path / "trial", fresh.classifier)
    fresh.progress = trainer.progress
    np.testing.assert_allclose(fresh.validation_logits(2), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unfreezing", ["frozen", "full"])
def test_training_without_validation_images_is_the_same_training(tmp_path: Path, unfreezing: str) -> None:
    """A refit, which measures nothing, ends with the tensors of a training that measures, and tells its loss only.

    Neither weights nor BatchNorm statistics of a frozen backbone have moved; in full training both have.
    """
    config = _changed(SMALL, unfreezing=unfreezing)
    measured, blind = _trainer(config), _trainer(config)
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


def test_the_loss_is_what_is_minimised_and_validation_stays_cross_entropy(tmp_path: Path) -> None:
    """With the cosine loss training minimises that one; the validation loss is the cross entropy of the same logits."""
    config = _changed(SMALL, loss="cosine", epochs=2, label_smoothing=0.1)
    trainer, other = _trainer(config), _trainer(_changed(config, loss="cross_entropy"))
    logits, _ = _fit(trainer, tmp_path / "cosine")
    labels = torch.from_numpy(trainer.labels[trainer.validation])
    cross_entropy = torch.nn.functional.cross_entropy(torch.from_numpy(logits), labels).item()
    assert trainer.progress.history[-1]["val_loss"] == pytest.approx(cross_entropy, rel=1e-4)
    _fit(other, tmp_path / "cross entropy")
    assert trainer.progress.history[0]["train_loss"] < other.progress.history[0]["train_loss"] / 1.1


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 20, "head_lr": 0.02},
        {"unfreezing": "full", "optimizer": "adamw", "lr_schedule": "onecycle", "epochs": 8, "head_lr": 5e-3},
    ],
    ids=["head", "full"],
)
def test_what_can_be_learned_is_learned(tmp_path: Path, settings: dict[str, object]) -> None:
    """The training loss falls to less than half; twenty epochs of the head alone tell new tints far above chance."""
    store = StageStore(tmp_path / "store")
    _, reports = _fit(_trainer(_changed(PLAIN, **settings), store), tmp_path / "trial")
    first, last = reports[0].metrics, reports[-1].metrics
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["val_accuracy"] >= 0.75 or "unfreezing" in settings


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_trial_with_its_name(tmp_path: Path, broken: float) -> None:
    """NaN or infinity ends in NonFiniteLoss that says where and what to change, and leaves no checkpoint of it."""
    trainer = _trainer(SMALL)
    with torch.no_grad():
        trainer.classifier.head.bias[0] = broken
    with pytest.raises(NonFiniteLoss, match=r"epoch 1.*lower the learning rates"):
        trainer.fit(tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With SGD, a learning rate of one and no momentum, no step is longer than the clipped gradient."""
    trainer = _trainer(_changed(SMALL, optimizer="sgd", momentum=0.0, head_lr=1.0, clip_norm=0.01, epochs=1))
    before = torch.cat([p.detach().flatten() for p in trainer.classifier.head.parameters()]).clone()
    _fit(trainer, tmp_path)
    after = torch.cat([p.detach().flatten() for p in trainer.classifier.head.parameters()])
    assert 0 < float((after - before).norm()) <= 4 * 0.01 + 1e-6


# Batches and their parts


@given(
    count=st.integers(1, 60),
    size=st.integers(1, 20),
    micro=st.none() | st.integers(1, 20),
    side=st.sampled_from([32, 64]),
)
@example(count=1, size=8, micro=1, side=32)
@example(count=3, size=8, micro=2, side=64)
def test_every_image_is_in_one_part(count: int, size: int, micro: int | None, side: int) -> None:
    """Every image trains once an epoch, but one that would be a last batch alone; parts are as equal as can be.

    In a part is one image alone only where it was asked for, of larger images, or where the batch has no other.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    config = TrialConfig(batch_size=size, micro_batch=micro, image_size=side)
    divided = [micro_batches(config, batch) for batch in batches(count, size, order)]
    alone = size > 1 and count > 1 and count % size == 1
    assert np.concatenate([part for parts in divided for part in parts]).tolist() == order.tolist()[: count - alone]
    for parts in divided:
        lengths = [len(part) for part in parts]
        assert max(lengths) - min(lengths) <= 1
        least = 1 if min(micro or size, sum(lengths)) == 1 and (side == 64 or sum(lengths) == 1) else 2
        assert min(lengths) >= least
        assert max(lengths) <= max(min(micro or size, size), 1 if least == 1 else 2 + sum(lengths) % 2)


@pytest.mark.parametrize("loss", ["cross_entropy", "cosine"])
@pytest.mark.parametrize(("size", "micro"), [(2, 1), (3, 2), (7, 1), (7, 3), (7, 5)])
def test_parts_add_up_to_the_gradient_of_the_batch(size: int, micro: int, loss: str) -> None:
    """Without dropout and BatchNorm a batch has the loss and gradient of its parts, parts of one image among them."""
    losses, gradients = [], []
    for given_micro in (None, micro):
        config = _changed(SCRATCH, batch_size=size, label_smoothing=0.1, loss=loss, micro_batch=given_micro)
        trainer = _trainer(config.training())
        trainer.classifier.double()
        parts, labels = ALONE.parts(config, np.arange(size)), torch.from_numpy(trainer.labels)
        network = Forward(trainer.classifier, "fp32", "trains")
        images = ((trainer.images.batch(rows).double(), labels[rows], weight) for rows, weight in parts)
        losses.append(float(trainer._step(network, images, len(parts))))
        gradients.append([p.grad for p in trainer.classifier.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for whole, added in zip(*gradients, strict=True):
        torch.testing.assert_close(added, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "trains"),
    [
        ({"batch_size": 1}, True),
        ({"batch_size": 3, "micro_batch": 1}, True),
        ({"batch_size": 1, "unfreezing": "full"}, False),
        ({"batch_size": 3, "micro_batch": 2, "unfreezing": "1:all"}, True),
        ({"batch_size": 4, "micro_batch": 1, "unfreezing": "1:all"}, True),
        ({"batch_size": 3, "unfreezing": "full"}, True),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_one_image_trains_where_batch_norm_can_take_it(
    tmp_path: Path, settings: dict[str, object], trains: bool, cached: bool
) -> None:
    """A frozen one takes no variance; where maps have shrunk to one place, it is told what to change in one line.

    An epoch's last image alone is left out.
    """
    trainer = _trainer(_changed(SMALL, epochs=2, **settings), StageStore(tmp_path / "s") if cached else None, train=7)
    if trains:
        _fit(trainer, tmp_path / "trial")
        return
    with pytest.raises(InputError, match=r"at least 2 images for efficientnet_lite0 at 32 pixels.*Raise batch_size"):
        _fit(trainer, tmp_path / "trial")
