"""Data sets that are one file, or images inside of tables: archives, and those of Hugging Face's.

They are written once as files into the store, as a stage of the kind ``unpacked``, which all that follows reads as the
folder that it is. Its key is what they hold, not where they lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carcls.config import digest_of
from carcls.data.archives import is_archive, stem_of, unpack
from carcls.data.files import entries
from carcls.data.hugging_face import find_shards, left_out_of, write_files
from carcls.data.manifest import contents_of
from carcls.disk import is_full_disk
from carcls.errors import DiskFull, OutputError
from carcls.stages import StageStore, write_json

_KIND, _FILES, _NOTES = "unpacked", "files", "notes.json"
_VERSION = 3
"""Raise it when the same contents would be written otherwise."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A data set that was written as files.

    Attributes:
        folder: of the files.
        name: what tables call the data set.
        images: folder that the paths of its table begin in, where the images were files before; else None.
    """

    folder: Path
    name: str
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class _Package:
    """What is to be written as files: the files that it is in, what it is called, and what writes it into a folder."""

    sources: Sequence[Path]
    name: str
    write: Callable[[Path], list[str]]
    place: Path | None = None


def unpacked(path: Path, out: Path, stages: StageStore | None = None) -> Unpacked | None:
    """Return the data set as files, which are written if they were not before; None where it is a folder or a table.

    Args:
        path: of the data set.
        out: folder of runs, whose store takes what has to be written.
        stages: the store of a run, which notes that the files are used, and checks that they are whole.

    Raises:
        DataError: it cannot be read.
        OutputError: there is no room, or the store cannot be written.
    """
    try:
        package = _package(path)
    except PermissionError:
        package = None  # listing the folder will say it
    if package is None:
        return None
    try:
        folder = _stage(package, path, stages or StageStore(out / "stages"), is_checked=stages is not None) / _FILES
    except (OSError, DiskFull) as error:
        reason = "the disk is full" if is_full_disk(error) else getattr(error, "strerror", None) or error
        raise OutputError(
            f"--out must be a folder that {path} can be unpacked to, got {str(out)!r} ({reason}). Make room, or choose "
            "another --out."
        ) from error
    if package.place is None and (inside := unpacked(folder, out, stages)):  # an archive of tables with images
        return replace(inside, name=package.name)
    holds_images = any(entry.is_dir() for entry in entries(folder))
    return Unpacked(folder, package.name, None if holds_images else package.place)


def notes_of_unpacking(path: Path, folder: Path) -> list[str]:
    """Return what is to be told of a data set that was written as files into ``folder``, a sentence each."""
    said: list[str] = json.loads((folder.parent / _NOTES).read_text(encoding="utf-8"))
    return [*said, *(left_out_of(path) if path.is_dir() else ())]


def _package(path: Path) -> _Package | None:
    """Return what has to be unpacked of a path, or of the only folder in it."""
    if path.is_file() and is_archive(path.name):
        return _Package([path], stem_of(path.name), lambda into: unpack(path, into))
    place = path
    while place.is_dir() and len(inside := list(entries(place))) == 1 and inside[0].is_dir():
        place = place / inside[0].name
    shards = find_shards(place) if place.is_dir() or place.is_file() else None
    if shards is None:
        return None
    name, place = (path.stem, path.parent) if path.is_file() else (path.name, place)
    return _Package(shards.files, name, lambda into: write_files(shards, into), place)


def _stage(package: _Package, path: Path, store: StageStore, *, is_checked: bool) -> Path:
    cache = store.root / "contents" / f"{digest_of([str(path.resolve()), _KIND])}.json"
    names = [file.name for file in package.sources]
    key = {"contents": contents_of(package.sources, cache), "version": _VERSION}
    if package.place is not None:  # names of shards say which split they are of
        key["names"] = names

    def make(work: Path) -> None:
        (work / _FILES).mkdir()
        write_json(work / _NOTES, package.write(work / _FILES))

    if is_checked or not store.has(_KIND, key):
        store.get_or_make(_KIND, key, make)
    return store.folder(_KIND, key)
