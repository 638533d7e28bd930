"""From a folder to a data set: decoded once, quarantined, split, saved and loaded."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_pictures, events_of
from photographs import photograph
from PIL import Image, ImageOps

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, find_dataset, prepare_dataset, summarize
from carcls.data.devkit import write_devkit
from carcls.data.layouts import read_layout
from carcls.data.manifest import ImageRecord
from carcls.data.splits import Splits
from carcls.errors import DataError
from carcls.stages import StageStore

SIZE = 16
CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 60 training and 12 test images, not to be changed."""
    root = draw_pictures(tmp_path_factory.mktemp("cars"), classes=3, train=20, test=4)
    for split, label in itertools.product(("train", "test"), range(3)):
        (root / split / f"Make Model {label}").rename(root / split / CLASSES[label])
    return root


@pytest.fixture
def own_cars(cars: Path, tmp_path: Path) -> Path:
    """Return a copy that may be changed."""
    return Path(shutil.copytree(cars, tmp_path / "cars"))


def prepare(root: Path, store: Path, **settings: object) -> Dataset:
    """Prepare a folder with a store."""
    return prepare_dataset(DataConfig(path=str(root), **settings), StageStore(store), SIZE)  # type: ignore[arg-type]


def test_counts_classes_and_labels_agree_with_the_folder(cars: Path, tmp_path: Path) -> None:
    """15% of each class validate, test is as found, and labels follow the sorted class names."""
    data = prepare(cars, tmp_path)
    assert data.counts == {"train": 51, "validation": 9, "test": 12}
    assert data.classes == CLASSES
    assert data.name == cars.name
    for row in data.splits.test:
        assert data.manifest.images[row].path.split("/")[1] == CLASSES[data.labels[row]]


def test_refit_trains_on_all_but_the_test_images(cars: Path, tmp_path: Path) -> None:
    """Training and validation images train, none validate, test is what it was, and the digest is another."""
    data = prepare(cars, tmp_path)
    refitted = data.refitted()
    assert refitted.splits.train.tolist() == sorted([*data.splits.train.tolist(), *data.splits.validation.tolist()])
    assert refitted.counts == {"train": 60, "validation": 0, "test": 12}
    assert not set(refitted.splits.train.tolist()) & set(data.splits.test.tolist())
    assert refitted.digest != data.digest
    assert refitted.test_digest == data.test_digest


def test_second_preparation_decodes_nothing(cars: Path, own_cars: Path, tmp_path: Path) -> None:
    """Another sweep on the same store finds the pack and the index made, of a moved copy too."""
    first, second, moved = (prepare(root, tmp_path / "s") for root in (cars, cars, own_cars))
    events = [(event.kind, event.event) for event in events_of(StageStore(tmp_path / "s"))]
    assert events == [("pack", "made"), ("index", "made"), *[("pack", "reused"), ("index", "reused")] * 2]
    assert first.digest == second.digest == moved.digest


def test_splits_do_not_depend_on_the_size(cars: Path, tmp_path: Path) -> None:
    """Two sweeps at different sizes validate on the same images, with one store or two; a trial may want its own."""
    config = DataConfig(path=str(cars))
    small, large, apart = (
        prepare_dataset(config, StageStore(tmp_path / store), size)
        for store, size in (("one", 16), ("one", 300), ("two", 300))
    )
    assert small.digest == large.digest == apart.digest
    pixels = small.pixels(StageStore(tmp_path / "one"), 20)
    assert (pixels.shape, pixels.flags.writeable) == ((72, 20, 20, 3), False)


def test_seed_and_fraction_change_the_digest_and_the_name_does_not(cars: Path, tmp_path: Path) -> None:
    """Trials are shared between sweeps exactly when their training and validation images agree."""
    digests = [
        prepare(cars, tmp_path, **settings).digest
        for settings in ({}, {"name": "mine"}, {"split_seed": 1}, {"validation_fraction": 0.3}, {"margin": 0.1})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_unreadable_images_are_listed_once_and_in_no_split(own_cars: Path, tmp_path: Path) -> None:
    """Broken files among good ones are quarantined with path and reason, and everything else goes on."""
    (own_cars / "train" / "a" / "00000.jpg").write_bytes(b"")
    torn = own_cars / "train" / "b" / "00003.jpg"
    torn.write_bytes(torn.read_bytes()[:-200])
    data = prepare(own_cars, tmp_path / "s")
    assert [path for path, _ in data.quarantined] == ["train/a/00000.jpg", "train/b/00003.jpg"]
    assert "empty" in data.quarantined[0][1]
    assert "truncated" in data.quarantined[1][1]
    assert sum(data.counts.values()) == 70
    used = {data.manifest.images[row].path for rows in (data.splits.train, data.splits.validation) for row in rows}
    assert not used & {path for path, _ in data.quarantined}


@pytest.mark.parametrize(("split", "lost"), [("train", 4), ("test", 1)])
def test_split_that_loses_too_much_stops(own_cars: Path, tmp_path: Path, split: str, lost: int) -> None:
    """More than 5% lost names the split, the numbers, the first paths with reasons, and the remedy, which works."""
    for number in range(lost):
        (own_cars / split / "b" / f"{number:05d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=rf"^{split} split must lose at most 5%.* got {lost} unreadable of") as caught:
        prepare(own_cars, tmp_path / "s")
    assert f"{split}/b/00000.jpg: the file is empty" in str(caught.value)
    assert str(caught.value).count("the file is empty") == min(lost, 3)
    assert "raise data.max_loss" in str(caught.value)
    assert sum(prepare(own_cars, tmp_path / "s", max_loss=0.1).counts.values()) == 72 - lost
    assert [e.event for e in events_of(StageStore(tmp_path / "s")) if e.kind == "pack"] == ["made", "reused"]


def test_split_that_loses_everything_stops_at_any_limit(own_cars: Path, tmp_path: Path) -> None:
    """No limit makes an empty split useful."""
    for path in (own_cars / "test").glob("*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="12 unreadable of 12"):
        prepare(own_cars, tmp_path / "s", max_loss=1.0)


def recompressed(source: Path, target: Path) -> None:
    """Write the same picture smaller and with other compression."""
    Image.open(source).resize((80, 54)).save(target, quality=70)


@pytest.mark.parametrize("copy", [shutil.copyfile, recompressed])
def test_test_image_seen_in_training_is_reported(
    own_cars: Path, tmp_path: Path, copy: Callable[[Path, Path], None]
) -> None:
    """An equal or recompressed training image in test is named with its twin, and stays in test."""
    copy(own_cars / "train" / "a" / "00007.jpg", own_cars / "test" / "c" / "00001.jpg")
    data = prepare(own_cars, tmp_path / "s")
    assert data.duplicates == (("test/c/00001.jpg", "train/a/00007.jpg"),)
    assert data.counts["test"] == 12


@pytest.mark.parametrize("copy", [shutil.copyfile, recompressed])
def test_the_same_picture_in_several_classes_is_said(
    own_cars: Path, tmp_path: Path, copy: Callable[[Path, Path], None]
) -> None:
    """Copies under another class's name are counted, with two paths of each; copies within a class are not."""
    for source, target in (
        ("train/a/00007", "train/b/90"),
        ("train/a/00007", "train/c/90"),
        ("train/a/00003", "test/c/90"),
    ):
        copy(own_cars / f"{source}.jpg", own_cars / f"{target}.jpg")
    copy(own_cars / "train/b/00005.jpg", own_cars / "train/b/95.jpg")
    notes = prepare(own_cars, tmp_path / "s").notes
    expected = (
        "2 pictures are in more than one class: train/a/00003.jpg = test/c/90.jpg, train/a/00007.jpg = train/b/90.jpg."
    )
    assert notes == (expected,)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is a pipe, not a file"),
        (_socket, "it is a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (_loop, "too many levels of symbolic links"),
        (lambda path: path.symlink_to("gone.jpg"), "the file is missing"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
    ],
)
@pytest.mark.parametrize("layout", ["split", "classes", "devkit"])
def test_what_is_no_file_is_left_out_and_holds_nobody_up(
    cars: Path, tmp_path: Path, make: Callable[[Path], None], reason: str, layout: str
) -> None:
    """Pipes, sockets, devices, loops, dead links and folders are unreadable images, whichever layout names them."""
    root = tmp_path / "cars"
    if "folder" in reason and layout != "devkit":
        pytest.skip("a folder in a class folder is one of its folders")
    if layout == "devkit":
        _write_devkit(cars, root)
        name = "cars_train/0.jpg"
    else:
        shutil.copytree(cars / "train" if layout == "classes" else cars, root)
        name = "a/00000.jpg" if layout == "classes" else "train/a/00000.jpg"
    (root / name).unlink()
    make(root / name)
    assert prepare(root, tmp_path / "s").quarantined == ((name, reason),)


def _write_devkit(cars: Path, root: Path) -> None:
    """Write the training images of class folders as a devkit without boxes of their own."""
    (root / "cars_train").mkdir(parents=True)
    images = []
    for number, path in enumerate(sorted((cars / "train").glob("*/*.jpg"))):
        shutil.copyfile(path, root / "cars_train" / f"{number}.jpg")
        label = CLASSES.index(path.parent.name)
        images.append(ImageRecord(f"cars_train/{number}.jpg", label, "train", (0, 0, 96, 64)))
    write_devkit(root, CLASSES, images)


def test_folders_that_loop_are_no_classes(own_cars: Path, tmp_path: Path) -> None:
    """Links to themselves and to folders above change nothing but the note about folders without images."""
    (own_cars / "train" / "self").symlink_to("self")
    (own_cars / "train" / "up").symlink_to("..")
    (own_cars / "train" / "a" / "again").symlink_to(".")
    data = prepare(own_cars, tmp_path / "s")
    assert (data.classes, len(data.manifest.images)) == (CLASSES, 72)
    assert prepare(own_cars / "train", tmp_path / "s").classes == CLASSES


def test_near_duplicates_in_train_do_not_cross_into_validation(own_cars: Path, tmp_path: Path) -> None:
    """Every image has a recompressed twin; no twin is separated, whatever the seed."""
    for path in sorted((own_cars / "train").glob("*/*.jpg")):
        recompressed(path, path.with_name(f"twin-{path.name}"))
    for seed in range(4):
        data = prepare(own_cars, tmp_path / "s", split_seed=seed)
        names = {
            split: {data.manifest.images[row].path.replace("twin-", "") for row in getattr(data.splits, split)}
            for split in ("train", "validation")
        }
        assert data.counts["validation"] == 18
        assert not names["train"] & names["validation"]


def test_altered_copies_do_not_cross_into_validation(tmp_path: Path) -> None:
    """A mirrored, cropped or turned copy beside each of 20 photographs of 6 classes: none has a sibling in train."""
    for number in range(120):
        image, folder = photograph(number, (96, 72)), tmp_path / "cars" / f"class {number % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.jpg")
        width, height = image.size
        copy = (
            ImageOps.mirror(image),
            image.crop((round(0.05 * width), 0, width, round(0.95 * height))),
            image.rotate(5, Image.Resampling.BICUBIC),
        )[number // 6 % 3]
        copy.save(folder / f"{number}-copy.jpg", quality=75)
    data = prepare(tmp_path / "cars", tmp_path / "s")
    paths = [image.path.removesuffix(".jpg").removesuffix("-copy") for image in data.manifest.images]
    train, validation, test = (
        {paths[row] for row in rows} for rows in (data.splits.train, data.splits.validation, data.splits.test)
    )
    assert len(data.splits.validation) == 24
    assert not train & validation
    assert not (train | validation) & test
    assert data.duplicates == ()


def leaking(root: Path) -> None:
    """Put copies of training images into test, mirrored, and into an own validation split, cropped."""
    for number in range(24):
        target = root / "train" / f"class {number % 2}" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(target)
    for split, first in (("val", 50), ("test", 60)):
        for number in range(first, first + 4):
            target = root / split / f"class {number % 2}" / f"{number}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            photograph(number).save(target)
    ImageOps.mirror(photograph(3)).save(root / "test" / "class 1" / "copy.jpg", quality=75)
    photograph(4).crop((5, 5, 145, 98)).save(root / "val" / "class 0" / "copy.jpg", quality=75)


def test_leaks_across_own_splits_are_reported(tmp_path: Path) -> None:
    """A mirrored copy in test and a cropped one in an own validation split are named, and everything stays."""
    leaking(tmp_path / "cars")
    data = prepare(tmp_path / "cars", tmp_path / "s")
    assert data.duplicates == (("test/class 1/copy.jpg", "train/class 1/3.jpg"),)
    assert "1 validation image is a copy of training images: val/class 0/copy.jpg = train/class 0/4.jpg." in data.notes
    assert data.counts == {"train": 24, "validation": 5, "test": 5}


def test_leaks_can_be_dropped_from_training(tmp_path: Path) -> None:
    """data.leaks=drop-from-train leaves out the training copies, says how many, and decodes nothing again."""
    leaking(tmp_path / "cars")
    prepare(tmp_path / "cars", tmp_path / "s")
    config = DataConfig(path=str(tmp_path / "cars"), leaks="drop-from-train")
    data = find_dataset(config, read_layout(tmp_path / "cars"), StageStore(tmp_path / "s"))
    assert data is not None
    assert data.duplicates == ()
    assert data.counts == {"train": 22, "validation": 5, "test": 5}
    left_out = {image.path for image in data.manifest.images} - {
        data.manifest.images[row].path for rows in vars(data.splits).values() for row in rows.tolist()
    }
    assert left_out == {"train/class 1/3.jpg", "train/class 0/4.jpg"}
    assert any("drop-from-train: 2 from training, 0 from validation." in note for note in data.notes)


def test_test_split_is_cut_where_there_is_none(cars: Path, tmp_path: Path) -> None:
    """One folder of class folders gets a test split the same way, before validation."""
    data = prepare(cars / "train", tmp_path)
    assert data.counts == {"train": 42, "validation": 9, "test": 9}
    assert np.bincount(data.labels[data.splits.test]).tolist() == [3, 3, 3]
    assert data.duplicates == ()


def test_class_of_one_image_is_noted(own_cars: Path, tmp_path: Path) -> None:
    """A class that cannot be validated trains all the same, and a note names it."""
    (own_cars / "train" / "lonely").mkdir()
    (own_cars / "test" / "c" / "00003.jpg").rename(own_cars / "train" / "lonely" / "0.jpg")
    assert any("1 class has" in note and "lonely" in note for note in prepare(own_cars, tmp_path / "s").notes)


def test_summary_agrees_with_the_preparation(cars: Path, tmp_path: Path) -> None:
    """Without near-duplicates and broken files, the plan's counts are the real ones, in both cases of test."""
    for root in (cars, cars / "train"):
        summary = summarize(DataConfig(path=str(root)), read_layout(root))
        assert replace(prepare(root, tmp_path).summary, digest="") == summary


def test_a_data_set_that_was_read_is_found_without_reading_an_image(own_cars: Path, tmp_path: Path) -> None:
    """What reading found is found again by sizes and times alone; a file that was touched is to be read again."""
    (own_cars / "train" / "a" / "00000.jpg").write_bytes(b"")
    shutil.copyfile(own_cars / "train" / "a" / "00007.jpg", own_cars / "test" / "c" / "00001.jpg")
    config, stages = DataConfig(path=str(own_cars)), StageStore(tmp_path / "s")
    assert find_dataset(config, read_layout(own_cars), stages) is None
    data = prepare(own_cars, tmp_path / "s")
    found = find_dataset(config, read_layout(own_cars), stages)
    assert found is not None
    assert (found.digest, found.test_digest, found.counts) == (data.digest, data.test_digest, data.counts)
    assert (found.quarantined, found.duplicates, found.notes) == (data.quarantined, data.duplicates, data.notes)
    assert len(found.quarantined) == len(found.duplicates) == 1
    (own_cars / "train" / "a" / "00000.jpg").touch()
    assert find_dataset(config, read_layout(own_cars), stages) is None


def test_images_that_change_while_they_are_read_are_refused(own_cars: Path, tmp_path: Path) -> None:
    """Nothing is kept of what was decoded: its digest is of other pixels. Read again, it is the data as it is now."""
    first, other = sorted((own_cars / "train" / "a").iterdir())[0], sorted((own_cars / "test" / "b").iterdir())[0]

    def change(done: int, total: int) -> None:
        if done == 0 < total:
            shutil.copyfile(other, first)

    store = StageStore(tmp_path / "store")
    with pytest.raises(DataError, match=rf"changes in 'train/a/{first.name}' in .*Begin again"):
        prepare_dataset(DataConfig(path=str(own_cars)), store, SIZE, progress=change)
    assert not list((tmp_path / "store").rglob("pixels.npy"))
    data = prepare(own_cars, tmp_path / "store")
    assert data.manifest.digest == prepare(own_cars, tmp_path / "new").manifest.digest
    shutil.copyfile(first.with_name(sorted(path.name for path in first.parent.iterdir())[1]), first)
    with pytest.raises(DataError, match="changes in"):  # another size, which a trial wants later
        data.pixels(store, 2 * SIZE)


def test_a_sweep_keeps_the_splits_it_has_begun_with(own_cars: Path, tmp_path: Path) -> None:
    """Where its images are the same, moved or not, however this version would cut them; other labels are other data."""
    data = prepare(own_cars, tmp_path / "s")
    cut = Splits(data.splits.validation, data.splits.train, data.splits.test)  # as no version does
    moved = own_cars.rename(tmp_path / "moved")
    config, stages = DataConfig(path=str(moved), margin=data.margin), StageStore(tmp_path / "s")
    for begun in (replace(data, splits=cut), as_before(replace(data, splits=cut))):
        kept = prepare_dataset(config, stages, SIZE, begun=begun)
        assert (kept.digest, kept.manifest.root) == (begun.digest, moved)
        assert find_dataset(config, read_layout(moved), stages, begun) is not None
    (moved / "train" / "a" / "00000.jpg").rename(moved / "train" / "b" / "more.jpg")
    for begun in (replace(data, splits=cut), as_before(replace(data, splits=cut))):
        assert prepare_dataset(config, stages, SIZE, begun=begun).digest not in (data.digest, begun.digest)


def as_before(data: Dataset) -> Dataset:
    """Return a data set as a version wrote it that named no layout and had no validation images of their own."""
    return replace(data, manifest=replace(data.manifest, layout="", digest="of another version"))


def test_saved_data_set_loads_the_same(own_cars: Path, tmp_path: Path) -> None:
    """A worker that loads the file sees the same images, splits and findings, without the folder."""
    shutil.copyfile(own_cars / "train" / "a" / "00007.jpg", own_cars / "test" / "c" / "00001.jpg")
    (own_cars / "train" / "a" / "00000.jpg").write_bytes(b"")
    data = prepare(own_cars, tmp_path / "s", margin=0.2)
    data.save(tmp_path / "dataset.json")
    shutil.rmtree(own_cars)
    loaded = Dataset.load(tmp_path / "dataset.json")
    assert loaded.manifest == data.manifest
    assert (loaded.name, loaded.margin, loaded.digest) == (data.name, data.margin, data.digest)
    assert (loaded.quarantined, loaded.duplicates, loaded.notes) == (data.quarantined, data.duplicates, data.notes)
    assert np.array_equal(loaded.splits.test, data.splits.test)
    assert np.array_equal(loaded.labels, data.labels)
    pixels = loaded.pixels(StageStore(tmp_path / "s"), SIZE)
    assert np.array_equal(pixels, data.pixels(StageStore(tmp_path / "s"), SIZE))


@pytest.mark.parametrize("text", [None, "{}", "not json", '{"format": 99}'])
def test_file_that_is_no_data_set_is_refused_in_words(tmp_path: Path, text: str | None) -> None:
    """A missing, torn or newer file is a message, not a traceback."""
    if text is not None:
        (tmp_path / "d.json").write_text(text)
    with pytest.raises(DataError, match="must be one that carsweep wrote"):
        Dataset.load(tmp_path / "d.json")
