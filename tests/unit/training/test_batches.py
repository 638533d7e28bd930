"""How images are divided into batches and parts: none is lost, and one alone only where a network can train on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.families import preflight
from carcls.models.classifier import Classifier, build_backbone_of, build_classifier, stand_in, trains_on_one_image
from carcls.stages import StageStore
from carcls.training.features import FrozenFeatures
from carcls.training.images import ImageSource, batches
from carcls.training.loop import Trainer, micro_batches
from sweeps.failures import failure_of

SMALL = TrialConfig(
    backbone="efficientnet_lite0", weights="random", unfreezing="full", image_size=32, epochs=1, precision="fp32"
)
PLAIN = TrialConfig(family="scratch", backbone="scratch", depth=2, width=4, image_size=32, epochs=1, precision="fp32")


@given(
    count=st.integers(1, 60),
    size=st.integers(1, 20),
    micro=st.none() | st.integers(1, 20),
    least=st.sampled_from([1, 2]),
)
@example(count=3, size=3, micro=2, least=2)
@example(count=1, size=8, micro=1, least=2)
@example(count=5, size=1, micro=None, least=2)
def test_every_image_is_in_one_part_and_none_alone_unasked(
    count: int, size: int, micro: int | None, least: int
) -> None:
    """Every image trains once an epoch, but one that would be a last batch alone; parts are as large as they may be."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    config = TrialConfig(batch_size=size, micro_batch=micro)
    divided = [(batch, micro_batches(config, batch, least)) for batch in batches(count, size, order)]
    trained = np.concatenate([part for _, parts in divided for part in parts]).tolist()
    alone = size > 1 and count > 1 and count % size == 1
    assert trained == order.tolist()[: count - alone]
    most = min(micro or size, size)
    for batch, parts in divided:
        assert np.array_equal(np.concatenate(parts), batch)
        lengths = [len(part) for part in parts]
        assert max(lengths) - min(lengths) <= 1
        assert max(lengths) <= (most if least == 1 else max(most, 3 if len(batch) % 2 else 2))
        assert min(lengths) >= min(least, len(batch))


@pytest.mark.parametrize("loss", ["cross_entropy", "cosine"])
@pytest.mark.parametrize(("size", "micro"), [(2, 1), (3, 2), (7, 1), (7, 3), (7, 5)])
def test_parts_add_up_to_the_gradient_of_the_batch(size: int, micro: int, loss: str) -> None:
    """Without dropout and BatchNorm a batch has the loss and gradient of its parts, parts of one image among them."""
    settings = {"batch_size": size, "label_smoothing": 0.1, "loss": loss}
    losses, gradients = [], []
    for given_micro in (None, micro):
        trainer = _trainer(PLAIN.model_copy(update={**settings, "micro_batch": given_micro}).training(), images=9)
        trainer.classifier.double()
        (parts,) = trainer._divided(0, [np.arange(size)])
        assert max(map(len, parts)) <= (given_micro or size)
        labels = torch.from_numpy(trainer.labels[trainer.train])
        embedded = ((trainer.classifier.embed(trainer.images.batch(p).double()), labels[p]) for p in parts)
        losses.append(float(trainer._step(embedded, size)))
        gradients.append([p.grad for p in trainer.classifier.parameters()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for whole, added in zip(*gradients, strict=True):
        torch.testing.assert_close(added, whole, rtol=1e-9, atol=1e-12)


def _refused_by_torch(classifier: Classifier, side: int) -> bool:
    try:
        with torch.no_grad():
            classifier(torch.zeros(1, 3, side, side))
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    return False


@pytest.mark.parametrize(
    ("config", "side"),
    [
        *((SMALL, side) for side in (32, 33)),
        *((SMALL.model_copy(update={"backbone": name}), 32) for name in ("resnet50", "densenet121")),
        (SMALL.model_copy(update={"backbone": "densenet121"}), 64),
        (PLAIN, 32),
        (PLAIN.model_copy(update={"batch_norm": True}), 32),
        (PLAIN.model_copy(update={"batch_norm": True, "depth": 3, "stem": "resnet"}), 32),
        (PLAIN.model_copy(update={"batch_norm": True, "depth": 3, "stem": "resnet", "residual": True}), 32),
    ],
)
def test_what_trains_on_one_image_is_what_torch_trains(config: TrialConfig, side: int) -> None:
    """With any number of open stages, the answer is PyTorch's own, and neither modes nor statistics have changed."""
    classifier = build_classifier(config.model_copy(update={"image_size": side}), classes=3)
    for opened in range(len(classifier.backbone.stage_paths) + 1):
        classifier.open_backbone(opened)
        before = [module.training for module in classifier.modules()]
        state = {name: value.clone() for name, value in classifier.backbone.state_dict().items()}
        answer = trains_on_one_image(classifier.backbone, side)
        assert [module.training for module in classifier.modules()] == before
        assert all(torch.equal(state[name], value) for name, value in classifier.backbone.state_dict().items())
        assert answer != _refused_by_torch(classifier, side)


def _trainer(config: TrialConfig, images: int, store: StageStore | None = None) -> Trainer:
    bare = stand_in(config.backbone) if store and config.unfreezing == "frozen" else None
    classifier = build_classifier(config, 2, bare)
    pixels = np.random.default_rng(0).integers(0, 256, (images + 4, 32, 32, 3), np.uint8)
    source = ImageSource(pixels, classifier.backbone.mean, classifier.backbone.std, torch.device("cpu"))
    rows, build = np.arange(images + 4), partial(build_backbone_of, config)
    features = FrozenFeatures(store, build, source, "fp32", {"data": "noise"}) if store else None
    head_key = config.head_settings() if store else None
    return Trainer(config, classifier, source, rows % 2, rows[:-4], rows[-4:], "fp32", features, head_key)


@pytest.mark.parametrize(("size", "micro"), [(2, 1), (3, None), (3, 1), (3, 2), (7, 1), (7, 2), (7, 4)])
def test_any_batch_of_two_or_more_trains_in_any_parts(tmp_path: Path, size: int, micro: int | None) -> None:
    """Where BatchNorm cannot take one image, batches and parts of any size train all the same; one would be left."""
    config = SMALL.model_copy(update={"batch_size": size, "micro_batch": micro})
    _trainer(config, 2 * size + 1).fit(tmp_path, lambda _: None)


@pytest.mark.parametrize("micro", [None, 1])
def test_frozen_backbones_train_on_single_images(tmp_path: Path, micro: int | None) -> None:
    """A frozen BatchNorm takes no variance, so that batches and parts of one image train the head."""
    config = SMALL.model_copy(
        update={"unfreezing": "frozen", "batch_size": 1 if micro is None else 3, "micro_batch": micro}
    )
    preflight([config], tmp_path)
    for store in (None, StageStore(tmp_path / "store")):
        trainer = _trainer(config, 5, store)
        trainer.fit(tmp_path, lambda _: None)
        assert len(trainer._divided(0, [np.arange(3)])[0]) == (1 if micro is None else 3)


@pytest.mark.parametrize("unfreezing", ["full", "progressive"])
def test_batches_of_one_are_refused_before_they_fail(tmp_path: Path, unfreezing: str) -> None:
    """One sentence before the sweep; the same in a trial, after the shared head's phase, as a matter of settings."""
    config = SMALL.model_copy(update={"batch_size": 1, "unfreezing": unfreezing, "epochs": 3})
    with pytest.raises(InputError, match=r"at least 2 images for efficientnet_lite0 at 32 pixels.*Raise batch_size"):
        preflight([config], tmp_path)
    with pytest.raises(InputError, match="at least 2 images") as refused:
        _trainer(config, 5, StageStore(tmp_path / "store")).fit(tmp_path, lambda _: None)
    assert failure_of(refused.value).kind == "settings"


@pytest.mark.parametrize(
    "changes", [{"image_size": 96}, {"backbone": "scratch", "batch_norm": False}, {"batch_size": 2}]
)
def test_batches_that_train_are_not_refused(changes: dict[str, object], tmp_path: Path) -> None:
    """Larger maps, no BatchNorm, or two images: nothing is in the way."""
    preflight([SMALL.model_copy(update={"batch_size": 1, **changes})], tmp_path)
