"""Small pictures of a data set's images, as text that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import Image

from carcls.data.dataset import Dataset
from carcls.errors import UnreadableImage
from carcls.stages import StageStore

MOST_BYTES = 4000
_QUALITIES = (75, 55, 35, 15, 1)


def pictures_of(data: Dataset, stages: StageStore, size: int, rows: Iterable[int], side: int) -> dict[int, str]:
    """Return images as WebP in data URIs, by their rows; those that cannot be read any more are left out.

    Args:
        data, stages: where they are; see ``Dataset.square``.
        size: of the pack that they are taken from.
        rows: of the data set.
        side: in pixels, of the pictures; a smaller pack's are as small as they are.
    """
    found = {}
    for row in dict.fromkeys(rows):
        try:
            image = Image.fromarray(data.square(stages, row, size))
        except UnreadableImage:
            continue
        found[row] = as_uri(image.resize((side, side), Image.Resampling.LANCZOS) if image.width > side else image)
    return found


def as_uri(image: Image.Image) -> str:
    """Return a picture as a data URI: WebP in the best quality that takes at most MOST_BYTES, or else in the worst."""
    for quality in _QUALITIES:
        image.save(written := io.BytesIO(), "WEBP", quality=quality)
        if written.tell() <= MOST_BYTES:
            break
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
