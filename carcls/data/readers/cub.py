"""CUB-200-2011, and what is laid out like it, such as NABirds: ``images/`` and five lists that number the images."""

from __future__ import annotations

import math

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Box, Manifest
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.text import Records, files_in, require_parts, spelt

_IMAGES, _LABELS, _CLASSES, _SPLIT = "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt"
_BOXES = "bounding_boxes.txt"


def _read(folder: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where the folder holds no list that only CUB has, nor the lists of images and classes with ``images/``."""
    usual = folder.has(_IMAGES) and folder.has(_CLASSES) and folder.below("images")
    if not (usual or any(map(folder.has, (_LABELS, _SPLIT, _BOXES)))):
        return None
    name, archive = ("NABirds", "its archive") if folder.has("hierarchy.txt") else ("CUB-200-2011", "CUB_200_2011.tgz")
    require_parts(folder, name, archive, _IMAGES, _LABELS, _CLASSES, _SPLIT, "images/")
    paths, labels, classes, trains = (Records(folder.path / name) for name in (_IMAGES, _LABELS, _CLASSES, _SPLIT))
    boxes = Records(folder.path / _BOXES) if folder.has(_BOXES) else None
    names = spelt({label: classes[label] for label in dict.fromkeys(labels[image] for image in paths)})
    rows = (
        Annotation(
            f"images/{path}",
            names[labels[image]],
            "train" if trains.numbers(image, 1)[0] else "test",
            _box(boxes, image) if boxes is not None else None,
        )
        for image, path in paths.items()
    )
    return manifest_of(
        folder,
        rows,
        layout=name,
        companions=[
            *(file for file in folder.others if file.endswith((".txt", ".py"))),
            *files_in(folder, "attributes", "parts", "segmentations"),
        ],
        notes=[] if boxes is not None else [f"Images are not cut to their boxes: there is no {_BOXES}."],
    )


def _box(boxes: Records, image: str) -> Box:
    """Return all pixels that a box of x, y, width and height touches; x and y count from 0."""
    x, y, width, height = boxes.numbers(image, 4)
    return (math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height))


READER = Reader("CUB-200-2011", _read)
