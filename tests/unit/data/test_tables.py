"""Tables of images are read as they are meant, and every row that cannot be used is told by its line."""

from __future__ import annotations

import csv
import json
import os
import time
import tracemalloc
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from carcls.data.config import DataConfig, how_to_fetch
from carcls.data.dataset import Dataset, prepare_dataset, summarize
from carcls.data.decode import read_square
from carcls.data.layouts import read_layout
from carcls.data.manifest import ImageRecord, Manifest
from carcls.data.unpacking import unpacked
from carcls.errors import DataError
from carcls.stages import StageStore

HEAD = ("path", "label", "split")
ROWS = (
    ("images/b.jpg", "Citroën C4", "train"),
    ("images/a.jpg", "Audi A5, Coupe", "train"),
    ("images/c.jpg", "Audi A5, Coupe", "valid"),
    ("images/d.jpg", "Citroën C4", "Testing"),
)
IMAGES = [
    ImageRecord("images/a.jpg", 0, "train", None),
    ImageRecord("images/b.jpg", 1, "train", None),
    ImageRecord("images/c.jpg", 0, "validation", None),
    ImageRecord("images/d.jpg", 1, "test", None),
]
ALL = DataConfig(max_loss=0.99)


def pictures(root: Path, names: Sequence[str] = ("a", "b", "c", "d"), folder: str = "images") -> Path:
    """Write what counts as images until somebody decodes it."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / f"{name}.jpg").write_bytes(name.encode())
    return root


def write(file: Path, rows: Sequence[Sequence[object]] = ROWS, head: Sequence[str] = HEAD, split: str = ",") -> Path:
    """Write a table in the form that its suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".csv", ".tsv"):
        with file.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened, delimiter="\t" if file.suffix == ".tsv" else split).writerows([head, *rows])
    elif file.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(head, row, strict=True))) for row in rows]
        file.write_text("\n".join(lines), encoding="utf-8")
    else:
        parquet.write_table(pa.table(dict(zip(head, zip(*rows, strict=True), strict=True))), file)
    return file


@pytest.mark.parametrize("name", ["cars.csv", "cars.tsv", "cars.jsonl", "cars.parquet"])
def test_every_form_of_a_table_gives_the_same_images(tmp_path: Path, name: str) -> None:
    """Paths, labels and splits come out alike, in the order of their paths, and the plan has the table's name."""
    file = write(pictures(tmp_path) / name)
    listed = read_layout(file)
    assert listed.classes == ("Audi A5, Coupe", "Citroën C4")
    assert list(listed.images) == IMAGES
    assert (listed.root, listed.layout, listed.notes) == (tmp_path, f"the table {name}", ())
    assert summarize(DataConfig(path=str(file)), listed).name == "cars"


@pytest.mark.parametrize("split", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("above", ["", "sep={}\r\n", '"sep={}"\r\n'])
def test_csv_of_spreadsheets_is_read(tmp_path: Path, split: str, encoding: str, above: str) -> None:
    """Cells may be parted by semicolons or tabs, which a line above may say, lines end in CRLF, and the text begin with
    a byte order mark."""
    file = write(pictures(tmp_path) / "cars.csv", [*ROWS, ("images/a.jpg", "Citroën C4", "train")], split=split)
    text = above.format(split) + file.read_text(encoding="utf-8").replace("\n", "\r\n")
    file.write_text(text, encoding=encoding, newline="")
    found = read_layout(file, ALL)
    assert list(found.images) == IMAGES
    assert f"line {7 if above else 6} of cars.csv" in found.notes[-1]


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (("file_name", "label", "split"), "label"),
        (("Image Path", "Class Name", "Data Set"), "Class Name"),
        (("filepaths", "labels", "subset"), "labels"),
        (("img", "make_category", "partition"), "make_category"),
    ],
)
def test_columns_are_known_by_their_usual_names(tmp_path: Path, head: Sequence[str], label: str) -> None:
    """Case, spaces, marks and plurals do not matter."""
    file = write(pictures(tmp_path) / "cars.csv", head=head)
    assert list(read_layout(file).images) == IMAGES
    assert list(read_layout(file, DataConfig(label=label)).images) == IMAGES


def test_labels_that_are_numbers_stay_names(tmp_path: Path) -> None:
    """0 and 10 are classes called so, in every form of table; a class beside its number is called by its name."""
    for name in ("cars.csv", "cars.jsonl", "cars.parquet"):
        rows = [("images/a.jpg", 10), ("images/b.jpg", 0), ("images/c.jpg", 10)]
        assert read_layout(write(pictures(tmp_path) / name, rows, ("path", "label"))).classes == ("0", "10")
    rows = [("images/a.jpg", 1, "Audi"), ("images/b.jpg", 2, "BMW")]
    listed = read_layout(write(tmp_path / "cars.csv", rows, ("path", "class", "class_name")))
    assert listed.classes == ("Audi", "BMW")
    assert "1 column is not read in cars.csv: class." in listed.notes


@pytest.mark.parametrize("head", ["id", "image_id"])
def test_ids_are_names_without_what_they_end_in(tmp_path: Path, head: str) -> None:
    """As competitions have them, with the folder of the images; two files of one name are nobody's guess."""
    rows = [("a", "Audi"), ("b", "BMW"), ("c.jpg", "Audi")]
    file = write(pictures(tmp_path) / "labels.csv", rows, (head, "label"))
    images = DataConfig(path=str(file), images=str(tmp_path / "images"))
    assert [image.path for image in read_layout(file, images).images] == ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(DataError, match=r"there is no file 'a'.*--images FOLDER"):
        read_layout(file)
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    with pytest.raises(DataError, match=r"got 1 of 3: line 2 of labels.csv: there is no file 'a'"):
        read_layout(file, images)


def test_ids_of_something_else_make_no_table_of_a_folder(tmp_path: Path) -> None:
    """A list of classes with their numbers, beside their folders, stays a list."""
    for name in ("Audi", "BMW"):
        pictures(tmp_path, folder=name)
    write(tmp_path / "classes.csv", [(1, "Audi"), (2, "BMW")], ("id", "class"))
    assert read_layout(tmp_path).layout == "class folders"
    with pytest.raises(DataError, match="there is no file '1'"):
        read_layout(tmp_path, DataConfig(label="class"))


@pytest.mark.parametrize(
    ("head", "cells", "split"),
    [
        ("is_train", "10", "test"),
        ("Is Training", ("True", "False"), "test"),
        ("is_test", ("no", "yes"), "test"),
        ("is_valid", ("False", "True"), "validation"),
        ("test", "01", "test"),
    ],
)
def test_a_column_may_say_yes_or_no_to_one_split(tmp_path: Path, head: str, cells: Sequence[str], split: str) -> None:
    """What is not in training is in test, or the other way round; another word is a wrong row, and of a column that is
    called ``test`` alone, which may be anything, the end of it."""
    rows = [("images/a.jpg", "A", cells[0]), ("images/b.jpg", "B", cells[0]), ("images/c.jpg", "B", cells[1])]
    file = write(pictures(tmp_path) / "cars.csv", [*rows, ("images/d.jpg", "A", "maybe")], ("path", "label", head))
    if head == "test":
        assert "1 column is not read in cars.csv: test." in read_layout(file, ALL).notes
        write(file, rows, ("path", "label", head))
    listed = read_layout(file, ALL)
    assert [image.split for image in listed.images] == ["train", "train", split]
    wrong = "left out: line 5 of cars.csv (its split 'maybe' is none of train, validation, test)"
    assert (wrong in listed.notes) == (head != "test")


def test_lists_of_labels_and_addresses_are_wrong_rows(tmp_path: Path) -> None:
    """A class is not called as a list is written, and nothing is fetched."""
    rows = [*ROWS, ("images/a.jpg", ["Audi", "red"], "train"), ("https://example.org/a.jpg", "Audi", "train")]
    assert read_layout(write(pictures(tmp_path) / "cars.jsonl", rows), ALL).notes[1:] == (
        'left out: line 5 of cars.jsonl (its label ["Audi", "red"] is a list: give one)',
        "left out: line 6 of cars.jsonl ('https://example.org/a.jpg' is an address: fetch its image and name the file)",
    )


@pytest.mark.parametrize(
    ("label", "why"), [('{"name": "Audi"}', "is an object: give one"), ("Audi\nA5", "has control characters")]
)
def test_labels_that_no_line_can_show_are_wrong_rows(tmp_path: Path, label: str, why: str) -> None:
    """An object is no name of a class, nor is a text with line breaks or zero bytes."""
    file = write(pictures(tmp_path) / "cars.csv", [*ROWS[1:], ("images/b.jpg", label, "train"), ROWS[0]])
    with pytest.raises(DataError, match=rf"line 5 of cars.csv: its label .*{why}"):
        read_layout(file)


def test_a_csv_without_names_of_columns_is_told(tmp_path: Path) -> None:
    """Its first line names an image."""
    row = "TRAIN,gs://cars/a.jpg,Audi,0.1,0.1,,,0.9,0.9,,"
    (tmp_path / "cars.csv").write_text(f"{row}\n{row}\n")
    with pytest.raises(DataError, match=r"must begin with the names of its columns, got .*a\.jpg, Audi"):
        read_layout(tmp_path / "cars.csv")


def test_utf16_without_its_mark_is_told(tmp_path: Path) -> None:
    """Half its bytes are zero, which a text has none of."""
    (tmp_path / "cars.csv").write_text("path,label\nimages/a.jpg,Audi\n", encoding="utf-16-le")
    with pytest.raises(DataError, match=r"bytes of zero, as UTF-16 has.*Save it as CSV in UTF-8"):
        read_layout(tmp_path / "cars.csv")


@pytest.mark.parametrize("path", ["C:\\cars\\a.jpg", "/content/drive/cars/a.jpg"])
def test_paths_of_another_machine_are_told(tmp_path: Path, path: str) -> None:
    """The folder of the images would not help them."""
    file = write(pictures(tmp_path) / "cars.csv", [(path, "Audi"), (f"{path}.png", "BMW")], ("path", "label"))
    with pytest.raises(DataError, match="They are paths of another machine: write them relative"):
        read_layout(file)


def test_the_only_other_column_is_proposed_for_the_labels(tmp_path: Path) -> None:
    """Whatever it is called; it is never taken unasked."""
    file = write(pictures(tmp_path) / "cars.csv", ROWS, ("image_id", "breed", "split"))
    with pytest.raises(DataError, match=r"--set data\.label=breed"):
        read_layout(file)


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    """As a CSV with such is; decimal numbers are labels as others are."""
    names, values = pa.array(["images/a.jpg", "images/b.jpg"]), pa.array([Decimal(1), Decimal(2)])
    for columns in (["path", "label"], ["path", "label", "label"]):
        table = pa.table([names, values, values][: len(columns)], names=columns)
        parquet.write_table(table, pictures(tmp_path) / f"{len(columns)}.parquet")
    assert read_layout(tmp_path / "2.parquet").classes == ("1", "2")
    with pytest.raises(DataError, match="got 'label' twice"):
        read_layout(tmp_path / "3.parquet")


def test_annotations_of_coco_say_how_to_write_them(tmp_path: Path) -> None:
    """They are no table, and a folder that has nothing else is refused by their name."""
    (pictures(tmp_path) / "_annotations.coco.json").write_text("{}")
    with pytest.raises(DataError, match=r"_annotations\.coco\.json is not read\. Write an object a line, as \.jsonl"):
        read_layout(tmp_path)


def test_json_over_several_lines_says_how_to_write_it(tmp_path: Path) -> None:
    """An array, as most programs write it, is no JSON lines."""
    (tmp_path / "cars.jsonl").write_text('[\n {\n  "path": "a.jpg"\n }\n]\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a JSON object a line, such as {.*Write it so"):
        read_layout(tmp_path / "cars.jsonl")


def test_several_columns_of_labels_need_a_word(tmp_path: Path) -> None:
    """Nobody guesses which of them is meant; data.label says it."""
    rows = [("images/a.jpg", "Audi", "red"), ("images/b.jpg", "BMW", "blue"), ("images/c.jpg", "Audi", "blue")]
    file = write(pictures(tmp_path) / "cars.csv", rows, ("path", "fine_label", "coarse_label"))
    with pytest.raises(DataError, match=r"one column of labels, got fine_label, coarse_label.*data.label=fine_label"):
        read_layout(file)
    assert read_layout(file, DataConfig(label="coarse_label")).classes == ("blue", "red")
    index = [(number, *row) for number, row in enumerate(rows)]
    with_index = write(tmp_path / "numbered.csv", index, ("", "path", "fine_label", "coarse_label"))
    notes = read_layout(with_index, DataConfig(label="fine_label")).notes
    assert notes[-1] == "1 column is not read in numbered.csv: coarse_label."
    with pytest.raises(DataError, match=r"data.label must be a column of .*cars.csv, got 'colour'"):
        read_layout(file, DataConfig(label="colour"))


def test_wrong_rows_are_listed_by_line_and_counted(tmp_path: Path) -> None:
    """Each reason is told with its line; the other rows are read."""
    rows = [
        *ROWS,
        ("images/none.jpg", "Audi A5, Coupe", "train"),
        ("images/e.jpg", "", "train"),
        ("images/e.jpg", "Citroën C4", "holdout"),
        ("images/a.jpg", "Citroën C4", "train"),
        ("", "Citroën C4", "train"),
        ("images/e.jpg", "Citroën C4", "train", "more"),
    ]
    listed = read_layout(write(pictures(tmp_path, "abcde") / "cars.csv", rows), ALL)
    assert list(listed.images) == IMAGES
    assert list(listed.notes) == [
        "1 of 6 files is left out: it is not among the images of the table cars.csv, such as 'images/e.jpg'.",
        "6 of 10 rows of cars.csv are left out.",
        "left out: line 6 of cars.csv (there is no file 'images/none.jpg')",
        "left out: line 7 of cars.csv (it has no label)",
        "left out: line 8 of cars.csv (its split 'holdout' is none of train, validation, test)",
        "left out: line 9 of cars.csv ('images/a.jpg' is in line 3 of cars.csv already, as 'Audi A5, Coupe')",
        "left out: line 10 of cars.csv (it names no file)",
        "left out: line 11 of cars.csv (it has 4 cells, not 3)",
    ]


def test_too_many_wrong_rows_are_refused(tmp_path: Path) -> None:
    """A table that is mostly wrong is none, and one whose files are all elsewhere says how they are found."""
    write(pictures(tmp_path) / "cars.csv", [*ROWS, ("images/none.jpg", "Citroën C4", "train")])
    with pytest.raises(DataError, match=r"at most 5%, got 1 of 5: line 6 of cars.csv: there is no file"):
        read_layout(tmp_path / "cars.csv")
    write(tmp_path / "lists" / "cars.csv")
    (tmp_path / "lists" / "a").mkdir()
    with pytest.raises(DataError, match=r"If the folders are meant, move the table away"):
        read_layout(tmp_path / "lists")
    with pytest.raises(DataError, match=r"got 4 of 4: .*--images FOLDER"):
        read_layout(tmp_path / "lists" / "cars.csv")
    beside = DataConfig(path="lists/cars.csv", images=str(tmp_path))
    assert list(read_layout(tmp_path / "lists" / "cars.csv", beside).images) == IMAGES


def test_a_line_that_is_no_row_of_json_is_told(tmp_path: Path) -> None:
    """Lines of no JSON, of another value, and with half a character are wrong rows, not crashes."""
    file = write(pictures(tmp_path) / "cars.jsonl")
    broken = '\n\n{"path": \n[1, 2]\n{"path": "images/a.jpg", "label": "\\ud800"}\n' + "[" * 100_000
    file.write_text(file.read_text(encoding="utf-8") + broken, encoding="utf-8")
    listed = read_layout(file, ALL)
    assert list(listed.images) == IMAGES
    assert list(listed.notes[1:]) == [
        f"left out: line {line} of cars.jsonl (it is no JSON object)" for line in (6, 7, 8, 9)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have a column path, got nothing"),
        (b"a.jpg,Audi\nb.jpg,BMW\n", "must begin with the names of its columns, got a.jpg, Audi"),
        (b"path,colour\na.jpg,red\n", "must have a column label, got path, colour"),
        (b"path,label\n", "a row for each image, got none"),
        (b"path,label\n\xe9.jpg,Audi\n", "must be a table of text"),
        (b'path,label\n"a.jpg,Audi\nb.jpg,BMW\n', "must be a table of text"),
        (b"path,label,label\na.jpg,b,c\n", "got 'label' twice"),
        (b"path,label,x1,y1,x2\na.jpg,b,1,2,3\n", "all columns of its boxes.*got x1, x2, y1"),
    ],
)
def test_what_is_no_table_of_images_says_what_is_missing(tmp_path: Path, content: bytes, message: str) -> None:
    """One message, before anything expensive."""
    file = tmp_path / "cars.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_layout(file)


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    """It is told, not a traceback of the library's."""
    (tmp_path / "cars.parquet").write_bytes(b"PAR1 nothing else")
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_layout(tmp_path / "cars.parquet")


@pytest.mark.parametrize(
    ("head", "cells", "box"),
    [
        (("x1", "y1", "x2", "y2"), (2, 4, 20, 30), (2, 4, 20, 30)),
        (("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), (2, 4, 20, 30), (2, 4, 20, 30)),
        (("xmin", "ymin", "xmax", "ymax"), (2.2, 4.2, 20.2, 30.2), (2, 4, 21, 31)),
        (("x0", "y0", "x1", "y1"), (2, 4, 20, 30), (2, 4, 20, 30)),
        (("x", "y", "width", "height"), (2, 4, 18, 26), (2, 4, 20, 30)),
        (("x", "y", "w", "h"), (0.1, 0.2, 0.5, 0.25), (0.1, 0.2, 0.6, 0.45)),
        (("left", "top", "right", "bottom"), (0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_boxes_are_corners_or_a_corner_and_sides_in_pixels_or_fractions(
    tmp_path: Path, head: Sequence[str], cells: Sequence[float], box: Sequence[float]
) -> None:
    """Numbers that are all at most 1 are fractions, which are floats; pixels are whole numbers."""
    rows = [("images/a.jpg", "Audi", *cells), ("images/b.jpg", "BMW", *cells), ("images/c.jpg", "BMW", "", "", "", "")]
    listed = read_layout(write(pictures(tmp_path) / "cars.csv", rows, ("path", "label", *head)))
    first, _, without = (image.box for image in listed.images)
    assert first == pytest.approx(box)
    assert first is not None
    assert without is None
    assert [type(edge) for edge in first] == [type(edge) for edge in box]


def test_boxes_with_decimal_commas_are_read(tmp_path: Path) -> None:
    """As spreadsheets of many countries write them; nobody knows whether 1,024 is a thousand."""
    head, cells = ("path", "label", "x1", "y1", "x2", "y2"), ("1,5", "2,0", "30,25", "40")
    rows = [("images/a.jpg", "Audi", *cells), ("images/b.jpg", "BMW", *cells), ("images/c.jpg", "BMW", *cells)]
    file = write(pictures(tmp_path) / "cars.csv", rows, head, split=";")
    assert [image.box for image in read_layout(file).images] == [(1, 2, 31, 40)] * 3
    write(file, [*rows, ("images/d.jpg", "BMW", "1", "2", "1,024", "40")], head, split=";")
    assert "(1, 2, 1,024, 40) has no four numbers" in read_layout(file, ALL).notes[-1]


def test_boxes_of_both_kinds_in_one_table_are_refused(tmp_path: Path) -> None:
    """What they mean is not known; both lines are named."""
    rows = [("images/a.jpg", "Audi", 0.1, 0.1, 0.9, 0.9), ("images/b.jpg", "BMW", 10, 10, 90, 90)]
    file = write(pictures(tmp_path) / "cars.csv", rows, ("path", "label", "x1", "y1", "x2", "y2"))
    with pytest.raises(DataError, match=r"all in pixels or all in fractions.* in line 2 of cars.csv .*line 3"):
        read_layout(file)


def test_broken_boxes_are_wrong_rows(tmp_path: Path) -> None:
    """Empty ones, those outside the image, and what is no number."""
    cells = [(1, 1, 9, 9), (5, 5, 5, 9), (-9, -9, -1, -1), ("a", 1, 2, 3), (1, 1, "inf", 9), (1, 1, "", 9)]
    rows = [(f"images/{name}.jpg", "Audi", *box) for name, box in zip("abcdef", cells, strict=True)]
    rows.append(("images/g.jpg", "BMW", 1, 1, 9, 9))
    file = write(pictures(tmp_path, "abcdefg") / "cars.csv", rows, ("path", "label", "x1", "y1", "x2", "y2"))
    listed = read_layout(file, ALL)
    assert [image.path for image in listed.images] == ["images/a.jpg", "images/g.jpg"]
    assert "left out: line 3 of cars.csv (its box (5, 5, 5, 9) is empty)" in listed.notes
    assert "left out: line 4 of cars.csv (its box (-9, -9, -1, -1) lies outside the image)" in listed.notes


def test_two_cars_of_one_photograph_are_two_images(tmp_path: Path) -> None:
    """A file may be named again with another box; with the same one it is a mistake."""
    boxes = [("a", "Audi", 0, 0, 9, 9), ("a", "BMW", 20, 0, 29, 9), ("a", "Audi", 0, 0, 9, 9)]
    rows = [(f"images/{name}.jpg", *rest) for name, *rest in boxes]
    listed = read_layout(write(pictures(tmp_path) / "c.csv", rows, ("path", "label", "x1", "y1", "x2", "y2")), ALL)
    assert [(image.label, image.box) for image in listed.images] == [(0, (0, 0, 9, 9)), (1, (20, 0, 29, 9))]


def test_fractions_are_cut_from_the_image_as_it_is(tmp_path: Path) -> None:
    """The right half of an image is what its box of fractions gives, whatever the image's size."""
    for width, height in ((40, 20), (300, 100)):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, width // 2 :] = 255
        Image.fromarray(picture).save(tmp_path / "half.png")
        assert read_square(tmp_path / "half.png", 8, (0.5, 0.0, 1.0, 1.0)).min() == 255
        assert read_square(tmp_path / "half.png", 8, (0.0, 0.0, 0.5, 1.0)).max() == 0


def test_absolute_paths_and_those_of_windows_are_followed(tmp_path: Path) -> None:
    """Inside the folder of the images they are as relative ones; those outside are counted."""
    pictures(tmp_path / "data", "ab")
    pictures(tmp_path / "elsewhere", "cd")
    inside, outside = tmp_path / "data" / "images", tmp_path / "elsewhere" / "images"
    paths = [f"{inside}/a.jpg", r"images\b.jpg", f"{outside}/c.jpg", "../elsewhere/images/d.jpg"]
    rows = [(path, label) for path, label in zip(paths, ("A", "B", "A", "B"), strict=True)]
    listed = read_layout(write(tmp_path / "data" / "cars.csv", rows, ("path", "label")))
    found = [image.path for image in listed.images]
    assert found == ["../elsewhere/images/d.jpg", f"{outside}/c.jpg", "images/a.jpg", "images/b.jpg"]
    assert listed.notes[-1].startswith("2 images lie outside the folder of the images")
    assert "unreadable" not in listed.with_contents().contents


def test_links_out_of_the_folder_are_told(tmp_path: Path) -> None:
    """A folder of images, or one of them beside the table, that is a link to elsewhere."""
    pictures(tmp_path / "elsewhere", "ab")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "data" / "c.jpg").symlink_to(tmp_path / "elsewhere" / "images" / "a.jpg")
    rows = [("images/a.jpg", "A"), ("images/b.jpg", "B"), ("c.jpg", "B")]
    listed = read_layout(write(tmp_path / "data" / "cars.csv", rows, ("path", "label")))
    assert len(listed.images) == 3
    assert listed.notes[-1].startswith("2 links were followed out of the folder, such as ")


@pytest.mark.parametrize(
    ("name", "remedy"), [("cars.xlsx", "as CSV"), ("cars.json", "as .jsonl"), ("cars.7z", "unpack it")]
)
def test_other_files_say_what_to_make_of_them(tmp_path: Path, name: str, remedy: str) -> None:
    """Spreadsheets, lists in JSON, and other archives."""
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"must be a folder, a table .* or an archive .*{remedy}"):
        read_layout(tmp_path / name)


def test_pipes_and_endless_lines_are_no_tables(tmp_path: Path) -> None:
    """A pipe is not waited for, alone or in a folder, and a file of zeros is not read whole."""
    os.mkfifo(tmp_path / "cars.csv")
    os.mkfifo(tmp_path / "train-00000-of-00001.parquet")
    for path in (tmp_path / "cars.csv", tmp_path):
        assert unpacked(path, tmp_path / "out") is None
        with pytest.raises(DataError, match=r"data path must be"):
            read_layout(path)
    with (tmp_path / "zeros.csv").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(DataError, match=r"its first line has over 1,000 kB"):
        read_layout(tmp_path / "zeros.csv")


def test_groups_stay_on_one_side_and_a_changed_table_is_other_data(tmp_path: Path) -> None:
    """Images of one group are cut together; path, label, split, box and group are part of the digest, order is not."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(tmp_path / "images" / f"{number:02d}.png")
    head = ("path", "label", "x1", "y1", "x2", "y2", "group")
    rows = [(f"images/{n:02d}.png", f"car {n % 2}", 0, 0, 20, 20, f"owner {n // 4}") for n in range(24)]

    def prepared(rows: Sequence[Sequence[object]]) -> Dataset:
        config = DataConfig(path=str(write(tmp_path / "cars.csv", rows, head)))
        return prepare_dataset(config, StageStore(tmp_path / "stages"), 16)

    first = prepared(rows)
    sides = [{first.manifest.images[row].group for row in each} for each in (first.splits.train, first.splits.test)]
    assert not sides[0] & sides[1]
    assert prepared(rows[::-1]).digest == first.digest
    changes = {1: "car 1", 5: 19, 6: "owner 9"}
    edited = [[[*rows[0][:place], value, *rows[0][place + 1 :]], *rows[1:]] for place, value in changes.items()]
    assert first.digest not in {prepared(each).digest for each in edited}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "cars.parquet"])
def test_a_folder_with_a_table_is_read_by_it(tmp_path: Path, name: str) -> None:
    """As Hugging Face has it, or by the only table; what it does not name is counted."""
    write(pictures(tmp_path, "abcde") / name, head=("file_name", "label", "split"))
    (tmp_path / "classes.csv").write_text("id,name\n1,Audi\n")
    listed = read_layout(tmp_path)
    assert list(listed.images) == IMAGES
    assert listed.layout == f"the table {name}"
    assert listed.notes == (
        "1 of 7 files is left out: by its extension (1 .csv) it is no image of JPEG, PNG, WEBP, AVIF, BMP, GIF, TIFF, "
        "PPM, JPEG2000.",
        f"1 of 7 files is left out: it is not among the images of the table {name}, such as 'images/e.jpg'.",
    )


def test_tables_in_folders_of_splits_and_of_splits_are_read(tmp_path: Path) -> None:
    """train/metadata.csv with test/metadata.csv, and train.csv with test.csv; splits are those of their names."""
    for split, names in (("train", "ab"), ("test", "cd")):
        rows = [(f"{name}.jpg", label) for name, label in zip(names, ("Audi", "BMW"), strict=True)]
        write(pictures(tmp_path / "one", names, split) / split / "metadata.csv", rows, ("file_name", "label"))
        write(pictures(tmp_path / "two", names, ".") / f"{split}.csv", rows, ("image", "class"))
    listed = [read_layout(tmp_path / name) for name in ("one", "two")]
    assert [image.path for image in listed[0].images] == ["test/c.jpg", "test/d.jpg", "train/a.jpg", "train/b.jpg"]
    assert [image.path for image in listed[1].images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for each in listed:
        assert {image.path[-5]: image.split for image in each.images} == {
            "a": "train",
            "b": "train",
            "c": "test",
            "d": "test",
        }
        assert each.notes == ()


def test_test_rows_without_labels_are_left_out(tmp_path: Path) -> None:
    """A competition's test split has none; that is no mistake of its rows."""
    rows = [*ROWS[:3], ("images/d.jpg", "", "test")]
    listed = read_layout(write(pictures(tmp_path) / "cars.csv", rows))
    assert list(listed.images) == IMAGES[:3]
    assert "test is left out: none of its 1 images has a label." in listed.notes


def test_several_tables_of_images_are_refused(tmp_path: Path) -> None:
    """Which one is meant is not guessed."""
    for name in ("old.csv", "new.csv"):
        write(pictures(tmp_path) / name)
    with pytest.raises(DataError, match=r"one table where several name images, got new.csv, old.csv"):
        read_layout(tmp_path)


def test_images_and_label_mean_nothing_without_a_table(tmp_path: Path) -> None:
    """They are refused where they would change nothing."""
    for name in ("a", "b"):
        pictures(tmp_path, "cd", name)
    for config in (DataConfig(path="x", images=str(tmp_path)), DataConfig(label="label")):
        with pytest.raises(DataError, match=r"must be left out for class folders"):
            read_layout(tmp_path, config)
    write(tmp_path / "cars.csv")
    with pytest.raises(DataError, match=r"data.images must be the folder .* got '.*nowhere'"):
        read_layout(tmp_path / "cars.csv", DataConfig(path="x", images=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("s3://bucket/cars", "aws s3 sync s3://bucket/cars cars"),
        ("gs://bucket/cars.zip", "gcloud storage cp gs://bucket/cars.zip cars.zip"),
        ("hf://datasets/me/cars", "hf download me/cars --repo-type dataset --local-dir cars"),
        ("https://huggingface.co/datasets/me/cars/tree/main", "hf download me/cars --repo-type dataset"),
        ("https://x.org/cars.tar.gz?a=1&b=2", "curl -L -o cars.tar.gz 'https://x.org/cars.tar.gz?a=1&b=2'"),
        ("ftp://x.org/cars.zip", "curl -L -o cars.zip ftp://x.org/cars.zip"),
        ("git@github.com:me/cars.git", "git clone git@github.com:me/cars.git cars"),
        ("https://github.com/me/cars.git", "git clone https://github.com/me/cars.git cars"),
    ],
)
def test_an_address_says_how_to_fetch_it(address: str, command: str) -> None:
    """In one line, wherever a path of data is given."""
    assert command in how_to_fetch(address)
    with pytest.raises(ValueError, match="must be a folder or file of this machine"):
        DataConfig(path=address)


@pytest.mark.slow
def test_a_table_of_a_hundred_thousand_rows_is_listed_in_seconds(tmp_path: Path) -> None:
    """In under 5 s and 500 MiB."""
    names = [f"images/{n // 1000:03d}/{n:06d}.jpg" for n in range(100_000)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rows = [(name, f"class {n % 1000}", "train", 1, 1, 50, 50) for n, name in enumerate(names)]
    file = write(tmp_path / "cars.csv", rows, (*HEAD, "x1", "y1", "x2", "y2"))
    start = time.process_time()
    listed: Manifest = read_layout(file)
    assert time.process_time() - start < 5
    assert len(listed.images) == 100_000
    tracemalloc.start()
    read_layout(file)
    assert tracemalloc.get_traced_memory()[1] < 500 * 2**20
    tracemalloc.stop()
