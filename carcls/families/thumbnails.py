"""Thumbnails of training images: the crops that networks see, small, with the sides as long as they were."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carcls.data.dataset import Dataset
from carcls.data.decode import open_image
from carcls.data.manifest import in_pixels
from carcls.errors import UnreadableImage
from carcls.stages import StageStore

SIDE, _QUALITY = 96, 80
_ORIENTATION, _SIDEWAYS = 0x0112, range(5, 9)


def make_thumbnail(data: Dataset, stages: StageStore, row: int, size: int) -> bytes:
    """Return a JPEG of an image, its longer side 96 pixels; nothing where it cannot be read.

    Args:
        data: of which.
        stages: where the images are, if they were decoded.
        row: of ``data.manifest.images``.
        size: side in pixels of the squares that were decoded.
    """
    try:
        return _shrunk(data.square(stages, row, size), *_sides(data, row))
    except (UnreadableImage, OSError):
        return b""


def _sides(data: Dataset, row: int) -> tuple[int, int]:
    """Return width and height of what a square was squashed from; equal where that is not known any more."""
    image = data.manifest.images[row]
    try:
        with open_image(data.manifest.root / image.path) as file:
            (width, height), turned = file.size, file.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # Pillow's plug-ins raise whatever a broken file makes them trip over
        return 1, 1
    if image.box is not None:
        x1, y1, x2, y2 = in_pixels(image.box, width, height)
        width, height = max(1, round(x2 - x1)), max(1, round(y2 - y1))
    return (height, width) if turned else (width, height)


def _shrunk(square: NDArray[np.uint8], width: int, height: int) -> bytes:
    side, longer, file = min(SIDE, len(square)), max(width, height), io.BytesIO()
    sides = max(1, round(side * width / longer)), max(1, round(side * height / longer))
    small = Image.fromarray(square).resize(sides, Image.Resampling.BICUBIC, reducing_gap=3.0)
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
