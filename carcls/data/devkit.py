"""The original devkit layout: images in ``cars_train/`` and ``cars_test/``, annotations in MATLAB files.

MATLAB counts pixels from 1 and both corners of a box belong to it; here they count from 0 and the far corner does not,
so x1 and y1 lose one and x2 and y2 stay. Classes count from 1 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from carcls.data.manifest import ImageRecord, Manifest
from carcls.errors import DataError

TRAIN_ANNOTATIONS = "cars_train_annos.mat"
TEST_ANNOTATIONS = "cars_test_annos_withlabels.mat"
CLASS_NAMES = "cars_meta.mat"
_PLACES = (".", "devkit", "car_devkit", "car_devkit/devkit", "cars_devkit")
_NUMBERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")


def read_devkit(root: Path) -> Manifest | None:
    """Read the devkit's annotations; the test split is left out, with a note, when its labels are not there.

    None where neither ``root`` nor a devkit folder in it holds the training annotations.

    Raises:
        DataError: a file or folder is missing, cannot be read, lacks a field, or names an unknown class.
    """
    train_file = _find(root, TRAIN_ANNOTATIONS)
    if train_file is None:
        return None
    names_file, folder = _find(root, CLASS_NAMES), _image_folder(root, "cars_train")
    if names_file is None:
        raise DataError(
            f"{CLASS_NAMES} must lie beside {TRAIN_ANNOTATIONS} in {train_file.parent}. Copy it from the devkit."
        )
    if folder is None:
        raise DataError(
            f"{root / 'cars_train'} must be a folder with the training images. Unpack cars_train.tgz there."
        )
    classes = tuple(map(str, np.atleast_1d(_load(names_file, "class_names"))))
    images = _records(train_file, folder, "train", classes)
    test_file, test_folder = _find(root, TEST_ANNOTATIONS), _image_folder(root, "cars_test")
    notes: tuple[str, ...] = ()
    if test_file is not None and test_folder is not None:
        images += _records(test_file, test_folder, "test", classes)
    elif test_folder is not None:
        notes = (f"cars_test/ is left out: its labels are not known. Put {TEST_ANNOTATIONS} beside {CLASS_NAMES}.",)
    elif test_file is not None:
        notes = (f"{TEST_ANNOTATIONS} is left out: there is no cars_test/ folder.",)
    return Manifest(root, classes, tuple(images), notes=notes)


def write_devkit(root: Path, classes: Sequence[str], images: Sequence[ImageRecord]) -> None:
    """Write the annotations of images that lie in ``root`` into ``root/devkit``, those of test last.

    Args:
        root: a folder with ``cars_train/`` and ``cars_test/``.
        classes: names; an image's label is a position in them.
        images: with boxes, in ``cars_train/`` and ``cars_test/`` by their split.
    """
    from scipy.io import savemat  # as for loadmat

    devkit = root / "devkit"
    devkit.mkdir()
    savemat(devkit / CLASS_NAMES, {"class_names": np.array([list(classes)], dtype=object)})
    for split, file in (("train", TRAIN_ANNOTATIONS), ("test", TEST_ANNOTATIONS)):
        rows = []
        for image in images:
            if image.split == split:
                assert image.box is not None
                x1, y1, x2, y2 = image.box
                rows.append((x1 + 1, y1 + 1, x2, y2, image.label + 1, Path(image.path).name))
        fields = [(name, object) for name in (*_NUMBERS, "fname")]
        savemat(devkit / file, {"annotations": np.array([rows], dtype=fields)})


def _records(file: Path, folder: str, split: Literal["train", "test"], classes: tuple[str, ...]) -> list[ImageRecord]:
    annotations = np.atleast_1d(_load(file, "annotations"))
    fields = annotations.dtype.names or ()
    missing = [name for name in (*_NUMBERS, "fname") if name not in fields]
    if missing:
        raise DataError(
            f"{file} must hold annotations with the field {missing[0]!r}, got {', '.join(fields) or 'nothing'}. "
            "Take the file from the devkit."
        )
    try:
        columns = [[int(value) for value in annotations[name]] for name in _NUMBERS]
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


def _load(file: Path, name: str) -> Any:
    """Return a variable of a MATLAB file."""
    # Here because scipy.io takes a tenth of a second to import and most data sets are class folders.
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(file, squeeze_me=True, chars_as_strings=True)
    except NotImplementedError:  # scipy's, of HDF5
        raise DataError(f"{file} must not be of MATLAB's version 7.3 (HDF5). Save it with -v7.") from None
    except Exception as error:  # scipy raises whatever a broken file makes it trip over
        raise DataError(f"{file} must be a MATLAB file, but it cannot be read ({error}). Fetch it again.") from error
    if name not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise DataError(f"{file} must hold {name}, got {found}. Take the file from the devkit.")
    return content[name]


def _find(root: Path, name: str) -> Path | None:
    return next((root / place / name for place in _PLACES if (root / place / name).is_file()), None)


def _image_folder(root: Path, name: str) -> str | None:
    """Return the folder of images relative to ``root``; some archives hold it inside one of the same name."""
    return next((place for place in (f"{name}/{name}", name) if (root / place).is_dir()), None)
