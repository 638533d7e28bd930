"""Which files are images, and what a folder holds: everything below it, listed once; no file is opened.

Folders are listed the way data sets are unpacked: hidden files, archive litter and folders of runs do not count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

HEIF = "HEIF"
HEIF_EXTENSIONS = (".heic", ".heif", ".heics", ".heifs", ".hif")
"""What phones and cameras write, and Pillow reads where ``pillow-heif`` is installed."""

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    **({HEIF: HEIF_EXTENSIONS} if find_spec("pillow_heif") else {}),
}
"""The formats that are read: Pillow's names of them, and the extensions that their files have.

Pillow knows some forty. Those that nobody photographs in are not tried, whatever a file's extension says: one of them
hands the file to another program (EPS to Ghostscript), and each is code that a broken file could trip.
"""
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN"})


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with everything below it.

    Attributes:
        path: absolute.
        images: names of the image files directly inside, sorted.
        others: names of the other files directly inside, sorted.
        folders: those directly inside, by name, sorted.
        links: names of the links directly inside that lead out of the folder that was listed.
    """

    path: Path
    images: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    folders: Mapping[str, Folder] = field(default_factory=dict)
    links: tuple[str, ...] = ()

    def walk(self) -> Iterator[Folder]:
        """Yield the folder, and then all that are below it, in the order of their names."""
        yield self
        for child in self.folders.values():
            yield from child.walk()

    def below(self, path: str) -> Folder | None:
        """Return a folder by its relative path with forward slashes, ``.`` being this one; None where it is not."""
        found: Folder | None = self
        for name in path.split("/"):
            found = found if name == "." or found is None else found.folders.get(name)
        return found

    def has(self, path: str) -> bool:
        """Tell whether there is such a file, by its relative path with forward slashes."""
        parent, _, name = path.rpartition("/")
        folder = self.below(parent or ".")
        return folder is not None and (name in folder.others or name in folder.images)

    def first(self, name: str, places: tuple[str, ...] = (".",)) -> Path | None:
        """Return the file of this name in the first of the places, relative folders, that has it."""
        return next((self.path / place / name for place in places if self.has(f"{place}/{name}")), None)

    @property
    def holds_images(self) -> bool:
        """Whether there is an image in it or below it."""
        return any(folder.images for folder in self.walk())


def list_folder(root: Path, *, deep: bool = True) -> Folder:
    """List a folder. Links are followed, but for those that lead back to a folder above.

    Args:
        root: absolute.
        deep: False lists the folder and those directly in it, and those as if they held no folders.

    Raises:
        PermissionError: a folder cannot be read.
    """
    real = os.path.realpath(root)
    return _list(root, (real,), real, -1 if deep else 1)


def _list(path: Path, way: tuple[str, ...], real: str, depth: int) -> Folder:
    """List a folder whose own place is ``real``, below the folders of ``way``, the first of which is the root.

    Folders ``depth`` below are taken as if they held no folders; -1 is any depth.
    """
    images, others, children, links = list[str](), list[str](), dict[str, str](), list[str]()
    for entry in entries(path):
        is_link, is_folder = entry.is_symlink(), _is_folder(entry)
        there = os.path.realpath(entry.path) if is_link else f"{real}{os.sep}{entry.name}"
        if is_folder and (there in way or Path(way[0]).is_relative_to(there) or _is_of_runs(entry.path)):
            continue
        if is_link and not Path(there).is_relative_to(way[0]):
            links.append(entry.name)
        if is_folder and depth:
            children[entry.name] = there
        elif is_folder:
            continue
        else:
            (images if is_image(entry.name) else others).append(entry.name)
    folders = {name: _list(path / name, (*way, children[name]), children[name], depth - 1) for name in sorted(children)}
    return Folder(path, tuple(sorted(images)), tuple(sorted(others)), folders, tuple(sorted(links)))


def is_image(name: str) -> bool:
    """Tell by its extension whether a file is an image of one of our formats."""
    return extension_of(name) in EXTENSIONS


def extension_of(name: str) -> str:
    """Return the extension of a file's name, in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path doubles the listing's time


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what counts of a folder's content."""
    with os.scandir(folder) as found:
        yield from (entry for entry in found if not entry.name.startswith(".") and entry.name not in _LITTER)


def _is_of_runs(folder: str) -> bool:
    """Tell whether sweeps write into a folder: what they have drawn or unpacked there is no data of who starts them."""
    return os.path.exists(f"{folder}/stages/log.jsonl")  # noqa: PTH110 - a Path doubles the listing's time


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself
