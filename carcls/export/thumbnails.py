"""Small pictures of a gallery, in one file: people who are shown neighbours need not have the data set.

Letters: g gallery, n bytes of all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from carcls.disk import replacing

THUMBNAILS_NAME = "thumbnails.safetensors"


def write_thumbnails(folder: Path, pictures: Sequence[bytes]) -> None:
    """Write JPEGs, [g], into an export: ``jpegs`` uint8 [n], and ``offsets`` int64 [g + 1], where each begins.

    Args:
        folder: of the export.
        pictures: in the gallery's order; an empty one stands for an image that could not be read.
    """
    offsets = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    with replacing(folder / THUMBNAILS_NAME) as temporary:
        save_file({"jpegs": np.frombuffer(b"".join(pictures), np.uint8), "offsets": offsets}, temporary)


def read_thumbnail(folder: Path, place: int) -> bytes | None:
    """Return the JPEG of one image of an export's gallery; None where the export has none of it. Reads only that."""
    try:
        with safe_open(folder / THUMBNAILS_NAME, "np") as file:
            offsets = file.get_slice("offsets")
            if not 0 <= place < offsets.get_shape()[0] - 1:
                return None
            first, last = map(int, offsets[place : place + 2])
            return file.get_slice("jpegs")[first:last].tobytes() if last > first else None
    except (OSError, SafetensorError):
        return None
