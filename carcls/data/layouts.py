"""What a folder holds: the devkit, ``train/<class>/*`` with ``test/<class>/*``, or ``<class>/*`` without a split.

Folders are listed the way data sets are unpacked: hidden files and archive litter do not count.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carcls.data.decode import EXTENSIONS, FORMATS
from carcls.data.devkit import TRAIN_ANNOTATIONS, read_devkit
from carcls.data.manifest import ImageRecord, Manifest
from carcls.errors import DataError

_TRAIN = {"train", "training"}
_VALIDATION = {"val", "valid", "validation"}
_TEST = {"test", "testing"}
_SIZES = {"images", "imgs", "thumbnails", "thumbs"}
_CUB_SPLIT = "train_test_split.txt"
_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_LOOKED_FOR = (
    f"{TRAIN_ANNOTATIONS} (the devkit), train/<class>/*.jpg with test/<class>/*.jpg, or <class>/*.jpg; "
    "in the folder itself or in the only such folder inside it"
)


def read_layout(root: Path) -> Manifest:
    """Detect the layout of ``root`` and list its images; none is read, so that there is no digest.

    Args:
        root: the devkit's folder, a folder with train/ and test/, class folders, or one that holds one such.

    Raises:
        DataError: ``root`` is missing, a file, empty, of no known layout, has fewer than 2 classes, or its annotations
            cannot be used.
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
    return read_devkit(root) or _read_split_folders(root)


def _read_inside(root: Path) -> Manifest:
    """Read the only folder in ``root`` that holds a layout, else ``root`` as a folder of class folders."""
    children = _subfolders(root)
    found = [listed for child in children if (listed := _read_here(child))]
    if not found:
        classes = _read_class_folders(root)
        found = [classes] if classes else [listed for child in children if (listed := _read_class_folders(child))]
    if all(_are_splits(listed.classes) for listed in found):
        raise DataError(_unknown_layout(root, children))
    if len(found) > 1:
        names = ", ".join(listed.root.name for listed in found)
        raise DataError(
            f"data path must hold one data set, got {len(found)} in {str(root)!r} ({names}). Give one of them."
        )
    return found[0]


def _unknown_layout(root: Path, children: list[Path]) -> str:
    images, _ = _list_files(root)
    if not children and not images:
        return f"data path must hold images, got the empty folder {str(root)!r}. Looked for {_LOOKED_FOR}."
    found = "images without class folders" if images else ", ".join(child.name for child in children[:5])
    return f"data path must be in a known layout, got {str(root)!r} with {found}. Looked for {_LOOKED_FOR}."


@dataclass(frozen=True)
class _Part:
    """A folder of class folders.

    Attributes:
        folder: where.
        split: of its images.
        found: of each folder in it the names of its images, and how many other files it holds, by their extension.
    """

    folder: Path
    split: Literal["train", "test"]
    found: Mapping[str, tuple[list[str], Counter[str]]]

    @classmethod
    def listed(cls, folder: Path, split: Literal["train", "test"]) -> _Part:
        """List it; folders and images come sorted."""
        return cls(folder, split, {child.name: _list_files(child) for child in _subfolders(folder)})

    @property
    def classes(self) -> dict[str, list[str]]:
        """The images of the folders that hold any."""
        return {name: images for name, (images, _) in self.found.items() if images}


def _read_split_folders(root: Path) -> Manifest | None:
    """Read ``train/<class>/*`` and ``test/<class>/*``; a validation folder is merged into train.

    None where ``root`` holds no train folder with class folders.

    Raises:
        DataError: a class has test images and no training images.
    """
    train = [_Part.listed(folder, "train") for folder in _named(root, _TRAIN)]
    if not any(part.classes for part in train):
        return None
    validation = [_Part.listed(folder, "train") for folder in _named(root, _VALIDATION)]
    test = [_Part.listed(folder, "test") for folder in _named(root, _TEST)]
    anew = "validation is" if any(part.classes for part in test) else "validation and test are"
    merged = [f"{part.folder.name}/ was merged into train; {anew} cut anew." for part in validation]
    return _manifest_of(root, [*train, *validation, *test], merged)


def _read_class_folders(root: Path) -> Manifest | None:
    """Read ``<class>/*``, all as training images until test is cut from them; None where no folder holds images."""
    part = _Part.listed(root, "train")
    notes = [
        f"{place.name}/{_CUB_SPLIT} and what lies beside it is not read: boxes are left out, and test is cut anew."
        for place in (root, root.parent)
        if (place / _CUB_SPLIT).is_file()
    ]
    return _manifest_of(root, [part], notes) if part.classes else None


def _manifest_of(root: Path, parts: Sequence[_Part], notes: Sequence[str]) -> Manifest:
    """Put parts together; a class is spelt as it is where it comes first."""
    spelt: dict[str, str] = {}
    for name in (name for part in parts if part.split == "train" for name in part.classes):
        spelt.setdefault(_key(name), _readable(name))
    classes = sorted(spelt.values())
    labels = {_key(name): label for label, name in enumerate(classes)}
    images, unknown = list[ImageRecord](), dict[str, Path]()
    for part in parts:
        prefix = "" if part.folder == root else f"{part.folder.name}/"
        for name, files in part.classes.items():
            label = labels.get(_key(name))
            if label is None:
                unknown.setdefault(_key(name), part.folder / _readable(name))
            else:
                images += [ImageRecord(f"{prefix}{name}/{file}", label, part.split, None) for file in files]
    if unknown:
        first, *more = unknown.values()
        raise DataError(
            f"test classes must have training images, got {first.name!r} only under {first.parent}"
            + (f" (and {len(more)} more such classes)" if more else "")
            + ". Add training images, or remove the test folder of that class."
        )
    return Manifest(root, tuple(classes), tuple(images), notes=(*notes, *_notes(parts, len(images))))


def _are_splits(names: Sequence[str]) -> bool:
    """Tell whether folders of images are the splits or the sizes of a data set, such as ``cars_train``: no classes.

    >>> [_are_splits(names) for names in (["cars_test", "cars_train"], ["images", "thumbs"], ["Test Car", "train"])]
    [True, True, False]
    """
    words = _TRAIN | _VALIDATION | _TEST | _SIZES
    return bool(names) and all(re.split(r"[\s_.-]", name.lower())[-1] in words for name in names)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what counts of a folder's content."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith(".") and entry.name not in _LITTER)


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    return sorted(folder / entry.name for entry in _entries(folder) if _is_folder(entry))


def _list_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the names of the image files directly inside, sorted, and how many others there are, by extension."""
    images, others = list[str](), Counter[str]()
    for entry in _entries(folder):
        extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path doubles the listing's time
        if extension in EXTENSIONS:
            images.append(entry.name)
        elif not _is_folder(entry):
            others[extension] += 1
    return sorted(images), others


def _key(name: str) -> str:
    """Return what two spellings of a class have in common: composed letters (NFC) and decomposed ones (NFD)."""
    return unicodedata.normalize("NFC", _readable(name))


def _readable(name: str) -> str:
    """Return the name of a folder as text; bytes that are no UTF-8 are Latin-1, as older archives have it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def _notes(parts: Sequence[_Part], images: int) -> Iterator[str]:
    """Say how many files beside the ``images`` are left out because of their extensions, and which folders are."""
    others = sum((counted for part in parts for _, counted in part.found.values()), Counter[str]())
    if others:
        left_out = sum(others.values())
        most = sorted(others, key=lambda extension: (-others[extension], extension))[:3]
        kinds = ", ".join(f"{others[extension]} {extension or 'without one'}" for extension in most)
        verb, by, no = ("is", "its", "it is no image") if left_out == 1 else ("are", "their", "they are no images")
        yield (
            f"{left_out} of {left_out + images} files {verb} left out: by {by} extension "
            f"({kinds}{', …' if len(others) > 3 else ''}) {no} of {', '.join(FORMATS)}."
        )
    for part in parts:
        if empty := [name for name, (files, _) in part.found.items() if not files]:
            verbs = ("holds no images and is no class", "hold no images and are no classes")[len(empty) > 1]
            yield f"{len(empty)} of the folders in {part.folder.name}/ {verbs}, such as {empty[0]!r}."


def _named(root: Path, names: set[str]) -> list[Path]:
    return [folder for folder in _subfolders(root) if folder.name.lower() in names]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself
