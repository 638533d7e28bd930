"""Opening and closing the stages of a backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carcls.models.backbones import build_backbone
from carcls.models.classifier import Classifier
from carcls.models.unfreeze import open_backbone

STAGES = 5


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A small classifier whose backbone has five stages."""
    return Classifier(build_backbone("timm:resnet10t"), dropout=0.5, classes=4)


def _norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]


def _norms_by_openness(classifier: Classifier, count: int) -> tuple[list[nn.BatchNorm2d], list[nn.BatchNorm2d]]:
    stages = classifier.backbone.stage_modules
    closed = [norm for _, modules in stages[: len(stages) - count] for m in modules for norm in _norms(m)]
    opened = [norm for _, modules in stages[len(stages) - count :] for m in modules for norm in _norms(m)]
    return closed, opened


def _train_two_steps(classifier: Classifier) -> None:
    trained = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(2):
        loss = classifier(torch.randn(4, 3, 64, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("count", range(STAGES + 1))
def test_only_open_stages_and_the_head_have_gradients(classifier: Classifier, count: int) -> None:
    """After opening some stages, exactly their parameters and the head's are trainable."""
    assert len(classifier.backbone.stage_modules) == STAGES
    open_backbone(classifier, STAGES)
    open_backbone(classifier, count)
    opened = classifier.backbone.stage_modules[STAGES - count :]
    expected = {id(p) for _, modules in opened for module in modules for p in module.parameters()}
    expected |= {id(p) for p in classifier.head.parameters()}
    assert {id(p) for p in classifier.parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("count", [0, 2, STAGES])
def test_running_statistics_move_only_in_open_stages(classifier: Classifier, count: int) -> None:
    """Training steps move the running statistics of opened BatchNorms and leave those of frozen ones as they were."""
    open_backbone(classifier, count)
    closed, opened = _norms_by_openness(classifier, count)
    before = {id(norm): (norm.running_mean.clone(), norm.running_var.clone()) for norm in closed + opened}
    _train_two_steps(classifier)
    for norm in closed:
        mean, variance = before[id(norm)]
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, variance)
    for norm in opened:
        assert not torch.equal(norm.running_mean, before[id(norm)][0])


def test_frozen_parameters_do_not_move(classifier: Classifier) -> None:
    """Training steps change the head and the opened stages only."""
    open_backbone(classifier, 1)
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    _train_two_steps(classifier)
    moved = {name for name, p in classifier.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith(("head.", "backbone.body.layer4."))}


def test_a_frozen_backbone_embeds_as_in_evaluation(classifier: Classifier) -> None:
    """With no stage open, training mode gives the embeddings of evaluation mode, while dropout is on."""
    images = torch.randn(2, 3, 64, 64)
    classifier.eval()
    with torch.no_grad():
        expected = classifier.embed(images)
        open_backbone(classifier, 0)
        assert torch.equal(classifier.embed(images), expected)
        assert not torch.equal(classifier.classify(expected), classifier.classify(expected))


def test_tokens_of_a_transformer_open_with_its_first_stage() -> None:
    """Parameters that belong to no child of the network are frozen and opened with the first stage."""
    classifier = Classifier(build_backbone("timm:vit_tiny_patch16_224"), dropout=0.0, classes=2)
    stages = len(classifier.backbone.stage_modules)
    open_backbone(classifier, stages - 1)
    assert not classifier.backbone.body.cls_token.requires_grad
    open_backbone(classifier, stages)
    assert classifier.backbone.body.cls_token.requires_grad
