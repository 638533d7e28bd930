"""Layouts of data sets: one module each, with its ``READER``.

A reader looks at a listed folder and at its own files of annotations, never at an image, and executes nothing of what
it reads.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Box, ImageRecord, Manifest, Split

TRAIN = frozenset({"train", "training", "trn", "trainset"})
VALIDATION = frozenset({"val", "valid", "validation", "validate", "dev", "valset"})
TEST = frozenset({"test", "testing", "tst", "testset"})
_SIZES = frozenset({"thumbnails", "thumbs", "original", "originals", "raw", "cropped", "crops", "resized"})
_KINDS = frozenset({"images", "image", "imgs", "img", "pictures", "pics", "photos", "jpegimages", "jpg", "jpeg", "png"})
_MARKS = frozenset({"masks", "trimaps", "segmentations", "segmentationclass", "segmentationobject", "labels"})
_HEAPS = frozenset({"data", "dataset", "set", "folder", "dir", "batch", "part", "shard", "fold", "chunk"})


@dataclass(frozen=True, slots=True)
class Reader:
    """A layout of data sets.

    Attributes:
        what: it looks for, in words.
        read: lists the images of a folder; None where it does not have this layout.
        rank: 0 for a layout that its own files give away, 1 for tables, which lie beside such data too, 2 for folders
            of splits, 3 for class folders, which anything looks like: lower ones are asked first, also of those inside.
        settings: fields of the config that this layout understands and others need not.
        read_file: lists the images of a file, and the folder that they lie in; None for layouts that are folders.
    """

    what: str
    read: Callable[[Folder, DataConfig], Manifest | None]
    rank: int = 0
    settings: tuple[str, ...] = ()
    read_file: Callable[[Path, DataConfig], tuple[Folder, Manifest] | None] | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """An image as annotations have it: ``ImageRecord`` with the name of its class."""

    path: str
    label: str
    split: Split
    box: Box | None = None
    group: str = ""


def manifest_of(
    folder: Folder,
    rows: Iterable[Annotation],
    *,
    layout: str,
    companions: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Manifest:
    """Put images together; classes are in the order of their names, and a class is spelt as where it comes first.

    Args:
        folder: that the paths are relative to.
        rows: of images, in the order of the manifest's.
        layout: in words.
        companions: files that were read or belong to the layout.
        notes: about what was left out.
    """
    rows, spelt = list(rows), dict[str, str]()
    for row in sorted(rows, key=lambda row: row.split == "test"):
        spelt.setdefault(_key(row.label), row.label)
    classes = sorted(spelt.values())
    labels = {_key(name): label for label, name in enumerate(classes)}
    images = (ImageRecord(row.path, labels[_key(row.label)], row.split, row.box, row.group) for row in rows)
    return Manifest(
        folder.path, tuple(classes), tuple(images), notes=tuple(notes), layout=layout, companions=tuple(companions)
    )


def _key(name: str) -> str:
    """Return what two spellings of a class have in common: composed letters (NFC) and decomposed ones (NFD)."""
    return unicodedata.normalize("NFC", name)


def split_named(name: str) -> Split | None:
    """Return the split that a name tells by one of its words; None where none or several do.

    >>> [split_named(name) for name in ("Training", "cars_val", "Test images", "train2017", "train_test", "cars")]
    ['train', 'validation', 'test', 'train', None, None]
    """
    known: dict[Split, frozenset[str]] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    words = frozenset(re.findall("[a-z]+", name.lower()))
    found = [split for split, spellings in known.items() if words & spellings]
    return found[0] if len(found) == 1 else None


def words_beside_split(name: str) -> list[str]:
    """Return the words of a name that tell no split: splits of one data set have the same.

    >>> words_beside_split("cars_train"), words_beside_split("Cars test 2")
    (['cars'], ['cars'])
    """
    return [word for word in re.findall("[a-z]+", name.lower()) if word not in TRAIN | VALIDATION | TEST]


def are_no_classes(names: Sequence[str]) -> bool:
    """Tell whether folders of images are by their names splits, sizes, masks or heaps of a data set, and no classes.

    >>> folders = ["test_vw", "train_vw"], ["images", "masks"], ["part1", "part_2"], ["Car", "train"]
    >>> [are_no_classes(names) for names in folders]
    [True, True, True, False]
    """
    words = TRAIN | VALIDATION | TEST | _SIZES | _KINDS | _MARKS | _HEAPS
    last = [re.findall("[a-z]+", name.lower())[-1:] for name in names]
    return bool(names) and all(split_named(name) or words & {*word} for name, word in zip(names, last, strict=True))
