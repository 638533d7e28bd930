"""What people and clients call an image: a path, a file's bytes, base64, a data URL, pixels; and the square it becomes.

Letters: h, w height and width in pixels, s side of the square.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from carcls.data.decode import as_rgb, read_squares
from carcls.errors import UnreadableImage

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Sequence[Any]
# How files of the formats that are read begin, and what base64 makes of it; nobody's path begins so.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x00")
_LEAST_BASE64 = 64


@dataclass(frozen=True, slots=True)
class Files:
    """Which files may be read for whoever sends a path.

    Attributes:
        folder: those in this folder; None for all of them, as in one's own process.
        forbidden: none at all, and nobody learns which exist.
    """

    folder: Path | None = None
    forbidden: bool = False

    def find(self, text: str) -> Path:
        """Return the file that a path names.

        Raises:
            UnreadableImage: it may not be read; said alike whether it exists or not.
        """
        if self.forbidden:
            raise UnreadableImage("no files are read here; send the image itself, as base64 or as a data URL")
        try:
            if self.folder is None:
                return Path(text)
            folder = self.folder.resolve()
            path = (folder / text).resolve()
            inside = path.is_relative_to(folder)
        except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
            raise UnreadableImage("it is neither a path, nor base64 of an image, nor a data URL") from error
        if not inside:
            raise UnreadableImage("only files of the folder that is served are read")
        return path


EVERY_FILE = Files()


def read_pixels(image: ImageLike, size: int, files: Files = EVERY_FILE) -> NDArray[np.uint8]:
    """Return an image as networks see it: RGB, upright, squashed, uint8 [s, s, 3]; for several threads at a time.

    Args:
        image: a path; the bytes of a file; text that is base64 of them, or a data URL; a PIL image; an array or nested
            lists [h, w], [h, w, 1], [h, w, 3] or with transparency [h, w, 4], of whole numbers in 0..255 or of others
            in 0..1.
        size: s in pixels.
        files: which paths may be read.

    Raises:
        UnreadableImage: it is none of these, or damaged; the reason names no folder.
    """
    if isinstance(image, str):
        image = _named(image, files)
    elif isinstance(image, Path):
        image = files.find(str(image))
    if isinstance(image, bytes | bytearray | memoryview):
        image = bytes(image)
    if isinstance(image, Path | bytes):
        try:
            return read_squares(image, [size])[0]
        except UnreadableImage:
            raise
        except (OSError, ValueError) as error:  # a path with a NUL, or one that is too long
            raise UnreadableImage(str(error)) from error
    if isinstance(image, np.ndarray | list | tuple):
        image = Image.fromarray(_as_bytes(image))
    if not isinstance(image, Image.Image):
        raise UnreadableImage(f"it must be a path, bytes, text, a PIL image or an array, got {type(image).__name__}")
    try:
        upright = as_rgb(ImageOps.exif_transpose(image))
        return np.asarray(upright.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(f"it is damaged ({error})") from error


def _named(text: str, files: Files) -> Path | bytes:
    """Return what a text stands for: the bytes in it, or a file."""
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise UnreadableImage("a data URL must be data:image/...;base64,... and hold an image")
        return _decoded(body)
    if len(text) >= _LEAST_BASE64:
        try:
            begins = base64.b64decode(text[:16].translate(_URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            begins = b""
        if begins.startswith(_MAGIC):
            return _decoded(text)
    return files.find(text)


_URL_SAFE = str.maketrans("-_", "+/")


def _decoded(text: str) -> bytes:
    """Return the bytes of base64, also of its URL-safe kind, with line ends, or without its last equals signs."""
    packed = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableImage("its base64 is damaged") from error


def _as_bytes(pixels: Any) -> NDArray[np.uint8]:
    """Return uint8 [h, w], [h, w, 3] or [h, w, 4] of numbers in 0..255 or 0..1."""
    try:
        array = np.asarray(pixels)
    except ValueError as error:  # lists of different lengths
        raise UnreadableImage("its rows must be equally long") from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})) or array.size == 0:
        raise UnreadableImage(f"an array must be [h, w], [h, w, 3] or [h, w, 4], got shape {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iuf":
        raise UnreadableImage(f"an array must hold numbers, got {array.dtype}")
    low, high = array.min(), array.max()
    # Written so that NaN is refused as well.
    if not (low >= 0 and high <= 255):
        raise UnreadableImage(f"an array must hold whole numbers in 0..255 or others in 0..1, got {low}..{high}")
    if array.dtype.kind == "f" and high <= 1:
        array = np.round(array * 255)
    elif array.dtype.kind == "f" and not (array == np.floor(array)).all():
        raise UnreadableImage(f"an array must hold whole numbers in 0..255 or others in 0..1, got {low}..{high}")
    return array.astype(np.uint8)
