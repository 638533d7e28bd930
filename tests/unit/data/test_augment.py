"""Augmentation: each image has its own random numbers, and each change does what it says."""

import math

import pytest
import torch
from torchvision.transforms.functional import adjust_brightness, adjust_contrast, adjust_saturation

from carcls.config import TrialConfig
from carcls.data.augment import Augmentation, augment, augmentation_of, draw_view

STILL = {"crop": "none", "window": 1.0, "crop_scale": 1.0, "flip": False, "rotation": 0.0, "jitter": 0.0}


def _images(count: int = 4, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def _draws(count: int, **columns: float) -> torch.Tensor:
    draws = torch.full((count, 9), 0.5)
    places = {"mirror": 0, "angle": 1, "x": 2, "y": 3, "area": 4, "aspect": 5, "brightness": 6, "contrast": 7}
    for name, value in columns.items():
        draws[:, places[name]] = value
    return draws


def test_an_image_changes_alike_in_any_batch() -> None:
    """What happens to a row depends on seed, epoch and row, not on its neighbours in the batch."""
    config = TrialConfig(crop="random", flip=True, rotation=15, jitter=0.3)
    change = augmentation_of(config)
    images, rows = _images(6), torch.arange(6)
    whole = augment(images, draw_view(rows, 6, seed=3, epoch=2), change)
    for order in ([5, 1], [0], [2, 3, 4, 5, 0, 1]):
        part = augment(images[order], draw_view(rows[order], 6, seed=3, epoch=2), change)
        torch.testing.assert_close(part, whole[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [{}, {"rotation": 1e-9}])
def test_flip_mirrors_exactly(other: dict[str, float]) -> None:
    """A drawn mirror reverses the columns, by reordering or by resampling."""
    change = Augmentation(**{**STILL, "flip": True, **other})
    images = _images()
    torch.testing.assert_close(augment(images, _draws(4, mirror=0.1), change), images.flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(augment(images, _draws(4, mirror=0.9), change), images, atol=1e-4, rtol=0)


def test_a_mirror_alone_changes_no_pixel() -> None:
    """Without resampling the mirrored image has the very numbers of the image, and the others are the image."""
    change = Augmentation(**{**STILL, "flip": True})
    images, draws = _images(), _draws(4)
    draws[:, 0] = torch.tensor([0.1, 0.9, 0.2, 0.8])
    seen = augment(images, draws, change)
    assert torch.equal(seen[[0, 2]], images[[0, 2]].flip(-1))
    assert torch.equal(seen[[1, 3]], images[[1, 3]])


def test_rotation_by_ninety_degrees_is_torch_rot90() -> None:
    """The angle is in degrees, turns about the centre, and keeps pixels where they belong."""
    change = Augmentation(**{**STILL, "rotation": 90.0})
    images = _images()
    turned = augment(images, _draws(4, angle=1.0), change)
    torch.testing.assert_close(turned, torch.rot90(images, 1, dims=(2, 3)), atol=1e-4, rtol=0)


def test_resized_crop_stays_inside_the_image() -> None:
    """No window reaches outside: an all-white image stays all white."""
    change = Augmentation(**{**STILL, "crop": "resized", "crop_scale": 0.2})
    draws = draw_view(torch.arange(256), 256, seed=0, epoch=0)
    white = augment(torch.ones(256, 3, 16, 16), draws, change)
    assert white[:, :, 1:-1, 1:-1].min() > 0.999


def test_strength_scales_every_change() -> None:
    """Strength 0 is no augmentation; 2 doubles the angle, the jitter and the distance of the crop."""
    settings = {"crop": "random", "flip": True, "rotation": 15.0, "jitter": 0.2}
    assert augmentation_of(TrialConfig(**settings, augmentation_strength=0)) is None
    once = augmentation_of(TrialConfig(**settings))
    twice = augmentation_of(TrialConfig(**settings, augmentation_strength=2))
    assert (once.rotation, once.window) == (15.0, pytest.approx(7 / 8))
    assert (twice.rotation, twice.window) == (30.0, pytest.approx(6 / 8))
    assert twice.jitter == pytest.approx(2 * once.jitter)


def test_rotated_corners_are_black() -> None:
    """What a rotation brings in from outside the image is black, as torchvision's RandomRotation fills it."""
    change = Augmentation(**{**STILL, "rotation": 45.0})
    turned = augment(torch.ones(1, 3, 33, 33), _draws(1, angle=1.0), change)
    assert turned[0, :, 0, 0].max() == 0.0
    assert turned[0, :, 16, 16].min() == pytest.approx(1.0)
    assert math.isclose(turned.mean().item(), 0.83, abs_tol=0.05)


def test_a_crop_is_slicing_and_resizing() -> None:
    """A random window at a drawn place is that slice of the image, resized by the usual bilinear rule."""
    change = Augmentation(**{**STILL, "crop": "random", "window": 0.5})
    images = _images(1, side=64)
    # The window of 32 pixels can go 32: a quarter of that from the left, three quarters from the top.
    expected = torch.nn.functional.interpolate(images[:, :, 24:56, 8:40], scale_factor=2, mode="bilinear")
    seen = augment(images, _draws(1, x=0.25, y=0.75), change)
    # At its border the crop sees the pixels beyond, which slicing has cut off.
    torch.testing.assert_close(seen[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-4, rtol=0)


def test_all_three_colour_changes_are_what_torchvision_does_one_after_the_other() -> None:
    """One matrix and one shift for each image give torchvision's brightness, contrast and saturation, in this order."""
    change = Augmentation(**{**STILL, "jitter": 0.3})
    images = 0.2 + _images() * 0.3  # so that torchvision, which clamps after each, has nothing to clamp
    draws = torch.rand(4, 9, generator=torch.Generator().manual_seed(2))
    for image, (brightness, contrast, saturation), seen in zip(
        images, (1 + (2 * draws[:, 6:] - 1) * 0.3).tolist(), augment(images, draws, change), strict=True
    ):
        expected = adjust_saturation(adjust_contrast(adjust_brightness(image, brightness), contrast), saturation)
        torch.testing.assert_close(seen, expected, atol=2e-4, rtol=0)  # its shares of gray have four digits
    assert augment(_images(), _draws(4, brightness=1.0, contrast=1.0), change).max() <= 1.0
