"""Made-up photographs, and the ways in which copies of photographs differ from them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def photograph(seed: int, size: tuple[int, int] = (150, 100)) -> Image.Image:
    """Return a picture with coarse and fine detail of its own, in colours of its own."""
    rng = np.random.default_rng(seed)
    mixed = np.zeros((size[1], size[0], 3))
    for cells, strength in ((3, 60), (7, 45), (16, 35), (40, 20)):
        noise = rng.normal(128, strength, size=(cells, cells, 3)).clip(0, 255).astype(np.uint8)
        mixed += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), float) - 128
    return Image.fromarray((mixed + 128).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, quality: int = 75) -> Image.Image:
    """Return what a JPEG keeps of it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut up to 10% off the width and off the height, anywhere."""
    width, height = image.size
    kept = rng.uniform(0.9, 1.0, 2) * image.size
    x, y = rng.uniform(0, 1, 2) * (image.size - kept)
    return image.crop((round(x), round(y), min(width, round(x + kept[0])), min(height, round(y + kept[1]))))


def _crop_sides(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut up to 10% off each of the four sides."""
    (width, height), (left, top, right, bottom) = image.size, rng.uniform(0, 0.1, 4)
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def _turn(image: Image.Image, rng: np.random.Generator, *, expand: bool = False) -> Image.Image:
    """Turn by up to 10°; the corners are black or white."""
    fill = (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255)
    return image.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC, expand=expand, fillcolor=fill)


def _turn_within(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn by up to 10° and keep the largest part of the same shape that has no corners."""
    angle = rng.uniform(-10, 10)
    sin, cos = abs(np.sin(np.radians(angle))), np.cos(np.radians(angle))
    width, height = image.size
    share = min(width / (width * cos + height * sin), height / (width * sin + height * cos))
    edges = (width * (1 - share) / 2, height * (1 - share) / 2)
    turned = image.rotate(angle, Image.Resampling.BICUBIC)
    return turned.crop((round(edges[0]), round(edges[1]), round(width - edges[0]), round(height - edges[1])))


def _resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Make it half to twice as large."""
    scale = rng.uniform(0.5, 2.0)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)


def _border(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put a border of up to 10% of the shorter side around it."""
    colour = tuple(int(level) for level in rng.choice([rng.integers(0, 256, 3), np.zeros(3), np.full(3, 255)]))
    return ImageOps.expand(image, max(1, round(rng.uniform(0, 0.1) * min(image.size))), colour)


CHANGES: Mapping[str, Change] = {
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "cropped": _crop,
    "cropped on each side": _crop_sides,
    "turned": _turn,
    "turned, on a larger canvas": lambda image, rng: _turn(image, rng, expand=True),
    "turned, without corners": _turn_within,
    "compressed": lambda image, rng: saved(image, int(rng.integers(20, 90))),
    "resized": _resize,
    "brightness": lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2)),
    "contrast": lambda image, rng: ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2)),
    "border": _border,
}
"""By what is said of it; amounts are drawn uniformly."""
