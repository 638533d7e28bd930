"""The classifier: backbone, dropout, head."""

from __future__ import annotations

import pytest
import torch

from carcls.config import TrialConfig
from carcls.errors import InputError
from carcls.models.classifier import Classifier, Dropout, build_classifier

SMALL = TrialConfig(backbone="timm:resnet10t", weights="random", image_size=64, dropout=0.3)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A small classifier of seven classes."""
    return build_classifier(SMALL, 7)


def test_logits_are_classified_embeddings(classifier: Classifier) -> None:
    """Classifying embeddings, as training on cached features does, gives the logits of the whole network."""
    images = torch.randn(3, 3, 64, 64)
    classifier.eval()
    with torch.no_grad():
        logits = classifier(images)
        assert torch.equal(logits, classifier.classify(classifier.embed(images)))
    assert logits.shape == (3, 7)


def test_dropout_is_what_the_config_says(classifier: Classifier) -> None:
    """In training mode the configured share of the embedding is dropped before the head."""
    classifier.train()
    kept = classifier.dropout(torch.ones(200_000))
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_the_classifier_is_a_function_of_the_seed() -> None:
    """Equal seeds give equal classifiers whatever was drawn before; another seed gives another head and backbone."""
    first = build_classifier(SMALL, 7).state_dict()
    torch.rand(5)
    again = build_classifier(SMALL, 7).state_dict()
    other = build_classifier(SMALL.model_copy(update={"seed": 1}), 7).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["backbone.body.conv1.0.weight"], other["backbone.body.conv1.0.weight"])


def test_the_head_does_not_depend_on_dropout() -> None:
    """Trials that differ in dropout alone start from the same head."""
    head = build_classifier(SMALL, 7).head.weight
    assert torch.equal(head, build_classifier(SMALL.model_copy(update={"dropout": 0.0}), 7).head.weight)


def test_building_leaves_the_random_state_alone() -> None:
    """Building a classifier draws nothing from the global generator."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_classifier(SMALL, 7)
    assert torch.equal(torch.rand(3), expected)


def test_a_backbone_of_fixed_size_refuses_another() -> None:
    """A network that takes 224 pixels only says so before training starts."""
    config = SMALL.model_copy(update={"backbone": "timm:mixer_s32_224"})
    with pytest.raises(InputError, match="image_size must be 224 for timm:mixer_s32_224, got 64"):
        build_classifier(config, 7)


def test_a_scratch_network_is_built_from_its_settings() -> None:
    """The backbone called scratch is the network that the trial's settings describe, and needs no weights."""
    config = TrialConfig(backbone="scratch", depth=2, width=4, image_size=32, dropout=0.3)
    network = build_classifier(config, 7).eval()
    assert network.backbone.name == "scratch"
    assert network.head.in_features == 8 * 8 * 8
    with torch.no_grad():
        assert network(torch.randn(3, 3, 32, 32)).shape == (3, 7)


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
