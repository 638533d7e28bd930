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


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _trained(network: Backbone) -> Backbone:
    """Give every BatchNorm what training would: other means, variances, scales and shifts."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            with torch.no_grad():
                for values, low, high in (
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.7, 1.3),
                    (module.bias, -0.2, 0.2),
                ):
                    values.uniform_(low, high, generator=generator)
    return network


def _same(backbone: Backbone, other: Backbone) -> bool:
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = backbone.every_pooling(images), other.every_pooling(images)
    assert expected.keys() == found.keys()
    close = (torch.allclose(a, b, rtol=0.0, atol=1e-5 * float(a.abs().max())) for a, b in _pairs(expected, found))
    return all(close)


def _pairs(ours: dict[Any, Tensor], theirs: dict[Any, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(ours[name], theirs[name]) for name in ours]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"backbone": "efficientnet_lite0"}, 0),
        ({"backbone": "resnet50"}, 0),
        ({"backbone": "densenet121"}, 62),
        ({"backbone": "timm:mobilenetv3_small_050"}, 0),
        ({"backbone": "scratch", "batch_norm": True, "depth": 3, "residual": True}, 0),
    ],
    ids=str,
)
def test_a_folded_network_embeds_as_before(config: dict[str, Any], left: int) -> None:
    """By every pooling; DenseNet keeps the BatchNorms that come before their convolution. The original stays."""
    backbone = _trained(build_network(TrialConfig(image_size=SIDE, **config)).to(memory_format=torch.channels_last))
    before = {path: values.clone() for path, values in backbone.state_dict().items()}
    copy = folded(backbone, SIDE)
    assert copy is not backbone
    assert _norms(copy) == left < _norms(backbone)
    assert _same(backbone, copy)
    assert all(torch.equal(values, before[path]) for path, values in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


class _Body(nn.Module):
    """Two convolutions before the same BatchNorm; or one whose result is used before BatchNorm as well as after it."""

    def __init__(self, *, forks: bool) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
        self.forks = forks

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        both: Tensor = maps + self.norm(maps) if self.forks else self.norm(self.second(self.norm(maps)))
        return both.mean(dim=(2, 3))


@pytest.mark.parametrize("forks", [True, False])
def test_what_cannot_be_folded_stays(forks: bool) -> None:
    """Where the copy would answer otherwise it is not taken; a norm of two convolutions cannot go into both."""
    torch.manual_seed(0)
    backbone = _trained(Backbone("body", _Body(forks=forks), 3, (("all", ("first", "second", "norm")),)))
    copy = folded(backbone, SIDE)
    assert (copy is backbone) >= forks
    assert _norms(copy) == 1
    assert _same(backbone, copy)


def test_nothing_to_fold() -> None:
    """A network without BatchNorm is itself."""
    backbone = build_backbone("timm:vit_tiny_patch16_224")
    assert folded(backbone, SIDE) is backbone
