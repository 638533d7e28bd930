"""From an image file to squares of pixels: crop, resize, orient, and say in one sentence why a file is unusable."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from carcls.data.files import FORMATS, HEIF
from carcls.data.manifest import Box, in_pixels, require_file
from carcls.errors import UnreadableImage

Window = tuple[float, float, float, float]

LEAST_PIXELS = 448
"""A crop never has fewer pixels a side than this, or twice the wanted side, because of a reduced JPEG decode."""

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A loaded image, still to be resized: RGB pixels as stored, the window to keep, the turn, the reduction."""

    image: Image.Image
    window: Window
    turn: Image.Transpose | None
    reduction: int

    def square(self, size: int) -> Image.Image:
        """Return the window squashed to ``size`` × ``size`` and turned upright."""
        square = self.image.resize((size, size), Image.Resampling.BICUBIC, box=self.window, reducing_gap=3.0)
        # Both sides are equal, so turning after the resize is the same as before it, and cheaper.
        return square if self.turn is None else square.transpose(self.turn)

    def could_reduce(self, least: int) -> bool:
        """Tell whether the target ``least``, which is smaller, might be met by a more reduced decode."""
        x1, y1, x2, y2 = (edge * self.reduction for edge in self.window)
        return self.reduction < 8 and min(x2 - x1, y2 - y1) >= 2 * self.reduction * least


def read_square(source: Path | bytes, size: int, box: Box | None = None, margin: float = 0.0) -> NDArray[np.uint8]:
    """Return the image, or its box, as uint8 RGB [size, size, 3] in 0..255, upright; not for several threads.

    Args:
        source: the image file, or what it holds.
        size: side of the square in pixels; the aspect ratio is not kept.
        box: of the stored grid, in pixels or fractions, as ``Box`` has it. Annotation tools of the devkit's time read
            pixels without looking at the EXIF orientation, so the crop is cut first and turned upright after.
        margin: widens the box on each side by this fraction of its width and height, as far as the image goes.

    Raises:
        UnreadableImage: missing, no file, empty, truncated, too large, of none of our formats, or the box does not lie
            in the image.
    """
    with warnings.catch_warnings(action="ignore"):
        return read_squares(source, [size], box, margin)[0]


def read_squares(
    source: Path | bytes, sizes: Sequence[int], box: Box | None = None, margin: float = 0.0
) -> list[NDArray[np.uint8]]:
    """Return ``read_square`` of each size; several threads may do so at a time, which leave Pillow's warnings on.

    No square depends on which others are asked for; the file is decoded once for all of them, or once for each
    reduction that they need.

    Raises:
        UnreadableImage: as ``read_square``.
    """
    squares: dict[int, NDArray[np.uint8]] = {}
    decoded: Decoded | None = None
    for size in sorted(sizes, reverse=True):
        least = max(LEAST_PIXELS, 2 * size)
        if decoded is None or decoded.could_reduce(least):
            decoded = decode(source, least, box, margin)
        squares[size] = np.asarray(decoded.square(size))
    return [squares[size] for size in sizes]


def decode(source: Path | bytes, least: int, box: Box | None = None, margin: float = 0.0) -> Decoded:
    """Load the image; a JPEG whose crop has over twice ``least`` pixels a side is decoded at 1/2, 1/4 or 1/8.

    Raises:
        UnreadableImage: as ``read_square``.
    """
    try:
        if isinstance(source, Path):
            require_file(source)
        file = source if isinstance(source, Path) else io.BytesIO(source)
        with open_image(file) as image:
            _require_few_pixels(image)
            return _load(image, least, box, margin)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plug-ins raise whatever a broken file makes them trip over
        raise UnreadableImage(_reason(source, error)) from error


def open_image(file: Path | io.BytesIO) -> Image.Image:
    """Open an image of one of our formats; its pixels are not read yet.

    Raises:
        Exception: whatever Pillow's plug-ins trip over.
    """
    if HEIF in FORMATS:
        _register_heif()
    return Image.open(file, formats=tuple(FORMATS))


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # here because only few have it, and such images

    register_heif_opener()


def _require_few_pixels(image: Image.Image) -> None:
    # Pillow warns where an image has too many; filters of warnings are not for threads.
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError


def fit_window(width: int, height: int, box: Box | None, margin: float) -> Window:
    """Return the window to keep: the box, widened by ``margin`` of its sides and cut to the image.

    Raises:
        UnreadableImage: the box is empty, or more than half of it lies outside the image, as where somebody made the
            images smaller and left the boxes.

    >>> fit_window(100, 50, (10, 10, 30, 20), 0.5)
    (0.0, 5.0, 40.0, 25.0)
    """
    if box is None:
        return (0.0, 0.0, float(width), float(height))
    x1, y1, x2, y2 = in_pixels(box, width, height)
    if x2 <= x1 or y2 <= y1:
        raise UnreadableImage(f"its box {box} is empty")
    inside = max(0, min(x2, width) - max(x1, 0)) * max(0, min(y2, height) - max(y1, 0))
    if 2 * inside < (x2 - x1) * (y2 - y1):
        most = "most of " if inside else ""
        raise UnreadableImage(f"{most}its box {box} lies outside the {width}×{height} image")
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    return (max(0.0, x1 - dx), max(0.0, y1 - dy), min(float(width), x2 + dx), min(float(height), y2 + dy))


def _load(image: Image.Image, least: int, box: Box | None, margin: float) -> Decoded:
    full_width, full_height = image.size
    window = fit_window(full_width, full_height, box, margin)
    crop_width, crop_height = window[2] - window[0], window[3] - window[1]
    image.draft(
        None, (math.ceil(least * full_width / crop_width), math.ceil(least * full_height / crop_height))
    )  # does nothing unless the file is a JPEG
    reduction = max(1, round(full_width / image.width))
    image.load()
    # After loading: Pillow turns some formats by itself and then removes the tag.
    turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    x1, y1, x2, y2 = (edge / reduction for edge in window)
    x2, y2 = min(x2, float(image.width)), min(y2, float(image.height))
    # Cut to whole pixels first: resizing with a window alone lets the filter look at what lies beyond it.
    left, top = math.floor(x1), math.floor(y1)
    cropped = image.crop((left, top, math.ceil(x2), math.ceil(y2)))
    return Decoded(as_rgb(cropped), (x1 - left, y1 - top, x2 - left, y2 - top), turn, reduction)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB: transparency over white, 16-bit gray scaled to 8, palette and CMYK converted."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_bytes(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale [h, w] numbers to 0..255: integers are 16-bit, floats are 0..1 if none is larger and 0..255 otherwise."""
    numbers = np.nan_to_num(values.astype(np.float32))
    if values.dtype.kind == "f":
        numbers *= 255.0 if numbers.max(initial=0.0) <= 1.0 else 1.0
    else:
        numbers /= 257.0
    return np.clip(np.round(numbers), 0, 255).astype(np.uint8)


def _reason(source: Path | bytes, error: Exception) -> str:
    """Say why in words that do not contain the folder, so that a moved copy gives the same answer."""
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels"
    if source == b"" or (isinstance(source, Path) and source.is_file() and source.stat().st_size == 0):
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    said = str(error).replace(str(source), source.name) if isinstance(source, Path) else str(error)
    return f"it is damaged ({said or type(error).__name__})"
