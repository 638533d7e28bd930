"""Both layouts are detected and read; what cannot be read says why and what to do."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from carcls.data import devkit
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset, summarize
from carcls.data.files import EXTENSIONS, FORMATS, Folder
from carcls.data.layouts import READERS, Reader, read_layout
from carcls.data.manifest import ImageRecord, Manifest
from carcls.data.splits import listing_notes
from carcls.errors import DataError
from carcls.stages import StageStore

CLASSES = ("Ram C/V Cargo Van 2012", "Audi A5 Coupe 2012")
BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def picture(path: Path, content: int = 100) -> None:
    """Write what counts as an image until somebody decodes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([content]) * 99)


def annotate(file: Path, rows: list[tuple[object, ...]], *, labelled: bool = True) -> None:
    """Write a MATLAB struct array of annotations with the original's field order."""
    names = (*BOX_FIELDS, "class", "fname") if labelled else (*BOX_FIELDS, "fname")
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for position, row in enumerate(rows):
        table[0, position] = row
    savemat(file, {"annotations": table}, do_compression=True)


def write_devkit(root: Path, folder: str = "devkit", *, test_labels: bool = True) -> Path:
    """Write three training and one test image in the devkit's layout."""
    kit = root / folder
    kit.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        picture(root / "cars_train" / f"{number:05d}.jpg", 40 * number)
    picture(root / "cars_test" / "00001.jpg", 222)
    train = [(3, 2, 20, 16, 1, "00001.jpg"), (1, 1, 24, 16, 2, "00002.jpg"), (1, 1, 10, 10, 1, "00003.jpg")]
    annotate(kit / "cars_train_annos.mat", train)
    savemat(kit / "cars_meta.mat", {"class_names": np.array([CLASSES], dtype=object)}, do_compression=True)
    test = (1, 1, 24, 16, 2, "00001.jpg")
    annotate(kit / "cars_test_annos.mat", [(*test[:4], test[5])], labelled=False)
    if test_labels:
        annotate(kit / "cars_test_annos_withlabels.mat", [test])
    return root


def write_folders(root: Path, layout: dict[str, int]) -> Path:
    """Write so many images into each folder."""
    shade = 0
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shade += 7
            picture(root / folder / f"{number}.jpg", shade % 256)
    return root


def digest_of(root: Path, cache: Path | None = None) -> str:
    """Return the digest of a folder's images."""
    return read_layout(root).with_contents(cache).digest


@pytest.mark.parametrize("place", [".", "devkit", "car_devkit/devkit"])
@pytest.mark.parametrize("nested", [False, True])
def test_devkit_is_found_wherever_its_archives_unpack(tmp_path: Path, place: str, nested: bool) -> None:
    """Annotations lie in any of three places, images also in cars_train/cars_train, and labels of test in the root."""
    write_devkit(tmp_path, place)
    folders = ("cars_train", "cars_test")
    if nested:
        folders = tuple(f"{name}/{name}" for name in folders)
        for name in ("cars_train", "cars_test"):
            (tmp_path / name).rename(tmp_path / "moving")
            (tmp_path / name).mkdir()
            (tmp_path / "moving").rename(tmp_path / name / name)
        shutil.move(tmp_path / place / "cars_test_annos_withlabels.mat", tmp_path / "cars_test_annos_withlabels.mat")
    manifest = read_layout(tmp_path)
    assert manifest.classes == CLASSES
    train, test = folders
    assert [image.path for image in manifest.images] == [
        f"{train}/00001.jpg", f"{train}/00002.jpg", f"{train}/00003.jpg", f"{test}/00001.jpg",
    ]  # fmt: skip
    # A 1-based inclusive box 3,2,20,16 is 2,1,20,16 with exclusive far corner, and class 1 is label 0.
    assert manifest.images[0] == ImageRecord(f"{train}/00001.jpg", 0, "train", (2, 1, 20, 16))
    assert manifest.images[1].box == (0, 0, 24, 16)


@pytest.mark.parametrize("name", ["cars_test_annos_withlabels.mat", "cars_test_annos_withlabels (1).mat"])
def test_the_devkit_is_found_as_torchvision_lays_it_out(tmp_path: Path, name: str) -> None:
    """In ``stanford_cars/``, the labels of test beside ``devkit/``, under which torchvision's root lies."""
    root = write_devkit(tmp_path / "stanford_cars")
    shutil.move(root / "devkit" / "cars_test_annos_withlabels.mat", root / name)
    listed = read_layout(tmp_path)
    assert (listed.root, listed.layout, listed.notes) == (root, "Stanford Cars, the devkit", ())
    assert [image.split for image in listed.images] == ["train", "train", "train", "test"]


def test_devkit_without_test_labels_leaves_test_out_and_says_so(tmp_path: Path) -> None:
    """Unlabelled test images are not used, and a note tells which file would change that."""
    manifest = read_layout(write_devkit(tmp_path, test_labels=False))
    assert {image.split for image in manifest.images} == {"train"}
    assert "cars_test_annos_withlabels.mat" in manifest.notes[0]


def test_split_folders_give_sorted_classes_and_the_splits_as_found(tmp_path: Path) -> None:
    """train/<class> and test/<class> are read with classes in alphabetical order."""
    manifest = read_layout(write_folders(tmp_path, {"train/b": 2, "train/a": 3, "test/a": 1, "test/b": 1}))
    assert manifest.classes == ("a", "b")
    assert [image.path for image in manifest.images if image.split == "test"] == ["test/a/0.jpg", "test/b/0.jpg"]
    assert [image.label for image in manifest.images] == [0, 0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("names", ["cars_train cars_test", "train_images test_images", "Training-Set Test-Set"])
def test_split_folders_may_have_other_words_in_their_names(tmp_path: Path, names: str) -> None:
    """One word of the name says which split it is."""
    train, test = names.split()
    listed = read_layout(write_folders(tmp_path, {f"{train}/a": 2, f"{train}/b": 2, f"{test}/a": 1}))
    assert [image.split for image in listed.images] == ["train"] * 4 + ["test"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_kept_or_cut_anew_as_the_config_says(tmp_path: Path, name: str) -> None:
    """Its own validation images validate, unless data.validation=cut; either is said, and that test is cut."""
    manifest = read_layout(write_folders(tmp_path, {"train/a": 8, "train/b": 8, f"{name}/a": 3}))
    assert manifest.images[-1] == ImageRecord(f"{name}/a/2.jpg", 0, "validation", None)
    assert manifest.layout == f"class folders in train/, {name}/"
    own, cut = (DataConfig(validation=how) for how in ("own", "cut"))
    assert summarize(own, manifest).splits == {"train": 14, "validation": 3, "test": 2}
    assert summarize(cut, manifest).splits == {"train": 14, "validation": 2, "test": 3}
    assert listing_notes(manifest, own) == [
        "Its own validation images are kept; data.validation=cut cuts others.",
        "It has no test split: 15% of each class are cut off as test.",
    ]
    assert listing_notes(manifest, cut)[0].startswith("Its own validation images train as well")


@pytest.mark.parametrize(
    "folders",
    [
        "train test",
        "images thumbnails",
        "a_train/a_train a_test/a_test",
        "part1 part2",
        "a/img a/jpg",
        "Photos Raw",
        "train/images valid/images",
        "cars_train/batch1 cars_train/batch2",
    ],
)
def test_splits_of_unsorted_images_are_no_classes(tmp_path: Path, folders: str) -> None:
    """Folders named after splits, sizes or heaps are refused with the layouts that are read, unless they are meant."""
    write_folders(tmp_path, dict.fromkeys(folders.split(), 4))
    with pytest.raises(DataError, match=r"in a known layout, got .* Looked for <class>/.*, \d+ published data sets "):
        read_layout(tmp_path)
    if all("/" not in folder for folder in folders.split()):
        assert read_layout(tmp_path, DataConfig(depth=1)).classes == tuple(sorted(folders.split()))


def test_a_class_is_one_in_either_spelling(tmp_path: Path) -> None:
    """An archive from a Mac has decomposed letters; the class is called as its training images are."""
    composed, decomposed = (unicodedata.normalize(form, "Citroën C4") for form in ("NFC", "NFD"))
    write_folders(tmp_path, {f"train/{decomposed}": 2, "train/b": 2, f"test/{composed}": 1, f"val/{composed}": 1})
    listed = read_layout(tmp_path)
    assert listed.classes == (decomposed, "b")
    assert [image.label for image in listed.images] == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("split", ["", "train/"])
def test_how_deep_a_class_is_can_be_said(tmp_path: Path, split: str) -> None:
    """Of images two folders deep either folder can be the class: both answers are asked for, as of several depths."""
    write_folders(tmp_path, {f"{split}{name}": 2 for name in ("Audi/A4", "Audi/A6", "BMW/X5")})
    with pytest.raises(DataError, match=r"data\.depth=1 if .*data\.depth=2 if"):
        read_layout(tmp_path)
    assert read_layout(tmp_path, DataConfig(depth=2)).classes == ("Audi/A4", "Audi/A6", "BMW/X5")
    makes = read_layout(tmp_path, DataConfig(depth=1))
    assert makes.classes == ("Audi", "BMW")
    assert f"6 of the images lie in folders below their class, such as '{'Audi/A4/0.jpg'}'." in makes.notes
    write_folders(tmp_path, {f"{split}Fiat": 2})
    with pytest.raises(DataError, match=r"of one depth, got 'Audi' with 2 folders of images and 'Fiat' with images"):
        read_layout(tmp_path)


def test_links_are_followed_and_one_that_leads_out_is_told_of(tmp_path: Path) -> None:
    """Images behind it belong to the data; a link within it is nobody's surprise, one back to a folder above ends."""
    root = write_folders(tmp_path / "d", {"a": 2, "b": 2})
    write_folders(tmp_path / "elsewhere", {"c": 3})
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "b" / "9.jpg").symlink_to(root / "a" / "0.jpg")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "further").symlink_to(tmp_path)
    listed = read_layout(root)
    assert (listed.classes, len(listed.images)) == (("a", "b", "c"), 8)
    assert listed.notes == (f"1 link was followed out of the folder, such as 'c' to '{tmp_path}/elsewhere/c'.",)


def test_a_folder_of_runs_inside_is_no_class(tmp_path: Path) -> None:
    """The demo cars that a sweep drew there, or an archive that it unpacked, are not the data that it is started on."""
    write_folders(tmp_path, {"a": 2, "b": 2, "runs/data/demo_cars/train/x": 2, "stages/c": 2})
    (tmp_path / "runs" / "stages").mkdir()
    (tmp_path / "runs" / "stages" / "log.jsonl").touch()
    listed = read_layout(tmp_path)
    assert (listed.classes, len(listed.images)) == (("a", "b", "stages"), 6)
    assert listed.notes == ("2 of the images lie in folders below their class, such as 'stages/c/0.jpg'.",)


@pytest.mark.parametrize("name", [b"train/Citro\xebn", b"train/a/Citro\xebn.jpg"])
def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path, name: bytes) -> None:
    """Nobody could print it, and which letters its bytes mean is not known; how to rename it is said."""
    write_folders(tmp_path, {"train/a": 2, "train/b": 2, "test/b": 1})
    old = tmp_path / ("train/a/0.jpg" if name.endswith(b"jpg") else "train/a")
    old.rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    with pytest.raises(DataError, match=r"must be UTF-8, got 'train/.*Citro\\xebn.* Rename them"):
        read_layout(tmp_path)


def test_only_subfolder_with_a_layout_is_looked_into(tmp_path: Path) -> None:
    """A path one level too high works, whichever layout is below."""
    write_devkit(tmp_path / "one" / "cars")
    write_folders(tmp_path, {"two/cars/train/a": 1, "two/cars/train/b": 1, "three/cars/a": 1, "three/cars/b": 1})
    for outer in ("one", "two", "three"):
        assert read_layout(tmp_path / outer).root == tmp_path / outer / "cars"


def test_a_layout_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of a table is asked before those of folders, and counted where nothing is found."""

    def read_table(folder: Folder, _: DataConfig) -> Manifest | None:
        root, table = folder.path, folder.path / "images.csv"
        rows = [line.split(",") for line in table.read_text().splitlines()] if table.is_file() else []
        return (
            Manifest(root, ("a", "b"), tuple(ImageRecord(p, int(n), "train", None) for p, n in rows)) if rows else None
        )

    published = len({reader.what for reader in READERS if reader.rank == 0})
    monkeypatch.setattr("carcls.data.layouts.READERS", [Reader("images.csv", read_table), *READERS])
    (tmp_path / "notes").touch()
    with pytest.raises(DataError, match=rf"Looked for .*, {published + 1} published data sets"):
        read_layout(tmp_path)
    write_folders(tmp_path, {"one": 1, "two": 1})
    (tmp_path / "images.csv").write_text("one/0.jpg,1\ntwo/0.jpg,0\n")
    assert [image.label for image in read_layout(tmp_path).images] == [1, 0]


def test_images_of_every_extension_count_and_litter_does_not(tmp_path: Path) -> None:
    """Images of every known kind are listed, in any case; hidden files and archive litter are not, without a note."""
    extensions = [*sorted(EXTENSIONS), *(extension.upper() for extension in sorted(EXTENSIONS)), ".Png"]
    for number, extension in enumerate(extensions):
        for name in ("a", "b"):
            picture(tmp_path / name / f"{number}.jpg", 3 * number)
            (tmp_path / name / f"{number}.jpg").rename(tmp_path / name / f"{number}{extension}")
    for name in (".hidden.jpg", "._8.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).write_bytes(b"")
    picture(tmp_path / "__MACOSX" / "0.jpg")
    reading = read_layout(tmp_path)
    assert (reading.classes, len(reading.images), reading.notes) == (("a", "b"), 2 * len(extensions), ())


def test_digest_tells_images_apart_not_places(tmp_path: Path) -> None:
    """A moved copy has the same one; another content, name, class or box of an image has another."""
    root = write_folders(tmp_path / "d", {"a": 2, "b": 2})
    digests = {digest_of(root), digest_of(shutil.copytree(root, tmp_path / "elsewhere" / "there"))}
    assert len(digests) == 1
    picture(root / "a" / "0.jpg", 9)
    digests.add(digest_of(root))
    for old, new in (("a/0.jpg", "a/9.jpg"), ("a", "c")):
        (root / old).rename(root / new)
        digests.add(digest_of(root))
    assert len(digests) == 4


def test_remembered_contents_are_not_read_again_unless_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that nobody touched is answered from memory; one of the same size and time of modification is read.

    A memory that is not ours costs a second reading and nothing else.
    """
    root, cache = write_folders(tmp_path / "d", {"a": 1, "b": 1}), tmp_path / "cache.json"
    cache.write_text('["not", "ours"]')
    before = digest_of(root, cache)
    assert before == digest_of(root)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert digest_of(root, cache) == before
    file = root / "a" / "0.jpg"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(bytes(file.stat().st_size))
    os.utime(file, ns=times)
    assert digest_of(root, cache) != before


def test_exchanged_files_are_noticed(tmp_path: Path) -> None:
    """Also where sizes and times of modification are equal, as those of unpacked bitmaps are."""
    root, cache = write_folders(tmp_path / "d", {"a": 1, "b": 1}), tmp_path / "cache.json"
    files = [root / "a" / "0.jpg", root / "b" / "0.jpg"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 99)
        os.utime(file, ns=(0, 0))
    before = digest_of(root, cache)
    files[0].rename(root / "kept")
    files[1].rename(files[0])
    (root / "kept").rename(files[1])
    assert digest_of(root, cache) == digest_of(root) != before


def folders(layout: dict[str, int]) -> Callable[[Path], Path]:
    """Return what writes class folders."""
    return lambda root: write_folders(root, layout)


def file_in_place(root: Path) -> Path:
    """Give a file in place of a folder."""
    (root / "cars.tgz").write_bytes(b"x")
    return root / "cars.tgz"


def devkit_with(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    """Return what writes a devkit and then changes something in it."""

    def make(root: Path) -> Path:
        change(write_devkit(root))
        return root

    return make


def beside(name: str, counts: dict[str, int]) -> Callable[[Path], Path]:
    """Return what makes folders of images beside an empty file."""

    def make(root: Path) -> Path:
        (folders(counts)(root) / name).touch()
        return root

    return make


TRAIN = "devkit/cars_train_annos.mat"


def flip_a_bit(root: Path) -> None:
    """Damage an uncompressed file so that SciPy's reader dies by a signal."""
    savemat(root / TRAIN, {"labels": np.array([["a", "b"]], dtype=object)})
    content = bytearray((root / TRAIN).read_bytes())
    content[289] = 1
    (root / TRAIN).write_bytes(content)


HDF5 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99)
UNUSABLE: list[tuple[Callable[[Path], Path], str]] = [
    (lambda root: root / "nowhere", "must exist"),
    (file_in_place, "must be a folder"),
    (lambda root: root, "must hold images, got the empty folder '"),
    (folders({".": 1}), "images without class folders.*Looked for"),
    (folders({"stuff/more": 0}), "known layout.*stuff, but no image below it"),
    (folders({"a/front": 2, "a/side/2012": 1, "b/front": 1}), r"got 2 in .*\(a, b\)\. .*data\.depth=1 if"),
    (beside("cars.zip", {}), "If they are in cars.zip: --data '/.*cars.zip'"),
    (beside("labels.csv", {".": 3}), "If labels.csv has their labels: --data '/.*labels.csv' --images FOLDER"),
    (folders({"train/a": 3, "test/a": 1}), "at least 2 classes, got 1"),
    (
        folders({"train/a": 1, "train/b": 1, "test/c": 1, "testing/c": 1}),
        "must have training images, got 'c' only in test, such as test/c/0.jpg. Add",
    ),
    (lambda root: write_devkit(write_devkit(root / "first").parent / "second").parent, "got 2 .*first, second"),
    (devkit_with(lambda root: (root / TRAIN).write_bytes(b"MATLAB 5.0")), "train_annos.mat must be a MATLAB file"),
    (devkit_with(flip_a_bit), "train_annos.mat must be a MATLAB file, but .* do not fit together"),
    (devkit_with(lambda root: (root / TRAIN).write_bytes(HDF5)), r"train_annos.mat must not be .*7\.3.*with -v7\."),
    (
        devkit_with(lambda root: annotate(root / TRAIN, [(1, 1, 9, 9, "00001.jpg")], labelled=False)),
        "field 'class', got bbox_x1",
    ),
    (devkit_with(lambda root: annotate(root / TRAIN, [(1, 1, 9, 9, 3, "00001.jpg")])), r"must lie in 1\.\.2.*got 3"),
    (devkit_with(lambda root: (root / "devkit" / "cars_meta.mat").unlink()), "cars_meta.mat must lie beside"),
    (devkit_with(lambda root: shutil.rmtree(root / "cars_train")), "cars_train.* must be a folder"),
]


@pytest.mark.parametrize(("make", "message"), UNUSABLE)
def test_unusable_folder_says_why_in_one_line(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    """Every way a folder can be unusable has its own message of one line that ends with a remedy."""
    with pytest.raises(DataError, match=message) as caught:
        read_layout(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".") or "inside it" in str(caught.value)


def test_missing_path_in_the_config_is_an_input_error(tmp_path: Path) -> None:
    """The demo is written by the caller; no path at all is refused in words."""
    with pytest.raises(DataError, match=r"data\.path must be set"):
        prepare_dataset(DataConfig(), StageStore(tmp_path), 32)


@pytest.mark.parametrize("layout", [{"train/a": 3, "train/b": 3, "test/a": 2}, {"a": 5, "b": 3}])
def test_files_of_other_extensions_are_counted(tmp_path: Path, layout: dict[str, int]) -> None:
    """How many files are left out for their extension is said, with the extensions; archive litter is not counted."""
    write_folders(tmp_path, layout)
    first, second = [tmp_path / folder for folder in layout][:2]
    for name in ("1.xcf", "2.XCF", "3.txt", "NOTES", "Thumbs.db", ".DS_Store"):
        (first / name).write_bytes(b"x")
    (second / "4.xcf").write_bytes(b"x")
    (second / "folder").mkdir()
    (note,) = read_layout(tmp_path).notes
    extensions = "3 .xcf, 1 without one, 1 .txt"
    assert note.startswith(f"5 of 13 files are left out: by their extension ({extensions}) they are no images of JPEG,")


def test_one_of_a_thing_is_said_as_one(tmp_path: Path) -> None:
    """One file that is left out, and one folder without images."""
    write_folders(tmp_path, {"a": 5, "b": 3, "c": 0})
    (tmp_path / "a" / "1.xcf").write_bytes(b"x")
    files, folders = read_layout(tmp_path).notes
    assert files.startswith("1 of 9 files is left out: by its extension (1 .xcf) it is no image of JPEG")
    assert folders.endswith("holds no images, such as 'c'.")


@pytest.mark.skipif("HEIF" in FORMATS, reason="pillow-heif is installed")
def test_images_of_phones_say_what_would_read_them(tmp_path: Path) -> None:
    """Whether some or all of the images are HEIC."""
    write_folders(tmp_path, {"a": 2, "b": 2})
    for name in ("a", "b"):
        (tmp_path / name / "IMG_1.HEIC").write_bytes(b"x")
    (note,) = read_layout(tmp_path).notes
    assert note.endswith("TIFF, PPM, JPEG2000. HEIC images are read after: pip install 'carsweep[heic]'.")
    for file in tmp_path.rglob("*.jpg"):
        file.unlink()
    with pytest.raises(DataError, match=r"HEIC images are read after: pip install 'carsweep\[heic\]'\.$"):
        read_layout(tmp_path)


def test_what_is_written_as_a_devkit_is_read_as_it_was(tmp_path: Path) -> None:
    """Boxes, labels and splits come back, the box's far corner included."""
    images = [
        ImageRecord("cars_train/a.jpg", 1, "train", (0, 0, 24, 16)),
        ImageRecord("cars_train/b.jpg", 0, "train", (2, 1, 20, 15)),
        ImageRecord("cars_test/a.jpg", 0, "test", (3, 4, 5, 6)),
    ]
    for image in images:
        picture(tmp_path / image.path)
    devkit.write_devkit(tmp_path, CLASSES, images)
    reading = read_layout(tmp_path)
    assert (list(reading.images), reading.classes, reading.notes) == (images, tuple(CLASSES), ())
