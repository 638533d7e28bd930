"""Images beside the training images nearest to them, as one page that needs nothing else."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from carcls.data.dataset import Dataset
from carcls.errors import InputError, UnreadableImage
from carcls.export import read_pixels
from carcls.stages import StageStore, write_text
from sweeps.report.pictures import as_uri, pictures_of
from sweeps.report.templates import read_pages, template

if TYPE_CHECKING:
    from carcls.export import Prediction

PICTURE, ASKED_PICTURE = 96, 180
"""Sides in pixels of the training images' pictures, and of those that were asked about."""


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image that was asked about: path, picture as a data URI, and what the model says or why it cannot."""

    image: str
    picture: str
    said: Prediction | UnreadableImage

    @property
    def failure(self) -> str:
        """Why it could not be read; empty otherwise."""
        return str(self.said) if isinstance(self.said, UnreadableImage) else ""


def votes_of(said: Prediction) -> str:
    """Write for which classes how many neighbours voted, the winner first."""
    voted = Counter(one.label for one in said.neighbours)
    ranked = sorted(voted, key=lambda label: (label != said.label, -voted[label]))
    return ", ".join(f"{voted[label]} × {label}" for label in ranked)


def write_similar(
    path: Path, model: str, answers: Sequence[tuple[str, Prediction | UnreadableImage]], images: Mapping[str, str]
) -> None:
    """Write the page whole or not at all.

    Args:
        path: of the page.
        model: which answered, in words.
        answers: paths with what is said of them.
        images: pictures of training images as data URIs, by their paths in the data set; others are told in words.
    """
    asked = [QueryImage(image, _picture_of(image), said) for image, said in answers]
    known = {"asked": asked, "model": model, "pictures": images, "votes_of": votes_of}
    page = template("similar.html.j2").render(**known, style="\n".join(read_pages("*.css")))
    write_text(path, page.encode("utf-8", "backslashreplace").decode())  # paths may have bytes that are no text


def training_pictures(folder: Path, size: int, images: Sequence[str]) -> dict[str, str]:
    """Return pictures of training images by their paths: from the cached stages or the data folder, as far as they are.

    Args:
        folder: of the sweep that trained the model; None of them where it is gone.
        size: of the model's images, in pixels.
        images: paths in the data set.
    """
    try:
        data = Dataset.load(folder / "dataset.json")
    except InputError:
        return {}
    rows = {image.path: row for row, image in enumerate(data.manifest.images)}
    wanted = {image: rows[image] for image in images if image in rows}
    found = pictures_of(data, StageStore(folder.parent / "stages"), size, wanted.values(), PICTURE)
    return {image: found[row] for image, row in wanted.items() if row in found}


def jpeg_uri(picture: bytes) -> str:
    """Return a JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def _picture_of(image: str) -> str:
    try:
        return as_uri(Image.fromarray(read_pixels(Path(image), ASKED_PICTURE)))
    except UnreadableImage:
        return ""
