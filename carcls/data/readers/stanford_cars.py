"""Stanford Cars as published: images in ``cars_train/`` and ``cars_test/``, and the devkit's annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from carcls.data.config import DataConfig
from carcls.data.devkit import CLASS_NAMES, NUMBERS, TEST_ANNOTATIONS, TRAIN_ANNOTATIONS
from carcls.data.files import Folder
from carcls.data.manifest import ImageRecord, Manifest, Split
from carcls.data.readers import Reader
from carcls.data.readers.matlab import load_matlab
from carcls.errors import DataError

_PLACES = (".", "devkit", "car_devkit", "car_devkit/devkit", "cars_devkit")


def _read(root: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where neither ``root`` nor a devkit folder in it holds the training annotations."""
    train_file = root.first(TRAIN_ANNOTATIONS, _PLACES)
    if train_file is None:
        return None
    names_file, folder = root.first(CLASS_NAMES, _PLACES), _image_folder(root, "cars_train")
    if names_file is None:
        raise DataError(
            f"{CLASS_NAMES} must lie beside {TRAIN_ANNOTATIONS} in {train_file.parent}. Copy it from the devkit."
        )
    if folder is None:
        raise DataError(
            f"{root.path / 'cars_train'} must be a folder with the training images. Unpack cars_train.tgz there."
        )
    classes = tuple(map(str, np.atleast_1d(load_matlab(names_file, "class_names"))))
    images = _records(train_file, folder, "train", classes)
    test_file, test_folder = root.first(TEST_ANNOTATIONS, _PLACES), _image_folder(root, "cars_test")
    notes, said = list[str](), list[str]()
    if test_file is not None and test_folder is not None:
        images += _records(test_file, test_folder, "test", classes)
    elif test_folder is not None:
        notes = [f"cars_test/ is left out: its labels are not known. Put {TEST_ANNOTATIONS} beside {CLASS_NAMES}."]
        unlabelled = root.below(test_folder)
        said = [f"{test_folder}/{name}" for name in (unlabelled.images if unlabelled else ())]
    elif test_file is not None:
        notes = [f"{TEST_ANNOTATIONS} is left out: there is no cars_test/ folder."]
    kit = [f"{place}/{name}" for place in _PLACES for name in _others(root, place)]
    return Manifest(
        root.path,
        classes,
        tuple(images),
        notes=tuple(notes),
        layout="Stanford Cars, the devkit",
        companions=(*(path.removeprefix("./") for path in kit), *said),
    )


def _others(root: Folder, place: str) -> tuple[str, ...]:
    """Return the devkit's own files in a place, all of which belong to it."""
    folder = root.below(place)
    return tuple(name for name in folder.others if name.endswith((".mat", ".m", ".txt"))) if folder else ()


def _records(file: Path, folder: str, split: Split, classes: tuple[str, ...]) -> list[ImageRecord]:
    annotations = np.atleast_1d(load_matlab(file, "annotations"))
    fields = annotations.dtype.names or ()
    missing = [name for name in (*NUMBERS, "fname") if name not in fields]
    if missing:
        raise DataError(
            f"{file} must hold annotations with the field {missing[0]!r}, got {', '.join(fields) or 'nothing'}. "
            "Take the file from the devkit."
        )
    try:
        columns = [[int(value) for value in annotations[name]] for name in NUMBERS]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file} must hold whole numbers as boxes and classes. Take the file from the devkit."
        ) from error
    wrong = next((label for label in columns[4] if not 1 <= label <= len(classes)), None)
    if wrong is not None:
        raise DataError(
            f"class in {file} must lie in 1..{len(classes)}, the classes of {CLASS_NAMES}, got {wrong}. "
            "Take both files from the same devkit."
        )
    return [
        ImageRecord(f"{folder}/{name}", label - 1, split, (x1 - 1, y1 - 1, x2, y2))
        for x1, y1, x2, y2, label, name in zip(*columns, map(str, annotations["fname"]), strict=True)
    ]


def _image_folder(root: Folder, name: str) -> str | None:
    """Return the folder of images relative to ``root``; some archives hold it inside one of the same name."""
    return next((place for place in (f"{name}/{name}", name) if root.below(place)), None)


READER = Reader(f"{TRAIN_ANNOTATIONS} (the devkit)", _read)
