"""Reading Stanford Cars, or anything in one of its two layouts: detects which one a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from carcls.data.contents import content_digests, known_digests
from carcls.data.devkit import TRAIN_ANNOTATIONS, read_devkit
from carcls.data.folders import are_splits, list_files, read_class_folders, read_split_folders, subfolders
from carcls.data.manifest import Manifest
from carcls.errors import DataError

_LOOKED_FOR = (
    f"{TRAIN_ANNOTATIONS} (the devkit), train/<class>/*.jpg with test/<class>/*.jpg, or <class>/*.jpg; "
    "in the folder itself or in the only such folder inside it"
)


def read_manifest(root: Path, cache: Path | None = None, listed: Manifest | None = None) -> Manifest:
    """Detect the layout of ``root``, list its images and read their contents once for the digest.

    Args:
        root: the devkit's folder, a folder with train/ and test/, class folders, or one that holds one such.
        cache: a JSON file that remembers the contents' digests by size and modification time; None reads every file.
        listed: what ``read_layout`` has found there; None looks.

    Raises:
        DataError: ``root`` is missing, a file, empty, of no known layout, has fewer than 2 classes, or its annotations
            cannot be used.
    """
    listed = listed or read_layout(root)
    return listed.with_contents(content_digests(listed.root, [image.path for image in listed.images], cache))


def known_manifest(listed: Manifest, cache: Path) -> Manifest | None:
    """Return what ``read_manifest`` would, of a layout that was listed; None where it would have to read an image."""
    contents = known_digests(listed.root, [image.path for image in listed.images], cache)
    return None if contents is None else listed.with_contents(contents)


def read_layout(root: Path) -> Manifest:
    """As ``read_manifest``, but reads no image, so that there is no digest.

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
        listed = _read_here(root) or _read_inside(root)
    except PermissionError as error:
        raise DataError(f"data path must be readable, got {error.filename!r}. Change its permissions.") from error
    if len(listed.classes) < 2:
        raise DataError(
            f"data must have at least 2 classes, got {len(listed.classes)} in {str(listed.root)!r}. "
            "Give the folder that holds the class folders."
        )
    return listed


def _read_here(root: Path) -> Manifest | None:
    return read_devkit(root) or read_split_folders(root)


def _read_inside(root: Path) -> Manifest:
    """Read the only folder in ``root`` that holds a layout, else ``root`` as a folder of class folders."""
    children = subfolders(root)
    found = [listed for child in children if (listed := _read_here(child))]
    if not found:
        classes = read_class_folders(root)
        found = [classes] if classes else [listed for child in children if (listed := read_class_folders(child))]
    if all(are_splits(listed.classes) for listed in found):
        raise DataError(_unknown_layout(root, children))
    if len(found) > 1:
        names = ", ".join(listed.root.name for listed in found)
        raise DataError(
            f"data path must hold one data set, got {len(found)} in {str(root)!r} ({names}). Give one of them."
        )
    return found[0]


def _unknown_layout(root: Path, children: list[Path]) -> str:
    images, _ = list_files(root)
    if not children and not images:
        return f"data path must hold images, got the empty folder {str(root)!r}. Looked for {_LOOKED_FOR}."
    found = "images without class folders" if images else ", ".join(child.name for child in children[:5])
    return f"data path must be in a known layout, got {str(root)!r} with {found}. Looked for {_LOOKED_FOR}."
