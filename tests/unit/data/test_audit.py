"""Counts, sides and same pictures of a small data set, held against how it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import draw_pictures
from PIL import Image

from carcls.data.audit import class_counts, read_sides, rows_by_class, same_pictures, split_names
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.stages import StageStore


def prepared(root: Path) -> tuple[Dataset, StageStore]:
    """Return the pictures of a folder, read."""
    stages = StageStore(root.parent / "stages")
    return prepare_dataset(DataConfig(path=str(root), max_loss=0.5), stages, 32), stages


def test_counts_are_of_the_images_that_can_be_read(tmp_path: Path) -> None:
    """Of each class and split; a torn image is in none of them."""
    root = draw_pictures(tmp_path / "cars", classes=3)
    (root / "train" / "Make Model 1" / "00000.jpg").write_bytes(b"torn")
    data, stages = prepared(root)
    assert class_counts(data)[:, :2].sum(axis=1).tolist() == [10, 9, 10]
    assert class_counts(data)[:, 2].tolist() == [4, 4, 4]
    assert [len(rows) for rows in rows_by_class(data).values()] == [14, 13, 14]
    assert (split_names(data) == "").sum() == 1
    sides = read_sides(data, stages)
    assert sorted(map(tuple, np.unique(sides, axis=0).tolist())) == [(0, 0), (96, 64)]


def test_sides_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """A photograph that is stored on its side has its sides exchanged; heads of files are read once."""
    root = draw_pictures(tmp_path / "cars", classes=2)
    turned = root / "train" / "Make Model 0" / "00001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(turned) as image:
        image.save(turned, exif=exif)
    data, stages = prepared(root)
    row = [image.path for image in data.manifest.images].index("train/Make Model 0/00001.jpg")
    assert read_sides(data, stages)[row].tolist() == [64, 96]
    turned.unlink()
    assert read_sides(data, StageStore(stages.root))[row].tolist() == [64, 96]


def test_same_pictures_are_told_by_what_they_spoil(tmp_path: Path) -> None:
    """First a picture in two splits, then one in two classes, then a copy within a class; the training image first."""
    root = draw_pictures(tmp_path / "cars", classes=3)
    for source, copy in (
        ("train/Make Model 0/00000.jpg", "test/Make Model 1/00600.jpg"),
        ("train/Make Model 1/00001.jpg", "train/Make Model 2/00600.jpg"),
        ("train/Make Model 2/00002.jpg", "train/Make Model 2/00601.jpg"),
    ):
        (root / copy).write_bytes((root / source).read_bytes())
    data, stages = prepared(root)
    paths = [image.path for image in data.manifest.images]
    found = same_pictures(data, stages)
    assert [(paths[one.first], paths[one.second]) for one in found] == [
        ("train/Make Model 0/00000.jpg", "test/Make Model 1/00600.jpg"),
        ("train/Make Model 1/00001.jpg", "train/Make Model 2/00600.jpg"),
        ("train/Make Model 2/00002.jpg", "train/Make Model 2/00601.jpg"),
    ]
    assert [(one.leaks, one.across_classes) for one in found] == [(True, True), (False, True), (False, False)]
    assert {one.kind for one in found} == {"equal"}
