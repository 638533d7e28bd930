"""Hugging Face's data sets: Parquet shards and folders of ``save_to_disk``, whose images are written out as files.

Beside the images a table, ``TABLE``, has all their other columns, which is read as any table is.
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carcls.data.decode import open_image
from carcls.data.files import FORMATS, entries, list_folder
from carcls.data.readers import split_named
from carcls.data.tables import HUGGING_FACE, PATH_COLUMNS, as_text, is_simple, plain
from carcls.errors import DataError

_ROWS, _MOST_FOLDERS = 64, 20
_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_OURS = {*PATH_COLUMNS, "split", "subset", "partition", "set", "dataset"}


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of a data set, by the splits that they hold, and what of it is left out, in words."""

    splits: Mapping[str, Sequence[Path]]
    notes: Sequence[str] = ()

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [file for files in self.splits.values() for file in files]


def find_shards(path: Path) -> Shards | None:
    """Return the shards of a data set of Hugging Face's; None where a path is anything else.

    Raises:
        DataError: it is one that lacks something, or several.
    """
    if path.is_file():
        return Shards({"train": [path]}) if path.suffix.lower() == ".parquet" and _has_images(path) else None
    if (path / "dataset_dict.json").is_file():
        return _named({folder.name: _saved(folder) for folder in sorted(path.iterdir()) if _is_saved(folder)}, path)
    if _is_saved(path):
        return Shards({"train": _saved(path)})
    return _parquet_shards(path)


def write_files(shards: Shards, into: Path) -> list[str]:
    """Write the images of shards and their table into a folder; return what is to be told, a sentence each.

    Raises:
        DataError: they have no images, or are damaged.
    """
    first = shards.files[0]
    with _told(first):
        columns = _columns(_schema(first), _features(first), first)
    with (into / HUGGING_FACE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "split", *columns.heads])
        for split, files in shards.splits.items():
            row = 0
            for batch in _batches(files, [columns.image, *columns.simple]):
                cells = [columns.texts(name, batch.column(name).to_pylist()) for name in columns.simple]
                images = batch.column(columns.image)
                for place, rest in enumerate(zip(*cells, strict=True) if cells else [()] * len(images)):
                    table.writerow([_written(images[place].as_py(), into, f"{split}/{row:08d}"), split, *rest])
                    row += 1
    return [*shards.notes, *columns.notes]


def left_out_of(path: Path) -> Iterator[str]:
    """Say how many files beside shards are no part of the data set."""
    shards = find_shards(path)
    known = set(shards.files) if shards else set()
    files = [place.path / name for place in list_folder(path).walk() for name in (*place.images, *place.others)]
    others = [file for file in files if file not in known and file.name not in _ABOUT and file.suffix != ".md"]
    if others:
        verb, they = ("is", "it is no shard") if len(others) == 1 else ("are", "they are no shards")
        shown = str(others[0].relative_to(path))
        yield f"{len(others):,} of {len(files):,} files {verb} left out: {they} of a split, such as {shown!r}."


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column has the images, which have texts and numbers and what they are called, and names of classes."""

    image: str
    simple: Sequence[str]
    heads: Sequence[str]
    classes: Mapping[str, Sequence[str]]
    notes: Sequence[str]

    def texts(self, name: str, values: Sequence[Any]) -> list[str]:
        """Return cells of a column; the number of a class becomes its name, and -1, which is none, nothing."""
        names = self.classes.get(name)
        if names is None:
            return [as_text(value) for value in values]
        return [names[value] if value is not None and 0 <= value < len(names) else "" for value in values]


def _columns(schema: Any, features: Mapping[str, Any], file: Path) -> _Columns:
    told = {name: one for name, one in features.items() if isinstance(one, dict)}
    kinds = {name: told.get(name, {}).get("_type", "") for name in schema.names}
    images = [name for name in schema.names if kinds[name] == "Image" or _holds_bytes(schema.field(name).type)]
    texts = [name for name in schema.names if is_simple(schema.field(name).type)]
    images = images or [name for name in texts if plain(name) in PATH_COLUMNS]
    if not images:
        raise DataError(f"{file} must have a column of images, got {', '.join(schema.names[:10]) or 'nothing'}.")
    image = next((name for name in images if plain(name) in PATH_COLUMNS), images[0])
    others = [name for name in images if name != image]
    notes = [f"images are those of the column {image}; not read: {', '.join(others)}."] if others else []
    nested = [name for name in schema.names if name not in texts and name not in images]
    if nested:
        notes.append(f"columns of lists and other nested values are not read: {', '.join(nested[:8])}.")
    simple = [name for name in texts if name not in images and plain(name) not in _OURS]
    classes = {name: _class_names(told[name]) for name in simple if kinds[name] == "ClassLabel"}
    heads = list(simple)
    if len(classes) == 1 and "label" not in simple:
        heads[simple.index(next(iter(classes)))] = "label"
    return _Columns(image, simple, heads, classes, notes)


def _class_names(feature: Mapping[str, Any]) -> list[str]:
    names = feature.get("names") or []
    return [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else list(map(str, names))


def _written(value: Any, into: Path, name: str) -> str:
    """Write the bytes of an image and return its path; where there are none, the path that it has."""
    content, path = (value, "") if not isinstance(value, dict) else (value.get("bytes"), value.get("path") or "")
    if isinstance(content, str) or content is None:
        return content or path
    target = into / f"{name}{_suffix(content)}"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    return target.relative_to(into).as_posix()


def _suffix(content: bytes) -> str:
    try:
        with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(content)) as image:
            return FORMATS.get(image.format or "", (".jpg",))[0]
    except Exception:  # it is told when it is decoded
        return ".jpg"


# Where the shards are


def _parquet_shards(folder: Path) -> Shards | None:
    """Return the Parquet files of a folder, of its ``data`` or of its folders of splits, if they hold images."""
    inside = sorted(folder / entry.name for entry in entries(folder) if entry.is_dir())
    places = [folder, *(inside if len(inside) <= _MOST_FOLDERS else [])]
    found = [
        file for place in places for file in sorted(place.glob("*.parquet")) if file.name[0] != "." and file.is_file()
    ]
    if not found or not (any(_SHARD.match(file.stem) for file in found) or _has_images(found[0])):
        return None
    homes = {file.parent.parent if split_named(file.parent.name) else file.parent for file in found}
    if len(homes) > 1:
        names = ", ".join(sorted(str(home.relative_to(folder)) for home in homes))
        raise DataError(
            f"data path must hold one data set, got Parquet in {names} of {str(folder)!r}. Give one of them."
        )
    _require_all(found, folder)
    by_name: dict[str, list[Path]] = {}
    for file in found:
        stem = _SHARD.sub(r"\1", file.stem)
        name = stem if split_named(stem) or not split_named(file.parent.name) else file.parent.name
        by_name.setdefault(name, []).append(file)
    return _named(by_name, folder)


_SHARD = re.compile(r"^(.+?)-(\d{5})-of-(\d{5}).*$")


def _require_all(found: Sequence[Path], folder: Path) -> None:
    """Check that no shard is missing of those that the names of the others count."""
    numbers: dict[tuple[Path, str, str], set[str]] = {}
    for file in found:
        if shard := _SHARD.match(file.stem):
            numbers.setdefault((file.parent, shard[1], shard[3]), set()).add(shard[2])
    for (place, name, total), own in numbers.items():
        if lacking := next((f"{k:05}" for k in range(int(total)) if f"{k:05}" not in own), None):
            shown = (place / f"{name}-{lacking}-of-{total}.parquet").relative_to(folder)
            raise DataError(
                f"all {int(total):,} shards of {name} must be in {str(folder)!r}, got {len(own):,}: no {str(shown)!r}. "
                "Fetch the others."
            )


def _named(by_name: Mapping[str, Sequence[Path]], folder: Path) -> Shards:
    """Put shards together by the splits that their names mean; where none means one, all train."""
    splits: dict[str, list[Path]] = {}
    left_out = [name for name in by_name if split_named(name) is None]
    if len(left_out) == len(by_name):
        return Shards({"train": [file for files in by_name.values() for file in files]})
    for split in ("train", "validation", "test"):
        files = [file for name, files in by_name.items() if split_named(name) == split for file in files]
        if files:
            splits[split] = files
    names = f"{', '.join(left_out)} of {folder.name}"
    return Shards(splits, [f"{names} is left out: its name is of no split."] if left_out else [])


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def _saved(folder: Path) -> list[Path]:
    """Return the files of a folder that ``save_to_disk`` wrote, in their order."""
    state = _json(folder / "state.json")
    names = [str(one.get("filename")) for one in state.get("_data_files") or [] if isinstance(one, dict)]
    missing = next((name for name in names if "/" in name or not (folder / name).is_file()), None)
    if not names or missing:
        raise DataError(f"{folder} must hold the files of its state.json, got no {missing or 'one'}. Copy it whole.")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(f"{folder} must hold its rows as they are, got a list of chosen ones. Save flatten_indices().")
    return [folder / name for name in names]


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} must be JSON ({error}). Fetch it again.") from error
    return found if isinstance(found, dict) else {}


# What they hold


def _has_images(file: Path) -> bool:
    """Tell whether a Parquet file holds the bytes of images."""
    with _told(file):
        return any(_holds_bytes(field.type) for field in _schema(file))


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _features(file: Path) -> Mapping[str, Any]:
    """Return what the types of columns are to Hugging Face: of the schema, or of the information beside the file."""
    told = (_schema(file).metadata or {}).get(b"huggingface", b"{}")
    try:
        found = json.loads(told)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        beside = file.parent / "dataset_info.json"
        found = _json(beside).get("features") if beside.is_file() else None
    return found if isinstance(found, dict) else {}


def _schema(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    if file.suffix.lower() == ".parquet":
        return read_schema(file)
    with pa.memory_map(str(file)) as source:
        return _ipc(source).schema


def _batches(files: Sequence[Path], names: Sequence[str]) -> Iterator[Any]:
    """Yield record batches of few rows, one after the other, so that no more of a file is in memory."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    for file in files:
        with _told(file):
            missing = [name for name in names if name not in _schema(file).names]
            if missing:
                raise DataError(
                    f"{file} must have the columns of the other shards, got no {missing[0]}. Fetch it again."
                )
            if file.suffix.lower() == ".parquet":
                with ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as shard:
                    yield from shard.iter_batches(_ROWS, columns=list(names))
            else:
                with pa.memory_map(str(file)) as source:
                    for batch in _ipc(source):
                        yield from (batch.slice(first, _ROWS) for first in range(0, len(batch), _ROWS))


def _ipc(source: Any) -> Any:
    """Return what reads Arrow's stream, which ``save_to_disk`` writes."""
    import pyarrow as pa

    return pa.ipc.open_stream(source)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{file} must be a file of Parquet or Arrow ({said}). Fetch it again.") from error
