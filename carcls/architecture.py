"""The scratch network on paper: its shapes, parameters and arithmetic, from its settings alone. No torch.

Letters: s side of the image in pixels, d width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from carcls.config import ARCHITECTURE_SETTINGS, HeadPooling, Stem, TrialConfig
from carcls.errors import InputError

MOST_CHANNELS = 512
_COLOURS, _KERNEL = 3, 3
# Of each stem: side of its convolution's kernel, and by how much it makes the picture smaller in all.
_STEM_KERNELS: dict[Stem, int] = {"none": 0, "stride2": 3, "resnet": 7}
_SHRINKING: dict[Stem, int] = {"none": 1, "stride2": 2, "resnet": 4}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What describes a scratch network; fields as the settings of a trial (see ``TrialConfig``).

    Block i has ``width`` · 2^i channels, at most 512: a 3×3 convolution, BatchNorm if wished, ReLU, 2×2 max pooling.
    A residual block has two such convolutions and a shortcut around them, which is a 1×1 convolution where the number
    of channels changes; its second ReLU follows the sum.
    """

    depth: int
    width: int
    batch_norm: bool
    residual: bool
    stem: Stem
    head_pooling: HeadPooling

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each block, input first."""
        return tuple(int(min(self.width * 2**block, MOST_CHANNELS)) for block in range(self.depth))

    @property
    def least_image_size(self) -> int:
        """Side in pixels of the smallest image that leaves one pixel after the last block."""
        return int(_SHRINKING[self.stem] * (2**self.depth - 1) + 1)

    def embedding(self, image_size: int) -> int:
        """Return d: the channels of the last block, times the pixels of its map where that is laid out flat."""
        _, side = self._convolutions(image_size)
        return self.channels[-1] * (side**2 if self.head_pooling == "flatten" else 1)

    def macs(self, image_size: int) -> int:
        """Return multiply-accumulates of all convolutions for one image; not those of the head."""
        convolutions, _ = self._convolutions(image_size)
        return sum(weights * positions for weights, positions in convolutions)

    @property
    def weights(self) -> int:
        """Weights of all convolutions; biases, BatchNorm and the head not among them."""
        convolutions, _ = self._convolutions(self.least_image_size)
        return sum(weights for weights, _ in convolutions)

    def _convolutions(self, image_size: int) -> tuple[list[tuple[int, int]], int]:
        """Return each convolution's weights and the positions that they are applied at; and the last map's side."""
        found, channels, side = list[tuple[int, int]](), _COLOURS, image_size
        if self.stem != "none":
            side = _halved_up(side)
            found.append((_STEM_KERNELS[self.stem] ** 2 * channels * self.width, side**2))
            channels, side = self.width, _halved_up(side) if self.stem == "resnet" else side
        for wider in self.channels:
            kernels = [_KERNEL**2 * channels * wider]
            if self.residual:
                kernels += [_KERNEL**2 * wider * wider, *([channels * wider] if channels != wider else [])]
            found += [(weights, side**2) for weights in kernels]
            channels, side = wider, side // 2
        return found, side


def _halved_up(side: int) -> int:
    return (side + 1) // 2


def architecture_of(config: TrialConfig) -> Architecture:
    """Return the scratch network that a trial's settings describe.

    Raises:
        InputError: the trial's images are too small for it; names the sizes that fit.
    """
    architecture = Architecture(**{name: getattr(config, name) for name in ARCHITECTURE_SETTINGS})
    least = architecture.least_image_size
    if config.image_size < least:
        fitting = ((config.image_size - 1) // _SHRINKING[config.stem] + 1).bit_length() - 1
        raise InputError(
            f"image_size must be at least {least} for a scratch network of depth {config.depth} with stem "
            f"{config.stem}, got {config.image_size}. Use --set image_size={least} or --set depth={fitting}."
        )
    return architecture
