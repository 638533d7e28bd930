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


def _read_split_folders(root: Path) -> Manifest | None:
    """Read ``train/<class>/*`` and ``test/<class>/*``; a validation folder is merged into train.

    None where ``root`` holds no train folder with class folders.

    Raises:
        DataError: a class has test images and no training images.
    """
    train = [_ClassFolders.listed(folder) for folder in _named(root, _TRAIN)]
    if not any(part.classes for part in train):
        return None
    validation = [_ClassFolders.listed(folder) for folder in _named(root, _VALIDATION)]
    test = [_ClassFolders.listed(folder) for folder in _named(root, _TEST)]
    train += validation
    classes = _class_names(train)
    known = set(map(_key, classes))
    unknown = [name for name in _class_names(test) if _key(name) not in known]
    if unknown:
        raise DataError(
            f"test classes must have training images, got {unknown[0]!r} only under {test[0].folder}"
            + (f" (and {len(unknown) - 1} more such classes)" if len(unknown) > 1 else "")
            + ". Add training images, or remove the test folder of that class."
        )
    images = [record for part in train for record in part.records(root, classes, "train")]
    images += [record for part in test for record in part.records(root, classes, "test")]
    anew = "validation is" if any(part.classes for part in test) else "validation and test are"
    merged = [f"{part.folder.name}/ was merged into train; {anew} cut anew." for part in validation]
    notes = (*merged, *_notes([*train, *test], len(images)))
    return Manifest(root, tuple(classes), tuple(images), notes=notes)


def _read_class_folders(root: Path) -> Manifest | None:
    """Read ``<class>/*``, all as training images until test is cut from them; None where no folder holds images."""
    part = _ClassFolders.listed(root)
    classes = _class_names([part])
    images = tuple(part.records(root, classes, "train"))
    notes = list(_notes([part], len(images)))
    notes += [
        f"{place.name}/{_CUB_SPLIT} and what lies beside it is not read: boxes are left out, and test is cut anew."
        for place in (root, root.parent)
        if (place / _CUB_SPLIT).is_file()
    ]
    return Manifest(root, tuple(classes), images, notes=tuple(notes)) if images else None


def _are_splits(names: Sequence[str]) -> bool:
    """Tell whether folders of images are the splits or the sizes of a data set, such as ``cars_train``: no classes.

    >>> [_are_splits(names) for names in (["cars_test", "cars_train"], ["images", "thumbs"], ["Test Car", "train"])]
    [True, True, False]
    """
    words = _TRAIN | _VALIDATION | _TEST | _SIZES
    return bool(names) and all(re.split(r"[\s_.-]", name.lower())[-1] in words for name in names)


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if _counts(entry.name) and _is_folder(entry))


def _list_files(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the names of the image files directly inside, sorted, and how many others there are, by extension."""
    images, others = list[str](), Counter[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path doubles the listing's time
            if not _counts(entry.name):
                continue
            if extension in EXTENSIONS:
                images.append(entry.name)
            elif not _is_folder(entry):
                others[extension] += 1
    return sorted(images), others


@dataclass(frozen=True)
class _ClassFolders:
    """A folder of class folders.

    Attributes:
        folder: where.
        classes: names of the images of each class.
        others: files in its folders that are no images, by their extension.
        empty: names of its folders that hold no images.
    """

    folder: Path
    classes: Mapping[str, list[str]]
    others: Counter[str]
    empty: Sequence[str]

    @classmethod
    def listed(cls, folder: Path) -> _ClassFolders:
        """List it; classes and images come sorted."""
        found = {child.name: _list_files(child) for child in _subfolders(folder)}
        others = sum((others for _, others in found.values()), Counter[str]())
        classes = {name: images for name, (images, _) in found.items() if images}
        return cls(folder, classes, others, [name for name in found if name not in classes])

    def records(self, root: Path, classes: Sequence[str], split: Literal["train", "test"]) -> Iterator[ImageRecord]:
        """Yield its images; a label is a position in ``classes``."""
        labels = {_key(name): label for label, name in enumerate(classes)}
        prefix = "" if self.folder == root else f"{self.folder.name}/"
        for name, images in self.classes.items():
            for image in images:
                yield ImageRecord(f"{prefix}{name}/{image}", labels[_key(name)], split, None)


def _class_names(parts: Sequence[_ClassFolders]) -> list[str]:
    """Return the classes of all parts, sorted, each as it is spelt where it comes first."""
    spelt: dict[str, str] = {}
    for part in parts:
        for name in part.classes:
            spelt.setdefault(_key(name), _readable(name))
    return sorted(spelt.values())


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


def _notes(parts: Sequence[_ClassFolders], images: int) -> Iterator[str]:
    """Say how many files beside the ``images`` are left out because of their extensions, and which folders are."""
    others = sum((part.others for part in parts), Counter[str]())
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
        if part.empty:
            verbs = ("holds no images and is no class", "hold no images and are no classes")[len(part.empty) > 1]
            yield f"{len(part.empty)} of the folders in {part.folder.name}/ {verbs}, such as {part.empty[0]!r}."


def _named(root: Path, names: set[str]) -> list[Path]:
    return [folder for folder in _subfolders(root) if folder.name.lower() in names]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _LITTER
