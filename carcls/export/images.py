"""Images as callers have them, brought into the form that a network was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from carcls.data.decode import as_rgb, read_square
from carcls.errors import InputError, UnreadableImage

ImageLike = str | Path | Image.Image | np.ndarray
Images = Sequence[ImageLike] | ImageLike
BATCH = 64


class Preprocessing:
    """What a network sees of an image.

    Args:
        image_size: side in pixels of the square that images are squashed to.
        mean, std: per channel, of images in [0, 1].
    """

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self._size = image_size
        self._mean, self._std = (torch.tensor(each, dtype=torch.float32).view(1, 3, 1, 1) for each in (mean, std))

    def batches(self, images: Images) -> Iterator[torch.Tensor]:
        """Yield normalised batches float32 [b, 3, s, s] of whatever ``Predictor.predict`` accepts.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        squares = (_square(position, image, self._size) for position, image in enumerate(_one_by_one(images)))
        while batch := list(islice(squares, BATCH)):
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255  # [b, 3, s, s] in 0..1
            yield (pixels - self._mean) / self._std


def _square(position: int, image: ImageLike, size: int) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        try:
            return read_square(Path(image), size)
        except UnreadableImage as error:
            raise InputError(
                f"image must be readable, got {str(image)!r}: {error}. Check the path and file."
            ) from error
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_as_bytes(position, image))
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image {position} must be a path, a PIL image or an array, got {type(image).__name__}. Convert it."
        )
    try:
        upright = as_rgb(ImageOps.exif_transpose(image))
        return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))
    except (OSError, ValueError) as error:
        raise InputError(
            f"image {position} must be readable, got a PIL image that is not: {error}. Check its file."
        ) from error


def _one_by_one(images: Images) -> Iterator[ImageLike]:
    if isinstance(images, np.ndarray):
        return iter(images) if images.ndim == 4 else iter([images])
    if isinstance(images, str | Path | Image.Image):
        return iter([images])
    if not isinstance(images, Iterable):
        raise InputError(
            f"images must be paths, PIL images or arrays, got {type(images).__name__}. Give a list of them."
        )
    return iter(images)


def _as_bytes(position: int, array: np.ndarray) -> NDArray[np.uint8]:
    """Return uint8 [h, w, 3] or [h, w] of uint8 or of floating numbers in 0..1."""
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not shaped or array.size == 0:
        raise InputError(f"image {position} must be an array [h, w, 3] or [h, w], got shape {array.shape}. Reshape it.")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise InputError(f"image {position} must be uint8 or floating, got {array.dtype}. Convert it.")
    # Written so that NaN is refused as well.
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(
            f"image {position} must hold floating numbers in 0..1, got {array.min()}..{array.max()}. Scale it."
        )
    return np.round(array * 255).astype(np.uint8)
