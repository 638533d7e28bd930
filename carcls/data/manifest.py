"""What a data set is before any pixel is read: paths, labels, splits, boxes, class names, and a digest of it all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from carcls.data.decode import Box

Layout = Literal["devkit", "folders"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: relative to the manifest's root, with forward slashes.
        label: position in the manifest's classes.
        split: as the data set has it; validation is cut from train later.
        box: x1, y1, x2, y2 in pixels from 0, x2 and y2 exclusive; None means the whole image.
    """

    path: str
    label: int
    split: Literal["train", "test"]
    box: Box | None


@dataclass(frozen=True)
class Manifest:
    """A data set as found in a folder.

    Attributes:
        root: the folder.
        layout: ``devkit`` (annotations in .mat files) or ``folders`` (one folder a class).
        classes: names; an image's label is a position in it.
        images: all images of all splits; a row number anywhere else is a position in it.
        digest: 24 hexadecimal digits of everything above and the contents of the files, except ``root`` and
            ``layout``: a moved copy has the same one. Empty until the files have been read.
        contents: one digest of the file's bytes per image; ``unreadable`` where there are none. Empty as the digest.
        notes: one sentence each about what was left out or merged.
    """

    root: Path
    layout: Layout
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    digest: str = ""
    contents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_test(self) -> bool:
        """Whether the data set comes with a test split."""
        return any(image.split == "test" for image in self.images)

    def with_contents(self, contents: tuple[str, ...]) -> Manifest:
        """Return it with the digests of its files, and its own."""
        state = hashlib.blake2b(digest_size=12)
        state.update(json.dumps(list(self.classes)).encode())
        for image, content in zip(self.images, contents, strict=True):
            state.update(json.dumps([image.path, image.label, image.split, image.box, content]).encode())
        return replace(self, digest=state.hexdigest(), contents=contents)
