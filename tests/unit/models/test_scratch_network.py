"""The scratch network: what its settings build, how it starts, and what it costs on paper."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from carcls.architecture import architecture_of
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier, build_classifier

NETWORKS = [
    {"depth": depth, "batch_norm": batch_norm, "residual": residual, "stem": stem, "head_pooling": head_pooling}
    for depth, batch_norm, residual, stem, head_pooling in itertools.product(
        (3,), (False, True), (False, True), ("none", "stride2", "resnet"), ("flatten", "average", "max")
    )
]


def config_of(**settings: Any) -> TrialConfig:
    """Describe a small scratch network."""
    return TrialConfig(**{"backbone": SCRATCH, "width": 8, "image_size": 64, **settings})


def name_of(network: dict[str, Any]) -> str:
    """Name a network after its settings."""
    return "-".join(str(value) for value in network.values())


def backbone_of(config: TrialConfig) -> Backbone:
    """Build the backbone in evaluation mode."""
    return build_classifier(config, 2).backbone.eval()


def kinds_of(config: TrialConfig, *kinds: type[nn.Module]) -> list[nn.Module]:
    """Return the network's modules of some kinds."""
    return [module for module in build_classifier(config, 5).modules() if isinstance(module, kinds)]


def counted(backbone: Backbone, size: int) -> tuple[int, int]:
    """Count the multiply-accumulates of all convolutions for one image, and their weights, while it is passed."""
    macs = []

    def note(module: nn.Conv2d, _: Any, maps: torch.Tensor) -> None:
        macs.append(module.weight.numel() * maps.shape[2] * maps.shape[3])

    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(note) for module in convolutions]
    with torch.no_grad():
        backbone(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    assert len(macs) == len(convolutions)
    return sum(macs), sum(module.weight.numel() for module in convolutions)


@pytest.mark.parametrize("network", NETWORKS, ids=name_of)
@pytest.mark.parametrize("size", [64, 75])
def test_the_paper_says_what_torch_does(network: dict[str, Any], size: int) -> None:
    """Embedding, arithmetic and weights of every kind of network are those of the built one, for odd sides as well."""
    config = config_of(**network, image_size=size)
    architecture, backbone = architecture_of(config), backbone_of(config)
    with torch.no_grad():
        embeddings = backbone(torch.randn(2, 3, size, size))
    assert embeddings.shape == (2, backbone.embedding) == (2, architecture.embedding(size))
    assert counted(backbone, size) == (architecture.macs(size), architecture.weights)


def test_the_documented_networks() -> None:
    """Three convolutions with ReLU and max pooling and a flat head; or four, BatchNorm after each, and dropout."""
    basic = TrialConfig(backbone=SCRATCH, depth=3)
    convolutions = [module for module in kinds_of(basic, nn.Conv2d) if isinstance(module, nn.Conv2d)]
    shapes = [(module.in_channels, module.out_channels, module.kernel_size) for module in convolutions]
    assert shapes == [(3, 32, (3, 3)), (32, 64, (3, 3)), (64, 128, (3, 3))]
    assert not kinds_of(basic, nn.BatchNorm2d)
    assert build_classifier(basic, 196).head.in_features == 128 * 28 * 28
    regularized = TrialConfig(backbone=SCRATCH, depth=4, batch_norm=True, dropout=0.5)
    leaves = [type(module) for module in kinds_of(regularized, nn.Conv2d, nn.BatchNorm2d)]
    assert leaves == [nn.Conv2d, nn.BatchNorm2d] * 4
    assert build_classifier(regularized, 196).dropout.p == 0.5


def test_a_plain_block_is_convolution_relu_and_max_pooling() -> None:
    """One block without BatchNorm gives what torch's functions give with its weights."""
    backbone = backbone_of(config_of(depth=1))
    (convolution,) = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    images = torch.randn(2, 3, 64, 64)
    maps = nn.functional.conv2d(images, convolution.weight, convolution.bias, padding=1)
    expected = nn.functional.max_pool2d(maps.relu(), 2).flatten(1)
    torch.testing.assert_close(backbone(images), expected)


def test_a_residual_block_adds_its_shortcut() -> None:
    """Two convolutions and a 1×1 shortcut are summed before the last ReLU and the pooling."""
    backbone = backbone_of(config_of(depth=1, residual=True))
    first, second, shortcut = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    assert shortcut.kernel_size == (1, 1)
    images = torch.randn(2, 3, 64, 64)
    maps = second(first(images).relu()) + shortcut(images)
    torch.testing.assert_close(backbone(images), nn.functional.max_pool2d(maps.relu(), 2).flatten(1))


def test_no_shortcut_is_learned_where_channels_stay() -> None:
    """From 512 channels on, blocks grow no wider, and the shortcut is the map itself."""
    convolutions = kinds_of(config_of(depth=4, width=256, residual=True, image_size=32), nn.Conv2d)
    assert [m.out_channels for m in convolutions if m.kernel_size == (1, 1)] == [256, 512]  # type: ignore[union-attr]
    assert max(m.out_channels for m in convolutions) == 512  # type: ignore[type-var, union-attr]


@pytest.mark.parametrize(("head_pooling", "reduce"), [("average", torch.mean), ("max", torch.amax)])
def test_global_pooling_reduces_the_map(head_pooling: str, reduce: Any) -> None:
    """Pooled embeddings are the average or the maximum of what would have been laid out flat."""
    flat, pooled = (backbone_of(config_of(depth=2, head_pooling=kind)) for kind in ("flatten", head_pooling))
    images = torch.randn(2, 3, 64, 64)
    maps = flat(images).view(2, 16, 16, 16)
    torch.testing.assert_close(pooled(images), reduce(maps, dim=(2, 3)))


def test_the_network_takes_channels_last_images() -> None:
    """The embedding does not depend on how images lie in memory, as training lays them out."""
    backbone = backbone_of(config_of(batch_norm=True, residual=True))
    images = torch.randn(2, 3, 64, 64)
    expected = backbone(images)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(backbone(images.to(memory_format=torch.channels_last)), expected)


def test_convolutions_start_as_he_says() -> None:
    """Weights of convolutions have mean 0 and variance 2 / fan-out; all biases are zero."""
    for module in kinds_of(config_of(depth=3, width=64, residual=True, stem="resnet"), nn.Conv2d, nn.Linear):
        assert isinstance(module, nn.Conv2d | nn.Linear)
        assert module.bias is not None
        assert not module.bias.any()
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
            assert module.weight.mean().item() == pytest.approx(
                0.0, abs=4 / fan_out**0.5 / module.weight.numel() ** 0.5
            )


def test_the_head_starts_with_small_logits() -> None:
    """The variance of the head is 2 / fan-in: a flat map of thousands of numbers begins near the loss of guessing."""
    classifier = build_classifier(config_of(depth=2, image_size=128), 196)
    assert classifier.head.weight.std().item() == pytest.approx((2 / classifier.head.in_features) ** 0.5, rel=0.02)
    with torch.no_grad():
        logits = classifier.eval()(torch.randn(8, 3, 128, 128))
    assert nn.functional.cross_entropy(logits, torch.arange(8)).item() < 3 * torch.tensor(196.0).log().item()


@pytest.mark.parametrize(
    ("stem", "depth", "least"),
    [
        ("none", 6, 64),
        ("none", 7, 128),
        ("stride2", 5, 63),
        ("stride2", 7, 255),
        ("resnet", 5, 125),
        ("resnet", 7, 509),
    ],
)
def test_images_that_are_too_small_name_what_fits(stem: str, depth: int, least: int) -> None:
    """The least size that is named works, one pixel less does not, and both remedies of the message do."""
    config = config_of(depth=depth, stem=stem, width=4, image_size=least)
    assert backbone_of(config).embedding >= 4
    small = config.model_copy(update={"image_size": least - 1})
    with pytest.raises(InputError, match=f"image_size must be at least {least} .* got {least - 1}") as caught:
        build_classifier(small, 2)
    assert f"--set image_size={least} or --set depth={depth - 1}." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(build_classifier(small.model_copy(update={"depth": depth - 1}), 2), Classifier)
