"""Listing folders the way data sets are unpacked: hidden files and archive litter do not count."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from carcls.data.formats import EXTENSIONS

_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if _counts(entry.name) and _is_folder(entry))


def image_names(folder: Path) -> list[str]:
    """Return the names of the image files directly inside, by extension in any case, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _counts(entry.name) and is_image(entry.name))


def holds_images(folder: Path) -> bool:
    """Tell whether an image file lies directly inside."""
    with os.scandir(folder) as entries:
        return any(_counts(entry.name) and is_image(entry.name) for entry in entries)


def other_files(folder: Path) -> Counter[str]:
    """Count the files directly inside that are no images, by their extension."""
    with os.scandir(folder) as entries:
        others = [entry for entry in entries if _counts(entry.name) and not is_image(entry.name)]
        return Counter(_extension(entry.name) for entry in others if not _is_folder(entry))


def is_image(name: str) -> bool:
    """Tell by its extension whether a file is an image."""
    return _extension(name) in EXTENSIONS


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path per file doubles the listing's time


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:
        return False  # a link that leads to itself


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _LITTER
