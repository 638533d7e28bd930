"""Stanford Cars as published: ``cars_train/`` and ``cars_test/`` with the devkit, or ``car_ims/`` with one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from carcls.data.config import DataConfig
from carcls.data.devkit import CLASS_NAMES, NUMBERS, TEST_ANNOTATIONS, TRAIN_ANNOTATIONS
from carcls.data.files import Folder
from carcls.data.manifest import ImageRecord, Manifest, Split
from carcls.data.readers import Reader
from carcls.data.readers.matlab import load_matlab
from carcls.data.readers.text import place_of
from carcls.errors import DataError

_PLACES = (".", "devkit", "car_devkit", "car_devkit/devkit", "cars_devkit")
_ALL_ANNOTATIONS = "cars_annos.mat"
_SECOND_COPY = TEST_ANNOTATIONS.replace(".mat", " (1).mat")
"""As browsers call it, and a data set on Kaggle."""


def _read(root: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where neither ``root`` nor a devkit folder in it holds annotations, nor ``root`` the images to them."""
    train_file, all_file = root.first(TRAIN_ANNOTATIONS, _PLACES), root.first(_ALL_ANNOTATIONS, _PLACES)
    if all_file is not None and root.below("car_ims") and not root.below("cars_train"):
        return _read_all(root, all_file)
    if train_file is not None:
        return _read_devkit(root, train_file)
    names = [name for name in ("cars_train", "cars_test", "car_ims") if name != root.path.name]
    flat = [f"{name}/" for name in names if _holds_only_images(root, name)]
    has_table = any(name.endswith((".csv", ".tsv", ".jsonl", ".parquet")) for name in root.others)  # may label them
    if (flat and not has_table) or (all_file is not None and not root.holds_images):
        raise DataError(_unlabelled(root, flat, all_file))
    return None


def _unlabelled(root: Folder, flat: list[str], all_file: Path | None) -> str:
    if not flat:
        return f"{_ALL_ANNOTATIONS} must lie beside car_ims/, got none in {str(root.path)!r}. Unpack car_ims.tgz there."
    lacking = _ALL_ANNOTATIONS if flat == ["car_ims/"] else TRAIN_ANNOTATIONS
    other = f" ({_ALL_ANNOTATIONS} is of car_ims/, which has other numbers)" if all_file else ""
    beside = "it" if lacking == _ALL_ANNOTATIONS else f"devkit/ with it and {CLASS_NAMES}"
    return (
        f"data must have labels, got the images of Stanford Cars, but no {lacking}, in {str(root.path)!r}{other}. "
        f"Put {beside} beside {flat[0]}, or the images into class folders."
    )


def _read_devkit(root: Folder, train_file: Path) -> Manifest:
    names_file, folder = root.first(CLASS_NAMES, _PLACES), _image_folder(root, "cars_train")
    if names_file is None:
        raise DataError(
            f"{CLASS_NAMES} must lie beside {TRAIN_ANNOTATIONS} in {train_file.parent}. Copy it from the devkit."
        )
    if folder is None:
        raise DataError(
            f"{root.path / 'cars_train'} must be a folder with the training images. Unpack cars_train.tgz there."
        )
    classes = _names(names_file)
    images = _records(train_file, f"{folder}/", "fname", classes, "train")
    test_file = root.first(TEST_ANNOTATIONS, _PLACES) or root.first(_SECOND_COPY, _PLACES)
    test_folder = _image_folder(root, "cars_test")
    notes, said = list[str](), list[str]()
    if test_file is not None and test_folder is not None:
        images += _records(test_file, f"{test_folder}/", "fname", classes, "test")
    elif test_folder is not None:
        notes = [f"cars_test/ is left out: its labels are not known. Put {TEST_ANNOTATIONS} beside {CLASS_NAMES}."]
        unlabelled = root.below(test_folder)
        said = [f"{test_folder}/{name}" for name in (unlabelled.images if unlabelled else ())]
    elif test_file is not None:
        notes = [f"{TEST_ANNOTATIONS} is left out: there is no cars_test/ folder."]
    return Manifest(
        root.path,
        classes,
        tuple(images),
        notes=tuple(notes),
        layout="Stanford Cars, the devkit",
        companions=(*_kit(root), *said),
    )


def _read_all(root: Folder, file: Path) -> Manifest:
    classes = _names(file)
    return Manifest(
        root.path,
        classes,
        tuple(_records(file, "", "relative_im_path", classes, None)),
        layout=f"Stanford Cars, {_ALL_ANNOTATIONS}",
        companions=tuple(_kit(root)),
    )


def _names(file: Path) -> tuple[str, ...]:
    return tuple(map(str, np.atleast_1d(load_matlab(file, "class_names"))))


def _kit(root: Folder) -> list[str]:
    """Return the devkit's own files, relative to ``root``, all of which belong to it."""
    places = [(place, found) for place in _PLACES if (found := root.below(place))]
    kit = (f"{place}/{name}" for place, found in places for name in found.others)
    return [path.removeprefix("./") for path in kit if path.endswith((".mat", ".m", ".txt"))]


def _records(file: Path, place: str, path: str, classes: tuple[str, ...], split: Split | None) -> list[ImageRecord]:
    """Return the images of a file of annotations.

    Args:
        file: with ``annotations``, a struct of ``NUMBERS``, a field of paths and, where ``split`` is None, ``test``.
        place: before each path.
        path: the field of paths.
        classes: names, which the file numbers from 1.
        split: of all; None has the file say it of each.
    """
    annotations = np.atleast_1d(load_matlab(file, "annotations"))
    fields = annotations.dtype.names or ()
    missing = [name for name in (*NUMBERS, path, *(() if split else ("test",))) if name not in fields]
    if missing:
        raise DataError(
            f"{file} must hold annotations with the field {missing[0]!r}, got {', '.join(fields) or 'nothing'}. "
            "Take the file from the devkit."
        )
    *columns, labels = (_numbers(annotations[name], file) for name in NUMBERS)
    wrong = next((label for label in labels if not 1 <= label <= len(classes)), None)
    if wrong is not None:
        raise DataError(
            f"class in {file} must lie in 1..{len(classes)}, the classes of {CLASS_NAMES}, got {wrong}. "
            "Take both files from the same devkit."
        )
    tests = [False] * len(labels) if split else [bool(test) for test in _numbers(annotations["test"], file)]
    return [
        ImageRecord(f"{place}{name}", label - 1, split or ("test" if test else "train"), (x1 - 1, y1 - 1, x2, y2))
        for x1, y1, x2, y2, label, test, name in zip(*columns, labels, tests, map(str, annotations[path]), strict=True)
    ]


def _numbers(column: Any, file: Path) -> list[int]:
    try:
        return [int(value) for value in column]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file} must hold whole numbers as boxes and classes. Take the file from the devkit."
        ) from error


def _image_folder(root: Folder, name: str) -> str | None:
    """Return the folder of images relative to ``root``; None where there is none."""
    place = place_of(root, name)
    return place if root.below(place) else None


def _holds_only_images(root: Folder, name: str) -> bool:
    """Tell whether a folder's images lie beside each other in it, and in no class folders."""
    folder = root.below(place_of(root, name))
    return folder is not None and bool(folder.images)


READER = Reader("Stanford Cars", _read)
