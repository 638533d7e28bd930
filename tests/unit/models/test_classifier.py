"""The classifier: backbone, dropout, head; and what of it trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier, Dropout, build_classifier

SMALL = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=64, dropout=0.3)
SCRATCH = TrialConfig(backbone="scratch", depth=3, width=8, image_size=64, residual=True, batch_norm=True)
STAGES = 5


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A small classifier of seven classes, whose backbone has five stages."""
    return build_classifier(SMALL, 7)


def test_logits_are_classified_embeddings(classifier: Classifier) -> None:
    """Classifying embeddings, as training on cached features does, gives the logits of the whole network."""
    images = torch.randn(3, 3, 64, 64)
    classifier.eval()
    with torch.no_grad():
        logits = classifier(images)
        assert torch.equal(logits, classifier.classify(classifier.embed(images)))
    assert logits.shape == (3, 7)


@pytest.mark.parametrize("config", [SMALL, SCRATCH], ids=["timm", "scratch"])
def test_the_classifier_is_a_function_of_the_seed(config: TrialConfig) -> None:
    """Equal seeds give equal classifiers, whatever was drawn before and the dropout is; another gives other weights.

    Nothing is drawn from the global generator.
    """
    first = build_classifier(config, 7).state_dict()
    torch.rand(5)
    state = torch.random.get_rng_state()
    again = build_classifier(config.model_copy(update={"dropout": 0.0, "head_lr": 0.1}), 7).state_dict()
    other = build_classifier(config.model_copy(update={"seed": 1}), 7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name, tensor in first.items() if tensor.ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


def test_a_backbone_of_fixed_size_refuses_another() -> None:
    """A network that takes 224 pixels only says so before training starts."""
    config = SMALL.model_copy(update={"backbone": "timm:mixer_s32_224"})
    with pytest.raises(InputError, match="image_size must be 224 for timm:mixer_s32_224, got 64"):
        build_classifier(config, 7)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_dropout_keeps_the_mean_and_drops_its_share(share: float) -> None:
    """While training, a share of the values and gradients is 0 and the others are scaled; otherwise nothing happens."""
    torch.manual_seed(0)
    dropout, values = Dropout(share), torch.rand(200, 500).add_(0.5).requires_grad_()
    dropped = dropout.train()(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert torch.equal(values.grad == 0, dropped == 0)
    assert torch.allclose(dropped[dropped != 0], values[dropped != 0] / (1 - share))
    assert dropped.mean().item() == pytest.approx(values.mean().item(), rel=0.02)
    assert torch.equal(dropout.eval()(values), values)


def _train_two_steps(classifier: Classifier) -> None:
    trained = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(2):
        loss = classifier(torch.randn(4, 3, 64, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("count", range(STAGES + 1))
def test_only_unfrozen_stages_and_the_head_train(classifier: Classifier, count: int) -> None:
    """Training steps move parameters and running statistics of the last stages and the head, and nothing else."""
    assert len(classifier.backbone.stage_paths) == STAGES
    classifier.unfreeze(STAGES)
    classifier.unfreeze(count)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    _train_two_steps(classifier)
    after = classifier.state_dict(keep_vars=True)
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    opened = [*classifier.backbone.last_stages(count), classifier.head]
    held = {id(tensor) for module in opened for tensor in module.state_dict(keep_vars=True).values()}
    assert moved == {name for name, tensor in after.items() if id(tensor) in held}
    assert any(name.endswith("running_mean") for name in moved) == (count > 0)


def test_a_frozen_backbone_embeds_as_in_evaluation(classifier: Classifier) -> None:
    """With no stage open, training mode gives the embeddings of evaluation mode, while dropout is on."""
    images = torch.randn(2, 3, 64, 64)
    classifier.eval()
    with torch.no_grad():
        expected = classifier.embed(images)
        classifier.unfreeze(0)
        assert torch.equal(classifier.embed(images), expected)
        assert not torch.equal(classifier.classify(expected), classifier.classify(expected))


def test_tokens_of_a_transformer_unfrozen_with_its_first_stage() -> None:
    """Parameters that belong to no child of the network are frozen and opened with the first stage."""
    transformer = Classifier(build_backbone("timm:vit_tiny_patch16_224"), dropout=0.0, classes=2)
    token = transformer.backbone.body.cls_token
    assert isinstance(token, nn.Parameter)
    stages = len(transformer.backbone.stage_paths)
    for count in (stages - 1, stages):
        transformer.unfreeze(count)
        assert token.requires_grad == (count == stages)
