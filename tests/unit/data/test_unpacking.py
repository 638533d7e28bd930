"""Archives and Hugging Face's folders are written out as files once, and read as what they hold."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import events_of
from PIL import Image
from pyarrow import parquet

from carcls.data.config import DataConfig
from carcls.data.layouts import read_layout
from carcls.data.manifest import Manifest
from carcls.data.unpacking import notes_of_unpacking, unpacked
from carcls.errors import DataError, OutputError
from carcls.stages import StageStore

FILES = {
    f"{split}/{name}/{n}.jpg": b"%s %d" % (name.encode(), n)
    for split in ("train", "test")
    for name in "ab"
    for n in (1, 2)
}


def listed(path: Path, out: Path, **config: Any) -> Manifest:
    """Return what a data set that has to be unpacked holds."""
    found = unpacked(path, out)
    assert found is not None
    given = {"path": str(found.folder), "images": str(found.images) if found.images else None, **config}
    return read_layout(found.folder, DataConfig(**given))


def write_tree(root: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write a zip of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes] = FILES, *more: tarfile.TarInfo) -> Path:
    """Write a tar of files, compressed as its suffix says, and of other members."""
    kind = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")
    with tarfile.open(path, f"w:{kind}") as file:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in more:
            file.addfile(member)
    return path


@pytest.mark.parametrize("name", ["cars.zip", "cars.tar", "cars.tar.gz", "cars.tgz", "cars.tar.bz2", "cars.tar.xz"])
def test_an_archive_is_the_folder_that_it_holds(tmp_path: Path, name: str) -> None:
    """Images, splits and digest are those of the folder; it is unpacked once, wherever it lies."""
    folder = write_tree(tmp_path / "plain")
    archive = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name)
    found = unpacked(archive, tmp_path / "out")
    assert found is not None
    assert found.name == "cars"
    assert listed(archive, tmp_path / "out").with_contents().digest == read_layout(folder).with_contents().digest
    assert notes_of_unpacking(archive, found.folder) == []
    moved = tmp_path / f"moved-{name}"
    archive.rename(moved)
    again = unpacked(moved, tmp_path / "out", StageStore(tmp_path / "out" / "stages"))
    assert again is not None
    assert (again.folder, again.name) == (found.folder, "moved-cars")
    assert [event.event for event in events_of(StageStore(tmp_path / "out" / "stages"))] == ["made", "reused"]


def test_what_is_no_archive_is_left_alone(tmp_path: Path) -> None:
    """A folder, and a table, are read where they lie; nothing is written."""
    (tmp_path / "cars.csv").write_text("path,label\n")
    for path in (write_tree(tmp_path / "plain"), tmp_path / "cars.csv", tmp_path / "nowhere"):
        assert unpacked(path, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


HOSTILE = ["../evil.jpg", "/root/evil.jpg", "a/../../evil.jpg", r"..\evil.jpg", "C:/evil.jpg"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_would_lie_elsewhere_are_refused(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    """Nothing is written outside, and nothing is left of what was."""
    archive = write(tmp_path / f"cars.{write.__name__[-3:]}", {**FILES, name: b"evil"})
    with pytest.raises(DataError, match="files of its own folder alone, got the path"):
        unpacked(archive, tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("evil*"))
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_links_and_devices_are_left_out_and_counted(tmp_path: Path) -> None:
    """They could lead anywhere; the files beside them are read."""
    members = []
    for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
        member = tarfile.TarInfo(f"train/a/{name}.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        members.append(member)
    found = unpacked(write_tar(tmp_path / "cars.tar", FILES, *members), tmp_path / "out")
    assert found is not None
    assert notes_of_unpacking(tmp_path / "cars.tar", found.folder) == [
        "3 entries of it are links or devices and are left out."
    ]
    assert len(read_layout(found.folder).images) == len(FILES)
    link = zipfile.ZipInfo("train/a/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(write_zip(tmp_path / "cars.zip"), "a") as file:
        file.writestr(link, "/etc/passwd")
    found = unpacked(tmp_path / "cars.zip", tmp_path / "out")
    assert found is not None
    assert notes_of_unpacking(tmp_path / "cars.zip", found.folder) == [
        "1 entry of it is a link or device and is left out."
    ]


def test_a_hard_link_to_a_file_of_the_archive_is_that_file(tmp_path: Path) -> None:
    """tar writes a file once that has two names, as where equal files were linked to save room."""
    link = tarfile.TarInfo("train/b/3.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "train/a/1.jpg"
    found = unpacked(write_tar(tmp_path / "cars.tar.gz", FILES, link), tmp_path / "out")
    assert found is not None
    assert (found.folder / link.name).read_bytes() == FILES[link.linkname]
    assert notes_of_unpacking(tmp_path / "cars.tar.gz", found.folder) == []


@pytest.mark.parametrize(("written", "read"), [("Citroën", "Citroën"), (b"Citro\x89n", "Citroën")])
def test_names_in_a_zip_without_a_word_on_their_letters(tmp_path: Path, written: str | bytes, read: str) -> None:
    """macOS writes UTF-8 and does not say so; others mean code page 437."""
    name = written.encode() if isinstance(written, str) else written
    files = {path.replace("/a/", f"/{'X' * len(name)}/"): content for path, content in FILES.items()}
    archive = write_zip(tmp_path / "cars.zip", files)
    archive.write_bytes(archive.read_bytes().replace(b"X" * len(name), name))
    assert listed(archive, tmp_path / "out").classes == (read, "b")


@pytest.mark.parametrize("name", ["cars.zip", "cars.tar.gz"])
def test_a_web_page_called_an_archive_is_told(tmp_path: Path, name: str) -> None:
    """Sites that ask for a login answer with one."""
    (tmp_path / name).write_text("\n<!DOCTYPE html><html>Log in</html>")
    with pytest.raises(DataError, match="whole archive, but it is a web page"):
        unpacked(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["cars.zip", "cars.tar", "cars.tar.gz"])
@pytest.mark.parametrize("harm", ["cut", "text", "empty"])
def test_a_damaged_archive_is_one_message(tmp_path: Path, name: str, harm: str) -> None:
    """Cut off, a web page, or empty; the store keeps nothing of it."""
    rng = np.random.default_rng(0)
    files = {path: rng.bytes(3000) for path in FILES}
    archive = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, files)
    content = archive.read_bytes()
    archive.write_bytes({"cut": content[: len(content) // 2], "text": b"<html>404</html>", "empty": b""}[harm])
    with pytest.raises(DataError, match="must be a whole archive"):
        unpacked(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_an_archive_with_a_password_says_what_to_do(tmp_path: Path) -> None:
    """It is told from the first file; the flag is that of a real one."""
    archive = write_zip(tmp_path / "cars.zip")
    content = bytearray(archive.read_bytes())
    for place in range(len(content)):
        for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            if content[place : place + 4] == mark:
                content[place + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="must have no password"):
        unpacked(archive, tmp_path / "out")


def test_an_archive_that_python_does_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    """Windows writes zips above 2 GB in Deflate64 (9)."""
    path = write_zip(tmp_path / "cars.zip")
    written = path.read_bytes()
    head, mark, rest = written.partition(b"PK\x01\x02")  # the list at the end, which is believed
    path.write_bytes(head + (mark + rest).replace(b"\x00\x00\x08\x00", b"\x00\x00\x09\x00"))
    with pytest.raises(DataError, match=r"cars\.zip must be compressed as Python reads it.* Unpack it, and give its"):
        unpacked(path, tmp_path / "out")


def test_an_archive_that_the_disk_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the disk: the sizes that it names are added up."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20))
    for archive in (
        write_zip(tmp_path / "cars.zip"),
        write_tar(tmp_path / "cars.tar.gz", {k: v * 9 for k, v in FILES.items()}),
    ):
        with pytest.raises(OutputError, match="must have room for the files of"):
            unpacked(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))


# Hugging Face


def encoded(shade: int, kind: str = "PNG") -> bytes:
    """Return the bytes of a small image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def features(**columns: Any) -> dict[bytes, bytes]:
    """Return the metadata that ``datasets`` writes into a schema."""
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


IMAGE, LABEL = {"_type": "Image"}, {"names": ["Audi", "BMW"], "_type": "ClassLabel"}


def frame(labels: list[int], metadata: dict[bytes, bytes] | None = None, name: str = "label", **more: Any) -> pa.Table:
    """Return the table of a shard: images as structs of bytes and path, labels as numbers."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": encoded(17 * n, ("PNG", "JPEG")[n % 2]), "path": f"{n}.png"} for n, _ in enumerate(labels)]
    table = pa.table({"image": pa.array(rows, kind), name: pa.array(labels, pa.int64()), **more})
    return table.replace_schema_metadata(features(image=IMAGE, **{name: LABEL}) if metadata is None else metadata)


def write_shards(root: Path, folder: str = "data") -> Path:
    """Write a data set as the Hub has it: two shards to train on, one to test."""
    (root / folder).mkdir(parents=True)
    for split, shard, count, labels in (("train", 0, 2, [0, 1, 0]), ("train", 1, 2, [1, 1]), ("test", 0, 1, [1, 0])):
        parquet.write_table(frame(labels), root / folder / f"{split}-{shard:05d}-of-{count:05d}.parquet")
    (root / "README.md").write_text("about")
    return root


def save_to_disk(folder: Path, table: pa.Table, **state: Any) -> None:
    """Write a folder as ``Dataset.save_to_disk`` does: Arrow's stream, with what is in it beside."""
    folder.mkdir(parents=True)
    half = len(table) // 2
    names = []
    for number, part in enumerate((table.slice(0, half), table.slice(half))):
        names.append({"filename": f"data-{number:05d}-of-00002.arrow"})
        with (
            pa.OSFile(str(folder / names[-1]["filename"]), "wb") as sink,
            pa.ipc.new_stream(sink, part.schema) as writer,
        ):
            writer.write_table(part)
    info = {"citation": "", "features": json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "state.json").write_text(
        json.dumps({"_data_files": names, "_fingerprint": "1", "_split": "train", **state})
    )


def images_of(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Return path, class and split of each image."""
    return [(image.path, manifest.classes[image.label], image.split) for image in manifest.images]


WRITTEN = [
    ("test/00000000.png", "BMW", "test"),
    ("test/00000001.jpg", "Audi", "test"),
    ("train/00000000.png", "Audi", "train"),
    ("train/00000001.jpg", "BMW", "train"),
    ("train/00000002.png", "Audi", "train"),
    ("train/00000003.png", "BMW", "train"),
    ("train/00000004.jpg", "BMW", "train"),
]


def test_parquet_of_the_hub_is_written_as_files_and_read(tmp_path: Path) -> None:
    """Names of classes come from the schema, splits from the names of files, and files end as what they hold."""
    root = write_shards(tmp_path / "hub")
    manifest = listed(root, tmp_path / "out")
    assert images_of(manifest) == WRITTEN
    assert (manifest.layout, manifest.notes) == ("Hugging Face", ())
    assert (manifest.root / "train/00000001.jpg").read_bytes() == encoded(17, "JPEG")
    before = manifest.with_contents().digest
    shutil.move(root, tmp_path / "moved")
    assert listed(tmp_path / "moved", tmp_path / "other").with_contents().digest == before
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "moved")
    assert listed(Path(archive), tmp_path / "other").with_contents().digest == before


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    """A dictionary of splits, and one split alone."""
    root = tmp_path / "saved"
    train = frame([0, 1, 0, 1, 1])
    save_to_disk(root / "train", train)
    save_to_disk(root / "test", frame([1, 0]))
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = images_of(listed(root, tmp_path / "out"))
    assert [rest for _, *rest in found] == [rest for _, *rest in WRITTEN]
    alone = listed(root / "train", tmp_path / "out")
    assert [split for *_, split in images_of(alone)] == ["train"] * 5
    (root / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"files of its state.json, got no data-00001-of-00002.arrow"):
        listed(root, tmp_path / "out")


def test_one_parquet_file_with_images_is_read(tmp_path: Path) -> None:
    """Also without what Hugging Face writes into it: labels are names then, and a column of bytes is one of images."""
    content = pa.array([encoded(n * 9) for n in range(4)], pa.binary())
    table = pa.table({"photo": content, "label": ["VW", "Audi", "VW", "Audi"], "x1": [1] * 4})
    table = table.append_column("y1", pa.array([1] * 4)).append_column("x2", pa.array([5] * 4))
    parquet.write_table(table.append_column("y2", pa.array([5] * 4)), tmp_path / "cars.parquet")
    manifest = listed(tmp_path / "cars.parquet", tmp_path / "out")
    assert [label for _, label, _ in images_of(manifest)] == ["VW", "Audi", "VW", "Audi"]
    assert manifest.images[0].box == (1, 1, 5, 5)


def test_images_that_are_paths_stay_where_they_are(tmp_path: Path) -> None:
    """Shards of texts are a table: only that is written, and paths begin in the folder."""
    write_tree(tmp_path / "hub", {f"pictures/{n}.jpg": b"%d" % n for n in range(4)})
    table = pa.table({"image": [f"pictures/{n}.jpg" for n in range(4)], "breed": [0, 1, 0, 1]})
    table = table.replace_schema_metadata(features(image={"dtype": "string", "_type": "Value"}, breed=LABEL))
    parquet.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet")
    manifest = listed(tmp_path / "hub", tmp_path / "out")
    assert images_of(manifest)[1] == ("pictures/1.jpg", "BMW", "train")
    assert manifest.root == tmp_path / "hub"


def test_several_labels_need_a_word_and_several_images_are_told(tmp_path: Path) -> None:
    """data.label says which column; the pictures are those of image, and the others are named."""
    more = {"make": LABEL, "model": {"names": ["A5", "X5"], "_type": "ClassLabel"}}
    table = frame([0, 1, 1], features(image=IMAGE, mask=IMAGE, **more), "make", model=[0, 1, 1])
    table = table.append_column("mask", table.column("image")).append_column("bbox", pa.array([[1, 2, 3, 4]] * 3))
    (tmp_path / "hub").mkdir()
    parquet.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet")
    with pytest.raises(
        DataError, match=r"must have a column label, got file_name, split, make, model.*data.label=NAME"
    ):
        listed(tmp_path / "hub", tmp_path / "out")
    manifest = listed(tmp_path / "hub", tmp_path / "out", label="model")
    assert manifest.classes == ("A5", "X5")
    (tmp_path / "hub" / "README.md").write_text("about")
    (tmp_path / "hub" / "extra.csv").write_text("a,b")
    assert notes_of_unpacking(tmp_path / "hub", manifest.root) == [
        "images are those of the column image; not read: mask.",
        "columns of lists and other nested values are not read: bbox.",
        "1 of 3 files is left out: it is no shard of a split, such as 'extra.csv'.",
    ]


def test_splits_of_no_name_are_left_out_and_test_without_labels(tmp_path: Path) -> None:
    """-1 is no class to Hugging Face; what is called otherwise than a split is named."""
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name, labels in (("train", [0, 1, 1]), ("test", [-1, -1]), ("unsupervised", [0, 0])):
        parquet.write_table(frame(labels), tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet")
    manifest = listed(tmp_path / "hub", tmp_path / "out")
    assert {image.split for image in manifest.images} == {"train"}
    assert "test is left out: none of its 2 images has a label." in manifest.notes
    assert "unsupervised" in notes_of_unpacking(tmp_path / "hub", manifest.root)[0]


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    """The names of the others count it: its images are not gone without a word."""
    root = write_shards(tmp_path)
    (root / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"all 2 shards of train .* got 1: no 'data/train-00000-of-00002.parquet'"):
        listed(root, tmp_path / "runs")


def test_several_configurations_are_refused(tmp_path: Path) -> None:
    """Each is a data set of its own."""
    write_shards(tmp_path, "small")
    shutil.copytree(tmp_path / "small", tmp_path / "large")
    with pytest.raises(DataError, match=r"one data set, got Parquet in large, small"):
        listed(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("harm", ["torn", "text"])
def test_a_damaged_shard_is_one_message(tmp_path: Path, harm: str) -> None:
    """It is named; the store keeps nothing."""
    root = write_shards(tmp_path / "hub")
    shard = root / "data" / "train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-300] if harm == "torn" else b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet must be a file of Parquet"):
        listed(root, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))


def test_nothing_that_parquet_holds_is_executed(tmp_path: Path) -> None:
    """An extension type that older versions of Arrow unpickled is data, or refused."""
    harm = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": b"cos\nsystem\n(S'touch x'\ntR.",
    }
    table = frame([0, 1])
    field = pa.field("label", pa.int64(), metadata=harm)
    table = table.set_column(1, field, table.column("label"))
    parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    listed(tmp_path, tmp_path / "out")
    assert not (Path.cwd() / "x").exists()
