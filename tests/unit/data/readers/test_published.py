"""Known data sets in their published form: counts, official splits, boxes, names, and what is said of them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from published import (
    picture,
    write_aircraft,
    write_car_ims,
    write_cars_by_class,
    write_cub,
    write_flowers,
    write_food,
    write_pets,
    write_texts,
)

from carcls.data.config import DataConfig
from carcls.data.dataset import summarize
from carcls.data.layouts import read_layout
from carcls.data.manifest import ImageRecord, Manifest
from carcls.errors import DataError

Write = Callable[[Path], Path]
WRITERS: list[Write] = [
    write_cub, write_aircraft, write_food, write_pets, write_flowers, write_car_ims, write_cars_by_class,
]  # fmt: skip


def splits_of(listed: Manifest) -> dict[str, int]:
    """Count the images of each split."""
    return dict(Counter(image.split for image in listed.images))


def test_cub_has_its_split_its_boxes_and_its_birds(tmp_path: Path) -> None:
    """Boxes are x, y, width and height from 0; birds lose their number and underscores; every file is accounted for."""
    listed = read_layout(write_cub(tmp_path))
    assert (listed.layout, listed.classes) == ("CUB-200-2011", ("Black footed Albatross", "Laysan Albatross"))
    assert (splits_of(listed), listed.notes) == ({"train": 4, "test": 2}, ())
    first = "images/001.Black_footed_Albatross/Black_footed_Albatross_0000_796101.jpg"
    assert listed.images[0] == ImageRecord(first, 0, "train", (6, 7, 46, 58))


def test_birds_in_the_layout_of_cub_may_have_any_ids_and_names(tmp_path: Path) -> None:
    """NABirds' images have UUIDs; listed classes without images are none, and equal names keep their number."""
    write_cub(tmp_path)
    for file in tmp_path.glob("*.txt"):
        lines = (f"{line.partition(' ')[0]}a-b {line.partition(' ')[2]}" for line in file.read_text().splitlines())
        write_texts(tmp_path, {file.name: list(lines)})
    write_texts(tmp_path, {"classes.txt": ["0 Birds", "1 7.Owl", "2 8.Owl", "9 9.Ducks, Geese, and Swans"]})
    write_texts(tmp_path, {"hierarchy.txt": ["1 0"], "nabirds.py": []})
    listed = read_layout(tmp_path)
    assert (listed.classes, listed.layout, listed.notes) == (("7.Owl", "8.Owl"), "NABirds", ())


@pytest.mark.parametrize(
    ("level", "classes"),
    [
        ("variant", ("707-320", "727-200", "A318")),
        ("family", ("A320", "Boeing 707", "Boeing 727")),
        ("manufacturer", ("Airbus", "Boeing")),
    ],
)
def test_aircraft_has_three_levels_and_its_own_validation_images(
    tmp_path: Path, level: str, classes: tuple[str, ...]
) -> None:
    """Boxes count from 1, both corners belong to them, and one that begins at 0 begins there."""
    config = DataConfig.model_validate({"level": level})
    listed = read_layout(write_aircraft(tmp_path), config)
    assert (listed.layout, listed.classes) == (f"FGVC-Aircraft, data.level={level}", classes)
    assert (splits_of(listed), listed.notes) == ({"train": 3, "validation": 3, "test": 3}, ())
    assert summarize(config, listed).splits == {"train": 3, "validation": 3, "test": 3}
    assert listed.images[0].path == "data/images/1025795.jpg"
    assert (listed.images[0].box, listed.images[-1].box) == ((2, 143, 998, 431), (0, 143, 998, 431))
    assert read_layout(tmp_path / "data", config).images[0].path == "images/1025795.jpg"


def nest(root: Path, name: str) -> None:
    """Put a folder into one of its own name, as some archives have it."""
    (root / name).rename(root / "inner")
    (root / name).mkdir()
    (root / "inner").rename(root / name / name)


def test_food_has_its_split_and_names_in_words(tmp_path: Path) -> None:
    """Classes are called as labels.txt has them, else as their folders; Kaggle's meta/ lies in another."""
    listed = read_layout(write_food(tmp_path))
    assert (listed.layout, listed.classes, listed.notes) == ("Food-101", ("Apple pie", "Beef tartare"), ())
    assert splits_of(listed) == {"train": 3, "test": 1}
    assert listed.images[0] == ImageRecord("images/apple_pie/1005649.jpg", 0, "train", None)
    write_texts(tmp_path, {"meta/labels.txt": ["Pie", "Tartare", "Pie"]})
    assert read_layout(tmp_path).classes == ("apple pie", "beef tartare")
    (tmp_path / "meta" / "labels.txt").unlink()
    nest(tmp_path, "meta")
    assert read_layout(tmp_path).classes == ("apple pie", "beef tartare")


def test_pets_have_their_split_and_are_not_cut_to_their_heads(tmp_path: Path) -> None:
    """Breeds are called as their files; an image that no list names is counted, trimaps are known companions."""
    listed = read_layout(write_pets(tmp_path))
    assert (listed.layout, listed.classes) == ("Oxford-IIIT Pets", ("Abyssinian", "american bulldog"))
    assert splits_of(listed) == {"train": 3, "test": 2}
    assert listed.notes == (
        "1 of 13 files is left out: it is not among the images of Oxford-IIIT Pets, such as "
        "'images/Abyssinian_102.jpg'.",
        "Images are not cut: the boxes in annotations/xmls/ are of heads only.",
    )
    nest(tmp_path, "images")
    nest(tmp_path, "annotations")
    again = read_layout(tmp_path)
    assert ([image.path for image in again.images], len(again.notes)) == (
        [f"images/{image.path}" for image in listed.images], 2,
    )  # fmt: skip


def test_flowers_have_numbers_for_names_and_a_small_training_split(tmp_path: Path) -> None:
    """Images are numbered from 1 in both files."""
    listed = read_layout(write_flowers(tmp_path))
    assert (listed.layout, listed.classes) == ("Oxford Flowers 102", ("003", "077"))
    assert [(image.path[-5], image.label, image.split) for image in listed.images] == [
        ("5", 0, "train"), ("1", 1, "train"), ("2", 1, "validation"), ("4", 0, "validation"), ("3", 1, "test"),
        ("6", 0, "test"),
    ]  # fmt: skip
    assert listed.notes == (
        "Its official split trains on 2 images and tests on 2.",
        "Its classes have numbers and no names.",
    )


def test_cars_in_one_folder_have_their_split_in_one_file(tmp_path: Path) -> None:
    """cars_annos.mat has paths, boxes, classes, whether an image is of test, and the names."""
    listed = read_layout(write_car_ims(tmp_path))
    assert (listed.layout, listed.classes, listed.notes) == (
        "Stanford Cars, cars_annos.mat",
        ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"),
        (),
    )
    assert listed.images == (
        ImageRecord("car_ims/000001.jpg", 0, "train", (111, 6, 853, 717)),
        ImageRecord("car_ims/000002.jpg", 0, "test", (47, 23, 441, 202)),
        ImageRecord("car_ims/000003.jpg", 1, "train", (6, 3, 277, 180)),
    )


def test_the_devkit_beside_the_one_folder_is_not_needed(tmp_path: Path) -> None:
    """cars_annos.mat says all of car_ims/, where cars_train/ is not there."""
    write_car_ims(tmp_path)
    (tmp_path / "devkit").mkdir()
    (tmp_path / "devkit" / "cars_train_annos.mat").write_bytes(b"MATLAB 5.0")
    assert splits_of(read_layout(tmp_path)) == {"train": 2, "test": 1}


def test_cars_by_class_have_the_boxes_of_their_split(tmp_path: Path) -> None:
    """00001.jpg of train and of test are two images; the slash that a folder cannot have comes back."""
    listed = read_layout(write_cars_by_class(tmp_path))
    assert listed.layout == "Stanford Cars by class, with its tables of boxes"
    assert listed.classes == ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")
    assert [(image.split, image.box) for image in listed.images] == [
        ("train", (38, 115, 569, 375)), ("train", (35, 115, 868, 587)),
        ("test", (29, 51, 246, 147)), ("test", (99, 18, 576, 203)),
    ]  # fmt: skip
    assert listed.notes == ()
    titles = "image_name,x_min,y_min,x_max,y_max,label"
    write_texts(tmp_path, {"anno_train.csv": [titles, "00001.jpg,39,116,569,375,1"]})
    assert read_layout(tmp_path).notes == ("1 of 2 images in car_data/car_data/train/ have no box in anno_train.csv.",)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("wrapped", ["one", "one/two"])
def test_a_data_set_in_a_folder_of_its_archive_is_found(tmp_path: Path, write: Write, wrapped: str) -> None:
    """One or two levels too high is as good; other files beside it do not matter."""
    listed = read_layout(write(tmp_path / "data" / wrapped))
    above = read_layout(tmp_path / "data")
    assert (above.root, above.images) == (tmp_path / "data" / wrapped, listed.images)


def without(write: Write, *parts: str) -> Write:
    """Return what writes a data set and takes files or folders out of it."""

    def make(root: Path) -> Path:
        write(root)
        for part in parts:
            shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()
        return root

    return make


def replaced(write: Write, name: str, *lines: str) -> Write:
    """Return what writes a data set with other lines in a file."""

    def make(root: Path) -> Path:
        write_texts(write(root), {name: lines})
        return root

    return make


def kaggle_cars(root: Path) -> Path:
    """Write cars_train/cars_train and cars_test/cars_test, with the annotations of other images."""
    write_car_ims(root)
    for name in ("cars_train", "cars_test"):
        shutil.copytree(root / "car_ims", root / name / name)
    shutil.rmtree(root / "car_ims")
    return root


HDF5 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99)


def saved_as_hdf5(write: Write, name: str) -> Write:
    """Return what writes a data set with a file of MATLAB's version 7.3."""

    def make(root: Path) -> Path:
        (write(root) / name).write_bytes(HDF5)
        return root

    return make


def piped(write: Write, name: str) -> Write:
    """Return what writes a data set with a pipe in place of a file, which nobody writes into."""

    def make(root: Path) -> Path:
        (write(root) / name).unlink()
        os.mkfifo(root / name)
        return root

    return make


NEARLY: list[tuple[Write, str]] = [
    (
        without(write_cub, "train_test_split.txt"),
        r"CUB-200-2011 must have train_test_split\.txt, got .* without it\. T",
    ),
    (
        without(write_cub, "images.txt", "image_class_labels.txt"),
        r"images\.txt and image_class_labels\.txt, got .* them",
    ),
    (without(write_cub, "image_class_labels.txt", "train_test_split.txt", "classes.txt"), r"CUB-200-2011 must have im"),
    (
        without(write_cub, "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"),
        r"CUB-200-2011 must h",
    ),
    (without(write_cub, "images"), r"CUB-200-2011 must have images/, got .* CUB_200_2011\.tgz"),
    (replaced(write_cub, "train_test_split.txt", "1 1"), r"train_test_split\.txt must have a line of '2', got none"),
    (replaced(write_cub, "bounding_boxes.txt", "1 3 4"), r"boxes\.txt must say 4 numbers of '1', got '3 4'\."),
    (replaced(write_cub, "images.txt", "1 ../../a.jpg", "4 b.jpg"), r"images must lie in .*, got 'images/\.\./\.\./a"),
    (replaced(write_cub, "bounding_boxes.txt", "1 3 4 nan 5"), r"must say 4 numbers of '1', got '3 4 nan 5'\."),
    (piped(write_cub, "images.txt"), r"images\.txt must be a text file in UTF-8 \(it is a pipe, not a file\)"),
    (piped(write_flowers, "setid.mat"), r"setid\.mat must be a MATLAB file, but .* \(it is a pipe, not a file\)"),
    (replaced(write_cub, "classes.txt", "1"), r"classes\.txt must say something of '1'"),
    (without(write_aircraft, "data/images"), r"FGVC-Aircraft must have data/images/, got .* without it"),
    (without(write_aircraft, "data/images_variant_val.txt"), r"must have data/images_variant_val\.txt, got"),
    (without(write_food, "meta/test.txt"), r"Food-101 must have meta/test\.txt, got"),
    (without(write_food, "images"), r"Food-101 must have images/, got .* food-101\.tar\.gz"),
    (
        without(write_food, *(f"meta/{split}.{kind}" for split in ("train", "test") for kind in ("txt", "json"))),
        r"must ha",
    ),
    (replaced(write_food, "meta/train.txt", "1005649"), r"meta/ must list images as <class>/<image>, got 'images/1005"),
    (without(write_pets, "annotations/test.txt"), r"Oxford-IIIT Pets must have annotations/test\.txt, got"),
    (without(write_pets, "images"), r"Oxford-IIIT Pets must have images/, got"),
    (without(write_pets, "annotations"), r"must be in a known layout, got .* images beside each other in images"),
    (without(write_flowers, "setid.mat"), r"Oxford Flowers 102 must have setid\.mat, got .* its page"),
    (without(write_flowers, "jpg"), r"Oxford Flowers 102 must have jpg/, got"),
    (without(write_flowers, "setid.mat", "imagelabels.mat"), r"known layout, got .* images beside each other in jpg,"),
    (without(write_flowers, "jpg/image_00005.jpg"), r"train images must be there, got 1 of 2 missing .*00005\.jpg'"),
    (saved_as_hdf5(write_flowers, "setid.mat"), r"setid\.mat must not be .*7\.3.*Save it with -v7\."),
    (saved_as_hdf5(write_car_ims, "cars_annos.mat"), r"cars_annos\.mat must not be .*7\.3.*Save it with -v7\."),
    (
        kaggle_cars,
        r"no cars_train_annos\.mat, in .*\(cars_annos\.mat is of car_ims/, .*Put devkit/ with it and cars_meta",
    ),
    (
        without(kaggle_cars, "cars_annos.mat"),
        r"got the images of Stanford Cars, but no cars_train_annos\.mat, in .* Put",
    ),
    (without(kaggle_cars, "cars_annos.mat", "cars_train"), r"no cars_train_annos\.mat, in .* beside cars_test/"),
    (without(write_car_ims, "cars_annos.mat"), r"but no cars_annos\.mat, in .* Put it beside car_ims/"),
    (without(write_car_ims, "car_ims"), r"cars_annos\.mat must lie beside car_ims/, got none"),
    (without(write_cars_by_class, "anno_test.csv"), r"Stanford Cars by class must have anno_test\.csv, got"),
    (without(write_cars_by_class, "car_data"), r"must have car_data/car_data/train/ and car_data/car_data/test/, got"),
    (replaced(write_cars_by_class, "anno_test.csv", "a.jpg,1,2,3,4,1", "b"), r"anno_test\.csv, line 2, must be a file"),
]


@pytest.mark.parametrize(("write", "message"), NEARLY)
def test_a_layout_that_is_nearly_right_says_what_is_missing(tmp_path: Path, write: Write, message: str) -> None:
    """It is never read as something else, and the one line ends with what to do."""
    with pytest.raises(DataError, match=message) as caught:
        read_layout(write(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".") or "inside it" in str(caught.value)


@pytest.mark.parametrize(
    ("write", "boxes"), [(write_cub, "bounding_boxes.txt"), (write_aircraft, "data/images_box.txt")]
)
def test_missing_boxes_are_told_of(tmp_path: Path, write: Write, boxes: str) -> None:
    """Whole images are used, and a note names the file."""
    listed = read_layout(without(write, boxes)(tmp_path))
    assert {image.box for image in listed.images} == {None}
    (note,) = listed.notes
    assert note.startswith("Images are not cut to their boxes")
    assert note.endswith(f"there is no {Path(boxes).name}.")


def test_a_few_missing_images_are_told_of(tmp_path: Path) -> None:
    """As many as may be unreadable, so that the plan says it before an image is read."""
    write_cub(tmp_path)
    (tmp_path / "images" / "002.Laysan_Albatross" / "Laysan_Albatross_0000_796104.jpg").unlink()
    (note,) = read_layout(tmp_path, DataConfig(max_loss=0.3)).notes
    assert note == (
        "1 of 6 images is missing, such as "
        "'images/002.Laysan_Albatross/Laysan_Albatross_0000_796104.jpg': it is left out."
    )


def test_the_images_of_cars_beside_a_table_are_not_cars_without_labels(tmp_path: Path) -> None:
    """The table may hold the labels; where it does not, folders of images are no classes."""
    write_texts(tmp_path, {"cars_train.csv": ["x1,y1", "3,4"]})
    for name in ("cars_train/cars_train", "cars_test/cars_test"):
        picture(tmp_path / name / "00001.jpg")
    with pytest.raises(DataError, match=r"must be in a known layout, got .* Looked for"):
        read_layout(tmp_path)
    paths = ("cars_train/cars_train/00001.jpg,a", "cars_test/cars_test/00001.jpg,b")
    write_texts(tmp_path, {"cars_train.csv": ["path,label", *paths]})
    assert read_layout(tmp_path).classes == ("a", "b")


def test_tables_beside_a_published_data_set_do_not_hide_it(tmp_path: Path) -> None:
    """As Kaggle has FGVC-Aircraft: two folders deep, and lists of its own that name files without their folders."""
    write_aircraft(tmp_path / "fgvc-aircraft-2013b" / "fgvc-aircraft-2013b")
    write_texts(tmp_path, {f"{split}.csv": ["filename,Classes,Labels", "1.jpg,A318,0"] for split in ("train", "test")})
    listed = read_layout(tmp_path)
    assert (listed.layout, len(listed.notes)) == ("FGVC-Aircraft, data.level=variant", 1)
    assert "(2 .csv)" in listed.notes[0]


def test_class_folders_beside_lists_of_usual_names_are_class_folders(tmp_path: Path) -> None:
    """classes.txt and images.txt, or a meta/ that lists splits, are not Food-101 or CUB by themselves."""
    for name in ("a", "b"):
        picture(tmp_path / name / "0.jpg")
    lists = ("classes.txt", "images.txt", "meta/train.txt", "meta/test.txt", "annotations/classes.txt")
    write_texts(tmp_path, {name: ["a"] for name in lists})
    listed = read_layout(tmp_path)
    assert (listed.layout, listed.classes) == ("class folders", ("a", "b"))
    assert listed.notes[0].startswith("5 of 7 files are left out")


def test_the_level_of_aircraft_is_refused_elsewhere(tmp_path: Path) -> None:
    """A setting that a layout does not know is a mistake."""
    with pytest.raises(DataError, match=r"data\.level must be left out for CUB-200-2011, got 'family'"):
        read_layout(write_cub(tmp_path), DataConfig(level="family"))


def test_tables_of_boxes_beside_other_data_are_no_cars(tmp_path: Path) -> None:
    """Class folders with leftovers of Stanford Cars, or another set's anno_train.csv, are class folders."""
    write_car_ims(tmp_path)
    shutil.rmtree(tmp_path / "car_ims")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"x")
    write_texts(tmp_path, {"anno_train.csv": ["0.jpg,person"]})
    assert read_layout(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(("write", "inner"), [(write_cub, "images"), (write_food, "images")])
def test_the_inner_folder_of_a_published_data_set_says_what_it_lacks(tmp_path: Path, write: Write, inner: str) -> None:
    """It is read as class folders, and a note names the folder above, which has the splits."""
    root = write(tmp_path / "data")
    name = read_layout(root).layout
    notes = read_layout(root / inner).notes
    assert f"{root.name}/ above it is {name}, with its own splits: --data {str(root)!r}." in notes
