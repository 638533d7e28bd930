"""Augmentation of whole batches, each image with random numbers of its own.

What happens to an image in an epoch depends on (seed, epoch, row) alone, never on the batch it is in. So an epoch's
view of the images is a pure function, and the features of a frozen backbone on it can be cached exactly.

Shapes: b batch, s side in pixels. Images are float32 [b, 3, s, s] in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from carcls.config import Crop, TrialConfig
from carcls.seeding import generator

DRAWS = 9
LEAST_SCALE = 0.08
LEAST_WINDOW = 0.5
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in gray (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to an image, its strength already multiplied in.

    Attributes:
        crop: ``none``, ``random`` (window of fixed size at a random place) or ``resized`` (random area and aspect).
        window: side of the random crop's window as a share of the image's, in (0, 1].
        crop_scale: least area of the resized crop as a share of the image's, in (0, 1].
        flip: mirror with probability 1/2.
        rotation: largest angle in degrees; what comes from outside the image is black.
        jitter: brightness, contrast and saturation are each multiplied by a factor in 1 ± jitter.
    """

    crop: Crop
    window: float
    crop_scale: float
    flip: bool
    rotation: float
    jitter: float

    @property
    def moves(self) -> bool:
        """Whether pixels are resampled (a flip alone only reorders them)."""
        return self.crop != "none" or self.rotation > 0


def augmentation_of(config: TrialConfig) -> Augmentation | None:
    """Return the trial's augmentation, or None when it changes nothing."""
    if not config.augments:
        return None
    strength = config.augmentation_strength
    return Augmentation(
        crop=config.crop,
        window=max(LEAST_WINDOW, 1 - strength / 8) if config.crop == "random" else 1.0,
        crop_scale=max(LEAST_SCALE, 1 - strength * (1 - config.crop_scale)) if config.crop == "resized" else 1.0,
        flip=config.flip,
        rotation=min(180.0, strength * config.rotation),
        jitter=min(0.95, strength * config.jitter),
    )


def draw_view(rows: Tensor, total: int, seed: int, epoch: int) -> Tensor:
    """Return uniform numbers in [0, 1) for the given images of one epoch, float32 [b, DRAWS].

    Args:
        rows: int64 [b], in [0, total).
        total: images of the data set; all their numbers are drawn, so that a row's do not depend on the batch.
        seed: of the trial.
        epoch: from 0.
    """
    return _draw_all(total, seed, epoch)[rows]


@lru_cache(maxsize=2)
def _draw_all(total: int, seed: int, epoch: int) -> Tensor:
    return torch.rand(total, DRAWS, generator=generator(seed, "view", epoch))


def augment(images: Tensor, draws: Tensor, augmentation: Augmentation) -> Tensor:
    """Return changed images, float32 [b, 3, s, s] in [0, 1].

    Args:
        images: float32 [b, 3, s, s] in [0, 1].
        draws: float32 [b, DRAWS] in [0, 1), from ``draw_view``.
        augmentation: what may happen.
    """
    draws = draws.to(images.device)
    if augmentation.moves:
        images = _resample(images, _transforms(draws, augmentation))
    elif augmentation.flip:
        mirrored = (draws[:, 0] < 0.5)[:, None, None, None]
        images = torch.where(mirrored, images.flip(-1), images)
    if augmentation.jitter > 0:
        images = _jitter(images, draws[:, 6:9], augmentation.jitter)
    return images


def _resample(images: Tensor, transforms: Tensor) -> Tensor:
    """Return the images seen through their matrices, [b, 3, s, s], by one bilinear sampling.

    No window is larger than the image, so pixels are only ever spread out, and no filter against aliasing is missed.
    """
    grid = _grid(transforms, images.shape[-1])  # [b, s, s, 2]
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _grid(transforms: Tensor, side: int) -> Tensor:
    """Return what ``functional.affine_grid`` does, float32 [b, s, s, 2].

    A column's part and a row's part are added, which takes a twentieth of the time of its product of matrices.
    """
    centres = (2 * torch.arange(side, device=transforms.device) + 1) / side - 1  # [s], of pixels, in [-1, 1]
    columns = transforms[:, :, 0, None] * centres  # [b, 2, s]
    rows = transforms[:, :, 1, None] * centres + transforms[:, :, 2, None]  # [b, 2, s]
    return (columns[:, :, None, :] + rows[:, :, :, None]).permute(0, 2, 3, 1)


def _transforms(draws: Tensor, augmentation: Augmentation) -> Tensor:
    """Return the matrices from output to input coordinates (both in [-1, 1]), float32 [b, 2, 3]."""
    mirror, angle, place_x, place_y, area, aspect = draws[:, :6].unbind(dim=1)  # each [b]
    width, height = _windows(area, aspect, augmentation)
    radians = (2 * angle - 1) * math.radians(augmentation.rotation)
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if augmentation.flip else torch.ones_like(mirror)
    cos, sin = radians.cos(), radians.sin()
    shift_x, shift_y = (2 * place_x - 1) * (1 - width), (2 * place_y - 1) * (1 - height)
    top = torch.stack([cos * width * sign, -sin * height, shift_x], dim=1)
    bottom = torch.stack([sin * width * sign, cos * height, shift_y], dim=1)
    return torch.stack([top, bottom], dim=1)  # [b, 2, 3]


def _windows(area: Tensor, aspect: Tensor, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """Return width and height of each image's window as shares of the image's sides, each [b] in (0, 1]."""
    if augmentation.crop != "resized":
        side = torch.full_like(area, augmentation.window)
        return side, side
    scale = augmentation.crop_scale + area * (1 - augmentation.crop_scale)
    stretch = torch.exp((2 * aspect - 1) * math.log(4 / 3) / 2)
    return (scale.sqrt() * stretch).clamp(max=1.0), (scale.sqrt() / stretch).clamp(max=1.0)


def _jitter(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """Return images [b, 3, s, s] of other colours: brightness, then contrast, then saturation, as torchvision has them.

    Each is linear in the pixels, so the three together are one 3 × 3 matrix and one shift for each image.
    """
    brightness, contrast, saturation = (1 + (2 * draws - 1) * amount)[:, :, None, None].unbind(dim=1)  # each [b, 1, 1]
    # Filled where it is used: a GPU would be waited for while three numbers are copied to it.
    luma = torch.cat([images.new_full((1,), share) for share in LUMA])
    gray = luma.expand(3, 3)  # sends a colour to its gray in all three channels
    matrices = contrast * brightness * (saturation * torch.eye(3, device=images.device) + (1 - saturation) * gray)
    # A gray has no saturation to change: what contrast adds stays as it is.
    # [b], of the gray image; a matrix product would round otherwise for other numbers of images, on some processors.
    mean = (images.mean(dim=(2, 3)) * luma).sum(dim=1)
    shifts = ((1 - contrast) * brightness * mean[:, None, None]).expand(-1, 3, 1)
    return torch.baddbmm(shifts, matrices, images.flatten(2)).clamp_(0, 1).view_as(images)
