"""What of a data set's files is not read: images that lists name and that are not there, other files, links."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from carcls.data.config import DataConfig
from carcls.data.files import FORMATS, HEIF, HEIF_EXTENSIONS, Folder, extension_of, is_image
from carcls.data.manifest import Manifest
from carcls.errors import DataError

_DOCUMENTS = ("readme", "license", "licence", "copying", "citation", "changelog")


def heic_hint(extensions: Iterable[str]) -> str:
    """Say what would read some of the files that are no images here."""
    is_readable = HEIF not in FORMATS and any(extension in HEIF_EXTENSIONS for extension in extensions)
    return " HEIC images are read after: pip install 'carsweep[heic]'." if is_readable else ""


def missing_images(folder: Folder, listed: Manifest, config: DataConfig) -> Iterator[str]:
    """Say how many images of the manifest are not below ``folder``.

    Raises:
        DataError: one would lie outside, or a split misses more than ``config.max_loss`` of its images.
    """
    there = {f"{place.path}/{name}" for place in folder.walk() for name in (*place.images, *place.others)}
    missing = [image for image in listed.images if f"{listed.root}/{image.path}" not in there]
    paths = (PurePath(image.path) for image in missing)
    outside = next((str(path) for path in paths if path.is_absolute() or ".." in path.parts), None)
    if outside:
        raise DataError(f"images must lie in {str(listed.root)!r}, got {outside!r} by its lists. Mend the lists.")
    for split, lost in Counter(image.split for image in missing).items():
        total = sum(image.split == split for image in listed.images)
        if lost > config.max_loss * total:
            first = next(image.path for image in missing if image.split == split)
            raise DataError(
                f"{split} images must be there, got {lost:,} of {total:,} missing in {str(listed.root)!r}, such as "
                f"{first!r}. Unpack all images there, or raise data.max_loss."
            )
    if missing:
        verb, they = ("is", "it is") if len(missing) == 1 else ("are", "they are")
        count = f"{len(missing):,} of {len(listed.images):,} images"
        yield f"{count} {verb} missing, such as {missing[0].path!r}: {they} left out."


def left_out(folder: Folder, listed: Manifest) -> Iterator[str]:
    """Say how many of the files below ``folder`` are no images of the manifest, and why; it counts every one."""
    used = {f"{listed.root}/{path}" for path in (*(image.path for image in listed.images), *listed.companions)}
    unused, others, total = list[str](), Counter[str](), 0
    for place in folder.walk():
        for name in (*place.images, *place.others):
            path = f"{place.path}/{name}"
            total += 1
            if path in used or (not is_image(name) and name.lower().startswith(_DOCUMENTS)):
                continue
            if is_image(name):
                unused.append(path)
            else:
                others[extension_of(name)] += 1
    if others:
        count = sum(others.values())
        most = sorted(others, key=lambda extension: (-others[extension], extension))[:3]
        kinds = ", ".join(f"{others[extension]} {extension or 'without one'}" for extension in most)
        verb, by, no = ("is", "its", "it is no image") if count == 1 else ("are", "their", "they are no images")
        yield (
            f"{count:,} of {total:,} files {verb} left out: by {by} extension "
            f"({kinds}{', …' if len(others) > 3 else ''}) {no} of {', '.join(FORMATS)}."
            f"{heic_hint(others)}"
        )
    if unused:
        verb, they = ("is", "it is") if len(unused) == 1 else ("are", "they are")
        shown = os.path.relpath(unused[0], folder.path)
        yield (
            f"{len(unused):,} of {total:,} files {verb} left out: {they} not among the images of "
            f"{listed.layout or 'this layout'}, such as {shown!r}."
        )


def links(folder: Folder) -> Iterator[str]:
    """Say how many links lead out of the data set."""
    found = [place.path / name for place in folder.walk() for name in place.links]
    if found:
        verb = "link was" if len(found) == 1 else "links were"
        shown = f"{str(found[0].relative_to(folder.path))!r} to {os.path.realpath(found[0])!r}"
        yield f"{len(found):,} {verb} followed out of the folder, such as {shown}."
