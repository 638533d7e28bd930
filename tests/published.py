"""Tiny data sets in the form in which known ones are published: files are named and written as their READMEs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
NAMES = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def picture(path: Path, content: int = 100) -> None:
    """Write what counts as an image until somebody decodes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([content]) * 99)


def write_texts(root: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Write files of lines."""
    for name, lines in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{line}\n" for line in lines))


def annotate(file: Path, fields: Sequence[str], rows: Sequence[tuple[object, ...]], **others: object) -> None:
    """Write a MATLAB struct array of annotations."""
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for position, row in enumerate(rows):
        table[0, position] = row
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"annotations": table, **others}, do_compression=True)


def cells(names: Sequence[str]) -> object:
    """Return a MATLAB row of texts."""
    return np.array([list(names)], dtype=object)


def write_cub(root: Path, paint: Callable[[Path, int], object] = picture, *, train: int = 2, test: int = 1) -> Path:
    """Write CUB-200-2011: two birds; images are numbered through all classes."""
    birds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    images = [
        (number, f"{bird}/{bird[4:]}_{place:04d}_{796100 + number}.jpg", label, int(place < train))
        for label, bird in enumerate(birds, start=1)
        for place in range(train + test)
        for number in [(label - 1) * (train + test) + place + 1]
    ]
    for number, path, label, _ in images:
        paint(root / "images" / path, 100 * label + number)
    write_texts(
        root,
        {
            "README": ["The Caltech-UCSD Birds-200-2011 Dataset"],
            "classes.txt": [f"{label} {bird}" for label, bird in enumerate(birds, start=1)],
            "images.txt": [f"{number} {path}" for number, path, *_ in images],
            "image_class_labels.txt": [f"{number} {label}" for number, _, label, _ in images],
            "train_test_split.txt": [f"{number} {trains}" for number, *_, trains in images],
            "bounding_boxes.txt": [f"{number} 6.0 7.0 40.0 50.5" for number, *_ in images],
            "attributes/certainties.txt": ["1 not visible"],
            "parts/parts.txt": ["1 back"],
        },
    )
    return root


def write_aircraft(root: Path) -> Path:
    """Write FGVC-Aircraft: three variants of two families of two manufacturers, an image a split each."""
    models = {"707-320": ("Boeing 707", "Boeing"), "727-200": ("Boeing 727", "Boeing"), "A318": ("A320", "Airbus")}
    texts: dict[str, list[str]] = {
        "variants.txt": list(models),
        "families.txt": sorted({family for family, _ in models.values()}),
        "manufacturers.txt": ["Airbus", "Boeing"],
        "images_box.txt": [],
    }
    number = 1025794
    for split in ("train", "val", "test"):
        for variant, (family, manufacturer) in models.items():
            number += 1
            picture(root / "data" / "images" / f"{number:07d}.jpg")
            # One of the published boxes has x of 0, though the README counts from 1.
            texts["images_box.txt"].append(f"{number:07d} {0 if split == 'test' else 3} 144 998 431")
            for level, label in (("variant", variant), ("family", family), ("manufacturer", manufacturer)):
                for name in (split, *(["trainval"] if split != "test" else [])):
                    texts.setdefault(f"images_{level}_{name}.txt", []).append(f"{number:07d} {label}")
            texts.setdefault(f"images_{split}.txt", []).append(f"{number:07d}")
    write_texts(root / "data", texts)
    write_texts(
        root, {"README.md": ["# FGVC-Aircraft Benchmark"], "README.html": [], "evaluation.m": [], "vl_pr.m": []}
    )
    return root


def write_food(root: Path) -> Path:
    """Write Food-101: two dishes."""
    images = {"train": ["apple_pie/1005649", "apple_pie/1014775", "beef_tartare/1"], "test": ["apple_pie/1011328"]}
    for names in images.values():
        for name in names:
            picture(root / "images" / f"{name}.jpg")
    meta = {"classes": ["apple_pie", "beef_tartare"], "labels": ["Apple pie", "Beef tartare"], **images}
    write_texts(root, {f"meta/{name}.txt": lines for name, lines in meta.items()})
    write_texts(
        root, {"meta/train.json": ["{}"], "meta/test.json": ["{}"], "README.txt": [], "license_agreement.txt": []}
    )
    return root


def write_pets(root: Path) -> Path:
    """Write Oxford-IIIT Pets: a cat and a dog, and an image that no list names, of which the real one has 41."""
    lists = {
        "trainval": ["Abyssinian_100 1 1 1", "Abyssinian_101 1 1 1", "american_bulldog_100 2 2 1"],
        "test": ["Abyssinian_201 1 1 1", "american_bulldog_203 2 2 1"],
    }
    for line in (*lists["trainval"], *lists["test"], "Abyssinian_102 1 1 1"):
        picture(root / "images" / f"{line.split()[0]}.jpg")
    (root / "images" / "Abyssinian_102.mat").write_bytes(b"MATLAB 5.0")
    picture(root / "annotations" / "trimaps" / "Abyssinian_100.png")
    titles = ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids", "#SPECIES: 1:Cat 2:Dog"]
    write_texts(
        root / "annotations",
        {
            "README": ["OXFORD-IIIT PET Dataset"],
            "list.txt": [*titles, *lists["trainval"], *lists["test"]],
            **{f"{name}.txt": lines for name, lines in lists.items()},
            "xmls/Abyssinian_100.xml": ["<annotation/>"],
        },
    )
    return root


def write_flowers(root: Path) -> Path:
    """Write Oxford Flowers 102: six images of two classes, of which two train."""
    for number in range(1, 7):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": np.array([[77, 77, 77, 3, 3, 3]], np.uint8)}, do_compression=True)
    numbers = {"trnid": [5, 1], "valid": [2, 4], "tstid": [3, 6]}
    savemat(
        root / "setid.mat", {name: np.array([found], np.uint16) for name, found in numbers.items()}, do_compression=True
    )
    return root


def write_car_ims(root: Path) -> Path:
    """Write Stanford Cars as one folder of images with one file of annotations."""
    rows = [
        ("car_ims/000001.jpg", 112, 7, 853, 717, 1, 0),
        ("car_ims/000002.jpg", 48, 24, 441, 202, 1, 1),
        ("car_ims/000003.jpg", 7, 4, 277, 180, 2, 0),
    ]
    for path, *_ in rows:
        picture(root / str(path))
    fields = ("relative_im_path", *BOX_FIELDS, "class", "test")
    annotate(root / "cars_annos.mat", fields, rows, class_names=cells(NAMES))
    return root


def write_cars_by_class(root: Path) -> Path:
    """Write Stanford Cars as Kaggle has it in class folders: test images have the same names as training images."""
    names = [name.replace("/", "-") for name in NAMES]
    for split in ("train", "test"):
        for number, name in enumerate(names, start=1):
            picture(root / "car_data" / "car_data" / split / name / f"{number:05d}.jpg")
    write_texts(
        root,
        {
            "anno_train.csv": ["00001.jpg,39,116,569,375,1", "00002.jpg,36,116,868,587,2"],
            "anno_test.csv": ["00001.jpg,30,52,246,147,1", "00002.jpg,100,19,576,203,2"],
            "names.csv": list(NAMES),
        },
    )
    return root
