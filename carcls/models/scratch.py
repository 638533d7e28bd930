"""Convolutional networks that are trained from scratch: the documented ones, and what the search varies of them.

A block is a 3×3 convolution, perhaps BatchNorm, ReLU, and max pooling that halves the side; a residual block has two
convolutions and a shortcut around both before it pools (He et al. 2016). Block i has width · 2^i channels, at most 512.

Letters: b batch, d embedding, s side in pixels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from carcls.architecture import Architecture, architecture_of
from carcls.config import SCRATCH, Stem, TrialConfig
from carcls.models.backbones import Backbone
from carcls.seeding import drawing


class Block(nn.Module):
    """Feature maps [b, from, h, w] to [b, to, h/2, w/2]."""

    def __init__(self, before: int, after: int, *, batch_norm: bool, residual: bool) -> None:
        super().__init__()
        self.first = _convolution(before, after, 3, batch_norm=batch_norm)
        self.second = _convolution(after, after, 3, batch_norm=batch_norm) if residual else None
        self.shortcut = _convolution(before, after, 1, batch_norm=batch_norm) if residual and before != after else None

    def forward(self, maps: Tensor) -> Tensor:
        """Return the pooled maps."""
        found = self.first(maps)
        if self.second is not None:
            around = maps if self.shortcut is None else self.shortcut(maps)
            found = self.second(functional.relu(found)) + around
        return functional.max_pool2d(functional.relu(found), 2)


class ScratchNetwork(nn.Module):
    """Normalised images [b, 3, s, s] to embeddings [b, d]."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        before = 3 if shape.stem == "none" else shape.width
        self.stem = _stem(shape.stem, before, batch_norm=shape.batch_norm)
        pairs = zip((before, *shape.channels[:-1]), shape.channels, strict=True)
        self.blocks = nn.Sequential(
            *(Block(a, b, batch_norm=shape.batch_norm, residual=shape.residual) for a, b in pairs)
        )
        self.head_pooling = shape.head_pooling

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [b, d]."""
        maps: Tensor = self.blocks(self.stem(images))  # [b, channels, h, w]
        if self.head_pooling == "flatten":
            return maps.flatten(1)
        return maps.mean(dim=(2, 3)) if self.head_pooling == "average" else maps.amax(dim=(2, 3))


def _convolution(before: int, after: int, side: int, *, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    # BatchNorm has a shift of its own.
    convolution = nn.Conv2d(before, after, side, stride, side // 2, bias=not batch_norm)
    return nn.Sequential(convolution, nn.BatchNorm2d(after)) if batch_norm else nn.Sequential(convolution)


def _stem(stem: Stem, channels: int, *, batch_norm: bool) -> nn.Sequential:
    if stem == "none":
        return nn.Sequential()
    if stem == "stride2":
        return nn.Sequential(_convolution(3, channels, 3, batch_norm=batch_norm, stride=2), nn.ReLU())
    wide = _convolution(3, channels, 7, batch_norm=batch_norm, stride=2)
    return nn.Sequential(wide, nn.ReLU(), nn.MaxPool2d(3, 2, 1))


def build_scratch(config: TrialConfig) -> Backbone:
    """Build the network that the trial describes, with He initialisation (He et al. 2015) from the trial's seed.

    Raises:
        InputError: the images are too small for it.
    """
    shape = architecture_of(config)
    with drawing(config.seed, "backbone"):
        body = ScratchNetwork(shape)
        for module in body.modules():
            he_initialise(module)
    stages = ((("stem", ("stem",)),) if shape.stem != "none" else ()) + tuple(
        (f"block{number + 1}", (f"blocks.{number}",)) for number in range(shape.depth)
    )
    return Backbone(SCRATCH, body, shape.embedding(config.image_size), stages)


def he_initialise(module: nn.Module) -> None:
    """Draw the weights of a convolution or a linear layer from N(0, 2 / fan-out), and set its bias to 0.

    A linear head, which no ReLU follows, has its fan-in instead, so that its first logits are small.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        mode: Literal["fan_out", "fan_in"] = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
        nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
