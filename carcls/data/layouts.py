"""What a folder holds: the devkit, ``train/<class>/*`` with ``test/<class>/*``, or ``<class>/*`` without a split.

Folders are listed the way data sets are unpacked: hidden files and archive litter do not count. Another layout is one
more ``Reader``.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
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
        listed = _detect(root)
    except PermissionError as error:
        raise DataError(f"data path must be readable, got {error.filename!r}. Change its permissions.") from error
    if len(listed.classes) < 2:
        raise DataError(
            f"data must have at least 2 classes, got {len(listed.classes)} in {str(listed.root)!r}. "
            "Give the folder that holds the class folders."
        )
    return listed


def _detect(root: Path) -> Manifest:
    """Read ``root``, else the only folder in it that has a layout; what anything looks like is tried last."""
    children = subfolders(root)
    places = ([root], children)
    tries = [(readers, place) for readers in (READERS[:-1], READERS[-1:]) for place in places]
    found = next((found for readers, place in tries if (found := _read(readers, place))), [])
    if all(_are_splits(listed.classes) for listed in found):
        raise DataError(_unknown_layout(root, children))
    if len(found) > 1:
        names = ", ".join(listed.root.name for listed in found)
        raise DataError(
            f"data path must hold one data set, got {len(found)} in {str(root)!r} ({names}). Give one of them."
        )
    return found[0]


def _read(readers: Sequence[Reader], folders: Sequence[Path]) -> list[Manifest]:
    """Return what each folder holds in the first layout that it has, of folders that have one."""
    read = (next(filter(None, (reader.read(folder) for reader in readers)), None) for folder in folders)
    return [listed for listed in read if listed]


def _unknown_layout(root: Path, children: Sequence[Path]) -> str:
    images, _ = list_files(root)
    *most, last = (reader.what for reader in READERS)
    looked_for = f"{', '.join(most)}, or {last}; in the folder itself or in the only such folder inside it"
    if not children and not images:
        return f"data path must hold images, got the empty folder {str(root)!r}. Looked for {looked_for}."
    found = "images without class folders" if images else ", ".join(child.name for child in children[:5])
    return f"data path must be in a known layout, got {str(root)!r} with {found}. Looked for {looked_for}."


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is a class if it holds images: their names, and how many other files it holds, by extension."""

    path: Path
    split: Literal["train", "test"]
    images: list[str]
    others: Counter[str]


def _folders_in(parents: Sequence[Path], split: Literal["train", "test"]) -> list[_Folder]:
    return [_Folder(child, split, *list_files(child)) for parent in parents for child in subfolders(parent)]


def _read_split_folders(root: Path) -> Manifest | None:
    """Read ``train/<class>/*`` and ``test/<class>/*``; a validation folder is merged into train.

    None where ``root`` holds no train folder with class folders.

    Raises:
        DataError: a class has test images and no training images.
    """
    inside = subfolders(root)
    parts = [[part for part in inside if part.name.lower() in names] for names in (_TRAIN, _VALIDATION, _TEST)]
    train, validation = (_folders_in(part, "train") for part in parts[:2])
    test = _folders_in(parts[2], "test")
    if not any(folder.images for folder in train):
        return None
    anew = "validation is" if any(folder.images for folder in test) else "validation and test are"
    merged = [f"{part.name}/ was merged into train; {anew} cut anew." for part in parts[1]]
    return _manifest_of(root, [*train, *validation, *test], merged)


def _read_class_folders(root: Path) -> Manifest | None:
    """Read ``<class>/*``, all as training images until test is cut from them; None where no folder holds images."""
    folders = _folders_in([root], "train")
    notes = [
        f"{place.name}/{_CUB_SPLIT} and what lies beside it is not read: boxes are left out, and test is cut anew."
        for place in (root, root.parent)
        if (place / _CUB_SPLIT).is_file()
    ]
    return _manifest_of(root, folders, notes) if any(folder.images for folder in folders) else None


@dataclass(frozen=True, slots=True)
class Reader:
    """A layout of data sets.

    Attributes:
        what: it looks for, in words.
        read: lists the images of a folder; None where it does not have this layout.
    """

    what: str
    read: Callable[[Path], Manifest | None]


READERS = [
    Reader(f"{TRAIN_ANNOTATIONS} (the devkit)", read_devkit),
    Reader("train/<class>/*.jpg with test/<class>/*.jpg", _read_split_folders),
    Reader("<class>/*.jpg", _read_class_folders),
]
"""The first that has a folder's layout reads it; the last is tried where no other has that of any folder inside."""


def _manifest_of(root: Path, folders: Sequence[_Folder], notes: Sequence[str]) -> Manifest:
    """Put class folders together; a class is spelt as it is where it comes first."""
    spelt: dict[str, str] = {}
    for folder in folders:
        if folder.images and folder.split == "train":
            spelt.setdefault(_key(folder.path.name), _readable(folder.path.name))
    classes = sorted(spelt.values())
    labels = {_key(name): label for label, name in enumerate(classes)}
    unknown = [folder.path for folder in folders if folder.images and _key(folder.path.name) not in labels]
    if unknown:
        more = len({_key(path.name) for path in unknown}) - 1
        raise DataError(
            f"test classes must have training images, got {_readable(unknown[0].name)!r} only under "
            f"{unknown[0].parent}{f' (and {more} more such classes)' if more else ''}. "
            "Add training images, or remove the test folder of that class."
        )
    images = [
        ImageRecord(f"{place}/{file}", label, folder.split, None)
        for folder in folders
        if folder.images
        for place, label in [(folder.path.relative_to(root).as_posix(), labels[_key(folder.path.name)])]
        for file in folder.images
    ]
    return Manifest(root, tuple(classes), tuple(images), notes=(*notes, *_notes(folders, len(images))))


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


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    return sorted(folder / entry.name for entry in _entries(folder) if _is_folder(entry))


def list_files(folder: Path) -> tuple[list[str], Counter[str]]:
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


def _notes(folders: Sequence[_Folder], images: int) -> Iterator[str]:
    """Say how many files beside the ``images`` are left out because of their extensions, and which folders are."""
    others = sum((folder.others for folder in folders), Counter[str]())
    if others:
        left_out = sum(others.values())
        most = sorted(others, key=lambda extension: (-others[extension], extension))[:3]
        kinds = ", ".join(f"{others[extension]} {extension or 'without one'}" for extension in most)
        verb, by, no = ("is", "its", "it is no image") if left_out == 1 else ("are", "their", "they are no images")
        yield (
            f"{left_out} of {left_out + images} files {verb} left out: by {by} extension "
            f"({kinds}{', …' if len(others) > 3 else ''}) {no} of {', '.join(FORMATS)}."
        )
    for parent, inside in groupby(folders, lambda folder: folder.path.parent):
        if empty := [folder.path.name for folder in inside if not folder.images]:
            verbs = ("holds no images and is no class", "hold no images and are no classes")[len(empty) > 1]
            yield f"{len(empty)} of the folders in {parent.name}/ {verbs}, such as {empty[0]!r}."


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself
