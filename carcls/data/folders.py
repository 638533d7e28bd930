"""Class folders: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` without a split.

They are listed the way data sets are unpacked: hidden files and archive litter do not count.
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

from carcls.data.formats import EXTENSIONS, FORMATS
from carcls.data.manifest import ImageRecord, Manifest
from carcls.errors import DataError

_TRAIN = {"train", "training"}
_VALIDATION = {"val", "valid", "validation"}
_TEST = {"test", "testing"}
_SIZES = {"images", "imgs", "thumbnails", "thumbs"}
_CUB_SPLIT = "train_test_split.txt"
_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def read_split_folders(root: Path) -> Manifest | None:
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
    return Manifest(root, "folders", tuple(classes), tuple(images), notes=notes)


def read_class_folders(root: Path) -> Manifest | None:
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
    return Manifest(root, "folders", tuple(classes), images, notes=tuple(notes)) if images else None


def are_splits(names: Sequence[str]) -> bool:
    """Tell whether folders of images are the splits or the sizes of a data set, such as ``cars_train``: no classes.

    >>> are_splits(["cars_test", "cars_train"]), are_splits(["images", "thumbnails"]), are_splits(["Test Car", "train"])
    (True, True, False)
    """
    words = _TRAIN | _VALIDATION | _TEST | _SIZES
    return bool(names) and all(re.split(r"[\s_.-]", name.lower())[-1] in words for name in names)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if _counts(entry.name) and _is_folder(entry))


def list_files(folder: Path) -> tuple[list[str], Counter[str]]:
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
        found = {child.name: list_files(child) for child in subfolders(folder)}
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
    return [folder for folder in subfolders(root) if folder.name.lower() in names]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _LITTER
