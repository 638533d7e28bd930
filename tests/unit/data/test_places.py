"""Data sets lie in more folders than their own: wrapped, given by a part, or deeper than looked; all of it is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from published import picture, write_aircraft, write_cub, write_pets

from carcls.data.config import DataConfig
from carcls.data.layouts import read_layout
from carcls.errors import DataError


def write(root: Path, folders: str, images: int = 3) -> Path:
    """Write images into each of the folders."""
    for folder in folders.split():
        for number in range(images):
            picture(root / folder / f"{number}.jpg")
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set/training_set", "test_set/test_set"),
        ("train/images", "test/images"),
        ("train/train/images", "test"),
        ("train", "test1"),
        ("trainset", "testset"),
    ],
)
def test_splits_may_be_wrapped_or_spelt_as_archives_have_them(tmp_path: Path, train: str, test: str) -> None:
    """A folder that a split's folder only wraps is that split, and the layout names it."""
    write(tmp_path, f"{train}/a {train}/b {test}/a {test}/b")
    listed = read_layout(tmp_path)
    assert listed.layout == f"class folders in {train}/, {test}/"
    assert Counter(image.split for image in listed.images) == {"train": 6, "test": 6}
    assert (listed.classes, listed.notes) == (("a", "b"), ())


def test_a_wrapped_split_without_classes_is_left_out_and_told(tmp_path: Path) -> None:
    """Competitions hand their test images out without labels."""
    write(tmp_path, "train/train/a train/train/b test/test")
    assert read_layout(tmp_path).notes == ("test/test/ is left out: its 3 images are in no class folders.",)


@pytest.mark.parametrize(
    "folders", ["train test train_masks", "images labels", "V/JPEGImages V/SegmentationClass V/SegmentationObject"]
)
def test_pictures_of_masks_are_no_class(tmp_path: Path, folders: str) -> None:
    """Images beside their masks or labels are no two classes."""
    with pytest.raises(DataError, match="images beside each other in"):
        read_layout(write(tmp_path, folders))


@pytest.mark.parametrize("name", ["test", "images", "train"])
def test_a_class_that_is_called_as_a_split_is_told(tmp_path: Path, name: str) -> None:
    """Unlabelled images of a competition lie beside the classes; or it is a class of vehicles."""
    listed = read_layout(write(tmp_path, f"boat car {name}"))
    assert listed.classes == ("boat", "car", name)
    assert listed.notes == (f"{name!r} is taken for a class, by its folder. If it is none, move the folder elsewhere.",)


def test_classes_with_a_split_in_each_name_are_none(tmp_path: Path) -> None:
    """train_audi/ and test_audi/ are one class in two splits."""
    with pytest.raises(DataError, match="images beside each other in test_audi, test_bmw, train_audi, train_bmw,"):
        read_layout(write(tmp_path, "train_audi test_audi train_bmw test_bmw"))


def test_a_class_may_be_with_and_without_masks(tmp_path: Path) -> None:
    """Only folders that are called masks hold them."""
    assert read_layout(write(tmp_path, "with_mask without_mask")).classes == ("with_mask", "without_mask")


def test_thumbnails_of_a_server_are_litter(tmp_path: Path) -> None:
    """Synology's servers put @eaDir into every folder."""
    listed = read_layout(write(tmp_path, "a b @eaDir a/@eaDir"))
    assert (listed.classes, len(listed.images)) == (("a", "b"), 6)


def test_a_part_of_a_published_data_set_names_the_whole(tmp_path: Path) -> None:
    """Its images without their lists are refused, or read with a note, as the folders above are looked at."""
    pets, birds, planes = (tmp_path / name for name in ("pets", "birds", "planes"))
    for make, root in ((write_pets, pets), (write_cub, birds), (write_aircraft, planes)):
        root.mkdir()
        make(root)
    with pytest.raises(DataError, match=r"a part of one, .* pets/ above it is Oxford-IIIT Pets, .*--data '.*/pets'\.$"):
        read_layout(pets / "images")
    with pytest.raises(DataError, match=r"data/ above it is FGVC-Aircraft"):
        read_layout(planes / "data" / "images")
    assert any("birds/ above it is CUB-200-2011" in note for note in read_layout(birds / "images").notes)


def test_a_folder_beside_the_images_of_a_data_set_is_no_part_of_it(tmp_path: Path) -> None:
    """Somebody unpacked CUB where their own images lie."""
    write_cub(tmp_path)
    assert read_layout(write(tmp_path / "mine", "a b")).notes == ()


def test_one_split_says_that_another_lies_beside_it(tmp_path: Path) -> None:
    """--data .../train cuts a test split from it, though there is one; tests of code are none."""
    write(tmp_path, "cars_train/a cars_train/b cars_test/a other_test/a")
    told = f"cars_test/ beside it is another split of the same data: --data {str(tmp_path)!r}."
    assert read_layout(tmp_path / "cars_train").notes == (told,)
    (tmp_path / "cars_test" / "test_net.py").touch()
    assert read_layout(tmp_path / "cars_train").notes == ()


def test_flat_images_of_one_split_name_the_folder_above(tmp_path: Path) -> None:
    """Kaggle's Stanford Cars wraps each folder of images in one of its name."""
    write(tmp_path, "cars_train/cars_train cars_test/cars_test")
    with pytest.raises(DataError, match=r"a part of one, .* cars_test/ beside it is another split"):
        read_layout(tmp_path / "cars_train")


def test_a_data_set_that_lies_deeper_than_looked_is_named(tmp_path: Path) -> None:
    """ImageNet is four folders down, beside others."""
    write(tmp_path, "I/Data/C/train/a I/Data/C/train/b I/Annotations/x/y/z")
    with pytest.raises(DataError, match=r"one deeper: class folders in train/\. Give its folder: --data '.*/I/Data/C'"):
        read_layout(tmp_path)


def test_images_several_folders_deep_ask_which_are_the_classes(tmp_path: Path) -> None:
    """Of make, model and year any may be the class, also where the models of one make alone look like classes."""
    write(tmp_path, "cars/Audi/A4/2010 cars/BMW/X3/2011 cars/BMW/X5/2011")
    with pytest.raises(DataError, match=r"got 2 in .*\(BMW, Audi\)\. Give one of them; or say data\.depth=1"):
        read_layout(tmp_path)
    write(tmp_path, "cars/BMW/X3/2012")
    with pytest.raises(DataError, match=r"3 folders deep in '.*/cars'.*data\.depth=1 if Audi, BMW .* data\.depth=3\.$"):
        read_layout(tmp_path)
    listed = read_layout(tmp_path / "cars", DataConfig(depth=3))
    assert listed.classes == ("Audi/A4/2010", "BMW/X3/2011", "BMW/X3/2012", "BMW/X5/2011")


@pytest.mark.parametrize("between", [" ", "\t", "   "])
def test_lists_may_be_parted_by_tabs_and_equal_names_stay_classes_of_their_own(tmp_path: Path, between: str) -> None:
    """NABirds calls several numbers by one name."""
    write_cub(tmp_path)
    for file in tmp_path.glob("*.txt"):
        file.write_text(file.read_text().replace(" ", between))
    (tmp_path / "classes.txt").write_text(f"1{between}Owl\n2{between}Owl\n")
    listed = read_layout(tmp_path)
    assert (listed.classes, listed.images[0].box) == (("Owl (1)", "Owl (2)"), (6, 7, 46, 58))


def test_a_depth_counts_below_the_splits_and_makes_no_class_of_one(tmp_path: Path) -> None:
    """data.depth=2 of train/<class>/ would read train/a and test/a as classes; a class of trains may have kinds."""
    root = write(tmp_path / "d", "train/a train/b test/a")
    for path, place in ((root, "train/"), (root.parent, "train/"), (root / "train", f"'{root / 'train'}'")):
        with pytest.raises(DataError, match=rf"data\.depth must be how many .* in {place}, got 2, where none hold"):
            read_layout(path, DataConfig(depth=2))
    vehicles = read_layout(write(tmp_path / "v", "boat/sail train/steam"), DataConfig(depth=2))
    assert vehicles.classes == ("boat/sail", "train/steam")


def test_classes_that_hold_splits_are_asked_to_be_exchanged(tmp_path: Path) -> None:
    """Audi/train/ beside Audi/test/ would lose the split."""
    with pytest.raises(DataError, match=r"with Audi/test/\. Make it test/Audi/ and so on, or say data\.depth=1 to cut"):
        read_layout(write(tmp_path, "Audi/train Audi/test BMW/train BMW/test"))


def test_a_class_with_validation_images_alone_is_refused_unless_these_train(tmp_path: Path) -> None:
    """Nothing would ever be answered with it; a misspelt folder is the usual cause."""
    write(tmp_path, "train/a train/b val/a val/c val/d")
    with pytest.raises(DataError, match=r"got 'c' only in validation, such as val/c/0\.jpg \(and 1 more such class\)"):
        read_layout(tmp_path)
    assert read_layout(tmp_path, DataConfig(validation="cut")).classes == ("a", "b", "c", "d")


def test_a_class_that_is_spelt_in_two_ways_is_told(tmp_path: Path) -> None:
    """Within a split they are two classes; of two splits, one has no training images."""
    told = "1 pair of classes differs by case or spaces alone: 'BMW_X3' and 'bmw_x3'."
    assert read_layout(write(tmp_path / "one", "Audi BMW_X3 bmw_x3")).notes == (told,)
    for folder in ("train/BMW_X3", "train/Audi", "test/BMW X3"):
        picture(tmp_path / "two" / folder / "0.jpg")
    with pytest.raises(DataError, match=r"got 'BMW X3' only in test, .* Training has 'BMW_X3': rename one\.$"):
        read_layout(tmp_path / "two")
