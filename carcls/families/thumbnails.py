"""Thumbnails of training images: the crops that networks see, small, with the sides as long as they were."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carcls.data.audit import sides_of
from carcls.data.dataset import Dataset
from carcls.errors import UnreadableImage
from carcls.stages import StageStore

SIDE, _QUALITY = 96, 80


def make_thumbnail(data: Dataset, stages: StageStore, row: int, size: int) -> bytes:
    """Return a JPEG of an image, its longer side 96 pixels; nothing where it cannot be read.

    Args:
        data: of which.
        stages: where the images are, if they were decoded.
        row: of ``data.manifest.images``.
        size: side in pixels of the squares that were decoded.
    """
    try:
        return _shrunk(data.square(stages, row, size), *(sides_of(data, row) or (1, 1)))
    except (UnreadableImage, OSError):
        return b""


def _shrunk(square: NDArray[np.uint8], width: int, height: int) -> bytes:
    side, longer, file = min(SIDE, len(square)), max(width, height), io.BytesIO()
    sides = max(1, round(side * width / longer)), max(1, round(side * height / longer))
    small = Image.fromarray(square).resize(sides, Image.Resampling.BICUBIC, reducing_gap=3.0)
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
