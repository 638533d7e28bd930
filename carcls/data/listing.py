"""Listing folders the way data sets are unpacked: hidden files and archive litter do not count."""

from __future__ import annotations

import os
from pathlib import Path

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly inside, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if _counts(entry.name) and entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """Return the names of the image files directly inside, by extension in any case, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _counts(entry.name) and is_image(entry.name))


def holds_images(folder: Path) -> bool:
    """Tell whether an image file lies directly inside."""
    with os.scandir(folder) as entries:
        return any(_counts(entry.name) and is_image(entry.name) for entry in entries)


def is_image(name: str) -> bool:
    """Tell by its extension whether a file is an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 - a Path per file doubles the listing's time


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in _LITTER
