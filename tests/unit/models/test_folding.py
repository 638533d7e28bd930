"""BatchNorm folded into convolutions: the same embeddings from a copy, and never others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from carcls.config import TrialConfig
from carcls.models.backbones import Backbone, build_backbone
from carcls.models.classifier import build_network
from carcls.models.folding import folded

SIDE = 64


def _images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _shake(network: nn.Module) -> None:
    """Give every BatchNorm what training would: other means, variances, scales and shifts."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            for values, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2.0)):
                values.uniform_(low, high, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)


def _same(backbone: Backbone, other: Backbone) -> bool:
    with torch.inference_mode():
        expected, found = backbone.every_pooling(_images()), other.every_pooling(_images())
    assert expected.keys() == found.keys()
    return all(_close(expected[name], found[name]) for name in expected)


def _close(expected: Tensor, found: Tensor) -> bool:
    return torch.allclose(expected, found, rtol=0.0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"backbone": "efficientnet_lite0"}, 0),
        ({"backbone": "resnet50"}, 0),
        ({"backbone": "densenet121"}, 62),
        ({"backbone": "timm:mobilenetv3_small_050"}, 0),
        ({"backbone": "scratch", "batch_norm": True, "depth": 3}, 0),
        ({"backbone": "scratch", "batch_norm": True, "depth": 3, "residual": True}, 0),
    ],
    ids=str,
)
def test_a_folded_network_embeds_as_before(config: dict[str, Any], left: int) -> None:
    """By every pooling; DenseNet keeps the BatchNorms that come before their convolution."""
    backbone = build_network(TrialConfig(image_size=SIDE, **config)).to(memory_format=torch.channels_last)
    _shake(backbone)
    before = {path: values.clone() for path, values in backbone.state_dict().items()}
    copy = folded(backbone, SIDE)
    assert copy is not backbone
    assert _norms(copy) == left < _norms(backbone)
    assert _same(backbone, copy)
    assert all(torch.equal(values, before[path]) for path, values in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_nothing_to_fold() -> None:
    """A network without BatchNorm is itself."""
    backbone = build_backbone("timm:vit_tiny_patch16_224")
    assert folded(backbone, SIDE) is backbone


class _Fork(nn.Module):
    """Uses the result of its convolution before BatchNorm as well as after it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        both: Tensor = maps + self.norm(maps)
        return both.mean(dim=(2, 3))


def test_a_result_that_is_used_twice_is_not_folded() -> None:
    """The copy would answer otherwise, so it is not taken."""
    torch.manual_seed(0)
    body = _Fork()
    backbone = Backbone("fork", body, 4, (("all", ("convolution", "norm")),))
    _shake(backbone)
    assert folded(backbone, SIDE) is backbone
    assert _norms(backbone) == 1


class _Shared(nn.Module):
    """Two convolutions before the same BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.second(self.norm(self.first(images))))
        return maps.mean(dim=(2, 3))


def test_a_norm_of_two_convolutions_stays() -> None:
    """It cannot be folded into both."""
    torch.manual_seed(0)
    backbone = Backbone("shared", _Shared(), 3, (("all", ("first", "second", "norm")),))
    _shake(backbone)
    copy = folded(backbone, SIDE)
    assert _norms(copy) == 1
    assert _same(backbone, copy)
