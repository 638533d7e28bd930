"""What a data set is before any pixel is read: paths, labels, splits, boxes, class names, and a digest of it all.

Digests of files are remembered by size, times and inode, so that no file is read twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from carcls.errors import DataError, UnreadableImage
from carcls.stages import write_json

UNREADABLE = "unreadable"
_THREADS = 2
_KINDS = {"d": "a folder", "p": "a pipe", "s": "a socket", "c": "a device", "b": "a device"}
Split = Literal["train", "validation", "test"]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 from 0, x2 and y2 exclusive: whole numbers are pixels, floats are fractions of the image's sides.

Fractions stay what they are until the image is decoded: its sides are not known before it is opened.
"""
# Size in bytes, times of modification and of status change in nanoseconds, inode, digest. Exchanging files, or setting
# their times of modification, changes one of the others, also where renaming a file leaves its times alone.
_Entry = tuple[int, int, int, int, str]
_CACHE = TypeAdapter(dict[str, _Entry])


class ImagesNotRead(Exception):  # noqa: N818 - an answer, of which nobody has made a mistake
    """What is asked for could only be known by reading images."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: relative to the manifest's root, with forward slashes.
        label: position in the manifest's classes.
        split: as the data set has it; what it lacks is cut from train later.
        box: of the stored image; None means the whole image.
        group: images of one group, such as those of one car, stay on one side of a cut; empty for an image by itself.
    """

    path: str
    label: int
    split: Split
    box: Box | None
    group: str = ""


def in_pixels(box: Box, width: int, height: int) -> Box:
    """Return a box of an image of these sides in pixels.

    >>> in_pixels((0.25, 0.0, 1.0, 0.5), 200, 100), in_pixels((1, 2, 30, 40), 200, 100)
    ((50.0, 0.0, 200.0, 50.0), (1, 2, 30, 40))
    """
    if all(isinstance(edge, int) for edge in box):
        return box
    x1, y1, x2, y2 = box
    return x1 * width, y1 * height, x2 * width, y2 * height


def _columns_of(images: tuple[ImageRecord, ...]) -> dict[str, list[Any]]:
    names = ("path", "label", "split", "box", *(["group"] if any(image.group for image in images) else []))
    return {name: [getattr(image, name) for image in images] for name in names}


def _images_of(columns: dict[str, list[Any]]) -> tuple[ImageRecord, ...]:
    boxes = (None if box is None else tuple(box) for box in columns["box"])
    groups = columns.get("group", [""] * len(columns["path"]))
    return tuple(map(ImageRecord, columns["path"], columns["label"], columns["split"], boxes, groups))


@dataclass(frozen=True)
class Manifest:
    """A data set as found in a folder.

    Attributes:
        root: the folder.
        classes: names; an image's label is a position in it.
        images: all images of all splits; a row number anywhere else is a position in it.
        digest: 24 hexadecimal digits of everything above and the contents of the files, except ``root``: a moved copy
            has the same one. Empty until the files have been read.
        contents: one digest of the file's bytes per image; ``unreadable`` where there are none. Empty as the digest.
        notes: one sentence each about what was left out, cut or merged.
        layout: of the folder, in words; empty where it is not known.
        companions: paths of files that are no images and belong to the data set, relative to ``root``.
    """

    root: Path
    classes: tuple[str, ...]
    images: Annotated[tuple[ImageRecord, ...], PlainValidator(_images_of), PlainSerializer(_columns_of)]
    digest: str = ""
    contents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layout: str = ""
    companions: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Labels of all images, int64 [n], in 0..classes-1."""
        return np.array([image.label for image in self.images], np.int64)

    def with_contents(self, cache: Path | None = None, *, read: bool = True) -> Manifest:
        """Return it with the digests of its files, 32 hexadecimal digits of BLAKE2b each, and its own.

        Args:
            cache: a JSON file of what is known already, read first and rewritten when something was added.
            read: whether files may be read that are not known.

        Raises:
            ImagesNotRead: one would have to be, and may not.
        """
        known = _read_cache(cache)
        with ThreadPoolExecutor(_THREADS) as threads:
            paths = [image.path for image in self.images]
            entries = list(threads.map(lambda path: _entry(self.root / path, known.get(path), read=read), paths))
        fresh = {path: entry for path, entry in zip(paths, entries, strict=True) if entry is not None}
        if cache is not None and read and fresh != known:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, fresh)
        contents = tuple(UNREADABLE if entry is None else entry[-1] for entry in entries)
        state = hashlib.blake2b(digest_size=12)
        state.update(json.dumps(list(self.classes)).encode())
        for image, content in zip(self.images, contents, strict=True):
            group = [image.group] if image.group else []
            state.update(json.dumps([image.path, image.label, image.split, image.box, content, *group]).encode())
        return replace(self, digest=state.hexdigest(), contents=contents)


def contents_of(files: Sequence[Path], cache: Path) -> list[str]:
    """Return the digests of files, as ``Manifest.with_contents`` has those of images.

    Args:
        files: that must be there.
        cache: a JSON file of what is known already, read first and rewritten when something was added.

    Raises:
        DataError: one cannot be read.
    """
    known = _read_cache(cache)
    found = {str(file): _entry(file, known.get(str(file)), read=True) for file in files}
    lost = next((file for file, entry in found.items() if entry is None), None)
    if lost is not None:
        raise DataError(f"{lost} must be a file that can be read. Change its permissions.")
    fresh = {file: entry for file, entry in found.items() if entry is not None}
    if fresh != known:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, fresh)
    return [fresh[str(file)][-1] for file in files]


def require_file(path: Path) -> os.stat_result:
    """Check that a path leads to a file and return its state: a pipe would be waited for, and a device may never end.

    Raises:
        UnreadableImage: it leads to anything else.
        OSError: it leads nowhere.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UnreadableImage(f"it is {_KINDS.get(stat.filemode(state.st_mode)[0], 'something else')}, not a file")
    return state


def _entry(path: Path, known: _Entry | None, *, read: bool) -> _Entry | None:
    """Return size, times and digest of a file, which may be known; None where there is none to read."""
    try:
        state = require_file(path)
        seen = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
        if known is not None and known[:-1] == seen:
            return known
        if not read and os.access(path, os.R_OK):
            raise ImagesNotRead
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return *seen, digest
    except (OSError, ValueError, UnreadableImage):  # ValueError: a name that no file can have
        return None


def _read_cache(cache: Path | None) -> dict[str, _Entry]:
    try:
        # By json, since a name that is no UTF-8 is no JSON to pydantic.
        return _CACHE.validate_python(json.loads(cache.read_bytes())) if cache else {}
    except (ValueError, OSError):
        return {}  # only a memory: what it does not know is read again
