"""Class folders: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` without a split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from carcls.data.formats import FORMATS
from carcls.data.listing import holds_images, image_names, other_files, subfolders
from carcls.data.manifest import ImageRecord
from carcls.data.reading import Reading
from carcls.errors import DataError

_TRAIN = {"train", "training"}
_VALIDATION = {"val", "valid", "validation"}
_TEST = {"test", "testing"}


def has_split_folders(root: Path) -> bool:
    """Tell whether ``root`` holds a train folder with class folders."""
    return any(_holds_classes(folder) for folder in _named(root, _TRAIN))


def has_class_folders(root: Path) -> bool:
    """Tell whether ``root`` holds folders that hold images."""
    return _holds_classes(root)


def read_split_folders(root: Path) -> Reading:
    """Read ``train/<class>/*`` and ``test/<class>/*``; a validation folder is merged into train.

    Raises:
        DataError: a class has test images and no training images.
    """
    validation = _named(root, _VALIDATION)
    train = [*_named(root, _TRAIN), *validation]
    test = _named(root, _TEST)
    classes = sorted({folder.name for part in train for folder in _class_folders(part)})
    unknown = sorted({folder.name for part in test for folder in _class_folders(part)} - set(classes))
    if unknown:
        raise DataError(
            f"test classes must have training images, got {unknown[0]!r} only under {test[0]}"
            + (f" (and {len(unknown) - 1} more such classes)" if len(unknown) > 1 else "")
            + ". Add training images, or remove the test folder of that class."
        )
    images = [record for part in train for record in _records(root, part, classes, "train")]
    images += [record for part in test for record in _records(root, part, classes, "test")]
    notes = [f"{folder.name}/ was merged into train; validation is cut anew." for folder in validation]
    notes += _other_notes([*train, *test], len(images))
    notes += [note for part in (*train, *test) for note in _empty_notes(part)]
    return Reading(root, "folders", tuple(classes), tuple(images), tuple(notes))


def read_class_folders(root: Path) -> Reading:
    """Read ``<class>/*``; all images are training images until test is cut from them."""
    classes = sorted(folder.name for folder in _class_folders(root))
    images = tuple(_records(root, root, classes, "train"))
    notes = (*_other_notes([root], len(images)), *_empty_notes(root))
    return Reading(root, "folders", tuple(classes), images, notes)


def _records(root: Path, part: Path, classes: list[str], split: Literal["train", "test"]) -> list[ImageRecord]:
    labels = {name: label for label, name in enumerate(classes)}
    prefix = "" if part == root else f"{part.name}/"
    return [
        ImageRecord(f"{prefix}{folder.name}/{name}", labels[folder.name], split, None)
        for folder in _class_folders(part)
        for name in image_names(folder)
    ]


def _class_folders(part: Path) -> list[Path]:
    return [folder for folder in subfolders(part) if holds_images(folder)]


def _holds_classes(part: Path) -> bool:
    return any(holds_images(folder) for folder in subfolders(part))


def _other_notes(parts: list[Path], images: int) -> list[str]:
    """Say how many files beside the ``images`` are left out because of their extensions, if any are."""
    others = sum((other_files(folder) for part in parts for folder in subfolders(part)), Counter[str]())
    if not others:
        return []
    left_out = sum(others.values())
    most = sorted(others, key=lambda extension: (-others[extension], extension))[:3]
    kinds = ", ".join(f"{others[extension]} {extension or 'without one'}" for extension in most)
    return [
        f"{left_out} of {left_out + images} files are left out: by their extension "
        f"({kinds}{', …' if len(others) > 3 else ''}) they are no images of {', '.join(FORMATS)}."
    ]


def _empty_notes(part: Path) -> list[str]:
    empty = [folder.name for folder in subfolders(part) if not holds_images(folder)]
    if not empty:
        return []
    return [f"{len(empty)} of the folders in {part.name}/ hold no images and are no classes, such as {empty[0]!r}."]


def _named(root: Path, names: set[str]) -> list[Path]:
    return [folder for folder in subfolders(root) if folder.name.lower() in names]
