"""Reading Stanford Cars, or anything in one of its two layouts: detects which one a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from carcls.data.contents import content_digests, known_digests
from carcls.data.devkit import TRAIN_ANNOTATIONS, has_devkit, read_devkit
from carcls.data.folders import has_class_folders, has_split_folders, read_class_folders, read_split_folders
from carcls.data.listing import holds_images, subfolders
from carcls.data.manifest import Manifest, manifest_digest
from carcls.data.reading import Reading
from carcls.errors import DataError

_LOOKED_FOR = (
    f"{TRAIN_ANNOTATIONS} (the devkit), train/<class>/*.jpg with test/<class>/*.jpg, or <class>/*.jpg; "
    "in the folder itself or in the only such folder inside it"
)


def read_manifest(root: Path, cache: Path | None = None, reading: Reading | None = None) -> Manifest:
    """Detect the layout of ``root``, list its images and read their contents once for the digest.

    Args:
        root: the devkit's folder, a folder with train/ and test/, class folders, or one that holds one such.
        cache: a JSON file that remembers the contents' digests by size and modification time; None reads every file.
        reading: what ``read_layout`` has found there; None looks.

    Raises:
        DataError: ``root`` is missing, a file, empty, of no known layout, has fewer than 2 classes, or its annotations
            cannot be used.
    """
    reading = reading or read_layout(root)
    return _manifest_of(reading, content_digests(reading.root, [image.path for image in reading.images], cache))


def known_manifest(reading: Reading, cache: Path) -> Manifest | None:
    """Return what ``read_manifest`` would, of a layout that was listed; None where it would have to read an image."""
    contents = known_digests(reading.root, [image.path for image in reading.images], cache)
    return None if contents is None else _manifest_of(reading, contents)


def _manifest_of(reading: Reading, contents: tuple[str, ...]) -> Manifest:
    digest = manifest_digest(reading.classes, reading.images, contents)
    return Manifest(reading.root, reading.layout, reading.classes, reading.images, digest, contents, reading.notes)


def read_layout(root: Path) -> Reading:
    """As ``read_manifest``, but reads no image.

    Raises:
        DataError: as ``read_manifest``.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 - tidies .. without following links
    if not root.exists():
        raise DataError(
            f"data path must exist, got {str(root)!r}. Check the spelling, or leave out --data for the demo."
        )
    if not root.is_dir():
        raise DataError(f"data path must be a folder, got the file {str(root)!r}. Unpack it, or give its folder.")
    try:
        reading = _read_here(root) or _read_inside(root)
    except PermissionError as error:
        raise DataError(f"data path must be readable, got {error.filename!r}. Change its permissions.") from error
    if len(reading.classes) < 2:
        raise DataError(
            f"data must have at least 2 classes, got {len(reading.classes)} in {str(reading.root)!r}. "
            "Give the folder that holds the class folders."
        )
    return reading


def _read_here(root: Path) -> Reading | None:
    if has_devkit(root):
        return read_devkit(root)
    if has_split_folders(root):
        return read_split_folders(root)
    return None


def _read_inside(root: Path) -> Reading:
    """Read the only folder in ``root`` that holds a layout, else ``root`` as a folder of class folders."""
    children = subfolders(root)
    telling = [child for child in children if has_devkit(child) or has_split_folders(child)]
    if not telling and not has_class_folders(root):
        telling = [child for child in children if has_class_folders(child)]
    if len(telling) > 1:
        names = ", ".join(child.name for child in telling)
        raise DataError(
            f"data path must hold one data set, got {len(telling)} in {str(root)!r} ({names}). Give one of them."
        )
    if telling:
        reading = _read_here(telling[0]) or read_class_folders(telling[0])
    elif has_class_folders(root):
        reading = read_class_folders(root)
    else:
        raise DataError(_unknown_layout(root, children))
    return reading


def _unknown_layout(root: Path, children: list[Path]) -> str:
    if not children and not holds_images(root):
        return f"data path must hold images, got the empty folder {str(root)!r}. Looked for {_LOOKED_FOR}."
    found = "images without class folders" if holds_images(root) else f"{', '.join(c.name for c in children[:5])}"
    return f"data path must be in a known layout, got {str(root)!r} with {found}. Looked for {_LOOKED_FOR}."
