"""What a folder holds: the first layout that it has, its images, and what of it is left out.

Another layout is one more module in ``carcls/data/readers/``, or one more ``Reader`` in ``READERS``.
"""

from __future__ import annotations

import os
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path, PurePath

from carcls.data import readers
from carcls.data.config import DataConfig
from carcls.data.files import FORMATS, HEIF, HEIF_EXTENSIONS, Folder, extension_of, is_image, list_folder
from carcls.data.manifest import Manifest
from carcls.data.readers import Reader
from carcls.data.tables import SUFFIXES
from carcls.errors import DataError

_MODULES = (import_module(f"{readers.__name__}.{module.name}") for module in pkgutil.iter_modules(readers.__path__))
READERS: list[Reader] = [module.READER for module in _MODULES if hasattr(module, "READER")]
"""Those of a lower rank are asked first, of the folder and of each folder inside; others in their order."""

_DOCUMENTS = ("readme", "license", "licence", "copying", "citation", "changelog")
_REMEDIES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "Save it as CSV."),
    ".json": "Write an object a line, as .jsonl.",
}
_OPTIONAL = ("depth", "level", "images", "label")


def read_layout(root: Path, config: DataConfig | None = None) -> Manifest:
    """Detect the layout of ``root`` and list its images; none is read, so that there is no digest.

    Args:
        root: a folder of one of the layouts, or one that holds one such; or a table of images.
        config: how it is meant; None leaves everything to its files.

    Raises:
        DataError: ``root`` is missing, another file, empty, of no known layout, has fewer than 2 classes, or its
            annotations cannot be used.
    """
    root, config = Path(os.path.abspath(Path(root).expanduser())), config or DataConfig()  # noqa: PTH100 - tidies ..
    if not root.exists():
        raise DataError(
            f"data path must exist, got {str(root)!r}. Check the spelling, or leave out --data for the demo."
        )
    try:
        folder, listed = _read_folder(root, config) if root.is_dir() else _read_file(root, config)
    except PermissionError as error:
        raise DataError(f"data path must be readable, got {error.filename!r}. Change its permissions.") from error
    if len(listed.classes) < 2:
        raise DataError(
            f"data must have at least 2 classes, got {len(listed.classes)} in {str(listed.root)!r}. "
            "Give the folder that holds the class folders."
        )
    _require_text(listed)
    # A table that somebody gives may name files anywhere, and its reader has looked for them.
    missing = _missing(folder, listed, config) if root.is_dir() else ()
    return replace(listed, notes=(*missing, *_left_out(folder, listed), *listed.notes, *_links(folder)))


def _require_text(listed: Manifest) -> None:
    """Check that the names of images and folders are text, which models, tables and people are to be told."""
    wrong = [image.path for image in listed.images if not image.path.isprintable() and not _is_text(image.path)]
    if wrong:
        shown = os.fsencode(wrong[0]).decode("utf-8", "backslashreplace")
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise DataError(
            f"names of images and their folders must be UTF-8, got '{shown}'{more} in {str(listed.root)!r}. Rename "
            "them, such as with: convmv -r -f latin1 -t utf8 --notest FOLDER."
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_folder(root: Path, config: DataConfig) -> tuple[Folder, Manifest]:
    folder = list_folder(root)
    reader, listed = _detect(folder, config)
    if reader.rank > 0:
        listed = replace(listed, notes=(*_above(folder), *listed.notes))
    # A table may name images of another folder.
    return folder if listed.root.is_relative_to(root) else list_folder(listed.root), listed


def _read_file(path: Path, config: DataConfig) -> tuple[Folder, Manifest]:
    for reader in READERS:
        if reader.read_file and (found := reader.read_file(path, config)):
            _require_understood(reader, found[1], config)
            return found
    raise DataError(
        f"data path must be a folder, a table ({', '.join(SUFFIXES)}) or an archive (.zip, .tar, .tar.gz, …), got the "
        f"file {str(path)!r}. {_REMEDIES.get(extension_of(path.name), 'Give its folder, or unpack it.')}"
    )


def _above(folder: Folder) -> Iterator[str]:
    """Say that the folder above is a published data set, whose splits and boxes nobody finds from here."""
    with suppress(OSError, DataError):
        parent = list_folder(folder.path.parent, deep=False)
        around = replace(parent, folders={**parent.folders, folder.path.name: folder})
        published = [reader for reader in READERS if reader.rank == 0]
        if found := _first(published, around, DataConfig()):
            above, layout = parent.path, found[1].layout
            yield f"{above.name}/ above it is {layout}, with its own splits: --data {str(above)!r}."


def _detect(folder: Folder, config: DataConfig) -> tuple[Reader, Manifest]:
    """Read a folder, else the only one in it that has a layout; what anything looks like is tried last."""
    for rank in sorted({reader.rank for reader in READERS}):
        asked = [reader for reader in READERS if reader.rank == rank]
        for places in _places(folder):
            found = [listed for place in places if (listed := _first(asked, place, config))]
            if len(found) > 1:
                raise DataError(_several(folder, [listed.root.name for _, listed in found], rank))
            if found:
                return found[0]
    raise DataError(_unknown_layout(folder))


def _places(folder: Folder) -> Iterator[list[Folder]]:
    """Yield the folder, then those in it; where that is only one, as archives wrap data, those in that, and so on."""
    places = [folder]
    while places:
        yield places
        places = list(places[0].folders.values()) if len(places) == 1 else []


def _first(asked: Sequence[Reader], folder: Folder, config: DataConfig) -> tuple[Reader, Manifest] | None:
    """Return what a folder holds in the first of the layouts that it has."""
    for reader in asked:
        if listed := reader.read(folder, config):
            _require_understood(reader, listed, config)
            return reader, listed
    return None


def _require_understood(reader: Reader, listed: Manifest, config: DataConfig) -> None:
    for name in _OPTIONAL:
        if getattr(config, name) != DataConfig.model_fields[name].default and name not in reader.settings:
            raise DataError(
                f"data.{name} must be left out for {listed.layout}, got {getattr(config, name)!r}. Leave it out."
            )


def _several(folder: Folder, names: Sequence[str], rank: int) -> str:
    said = f"data path must hold one data set, got {len(names)} in {str(folder.path)!r} ({', '.join(names[:5])})."
    if rank < 3:
        return f"{said} Give one of them."
    return f"{said} Give one of them; or say data.depth=1 if these are the classes, data.depth=2 if those in them are."


def _unknown_layout(folder: Folder) -> str:
    *most, last = (reader.what for reader in sorted(READERS, key=lambda reader: reader.rank))
    looked_for = f"{', '.join(most)}, or {last}; in the folder itself or in the only such folder inside it"
    if not folder.folders and not folder.images and not folder.others:
        return f"data path must hold images, got the empty folder {str(folder.path)!r}. Looked for {looked_for}."
    found, flat = ", ".join([*folder.folders, *folder.others][:5]), _flat(folder)
    if folder.images:
        found = "images without class folders"
    elif flat:
        shown = f"{', '.join(flat[:5])}{', …' if len(flat) > 5 else ''}"
        found = f"images beside each other in {shown}, no names of classes (data.depth=1 if they are)"
    return (
        f"data path must be in a known layout, got {str(folder.path)!r} with {found}. Looked for {looked_for}."
        + _hint(extension_of(name) for place in folder.walk() for name in place.others)
    )


def _hint(extensions: Iterable[str]) -> str:
    """Say what would read some of the files that are no images here."""
    is_readable = HEIF not in FORMATS and any(extension in HEIF_EXTENSIONS for extension in extensions)
    return " HEIC images are read after: pip install 'carsweep[heic]'." if is_readable else ""


def _flat(folder: Folder) -> list[str]:
    """Return the first folders that directly hold images, relative to ``folder``."""
    found = (
        [place.path.relative_to(folder.path).as_posix() for place in places if place.images]
        for places in _places(folder)
    )
    return next(filter(None, found), [])


def _missing(folder: Folder, listed: Manifest, config: DataConfig) -> Iterator[str]:
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


def _left_out(folder: Folder, listed: Manifest) -> Iterator[str]:
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
        left_out = sum(others.values())
        most = sorted(others, key=lambda extension: (-others[extension], extension))[:3]
        kinds = ", ".join(f"{others[extension]} {extension or 'without one'}" for extension in most)
        verb, by, no = ("is", "its", "it is no image") if left_out == 1 else ("are", "their", "they are no images")
        yield (
            f"{left_out:,} of {total:,} files {verb} left out: by {by} extension "
            f"({kinds}{', …' if len(others) > 3 else ''}) {no} of {', '.join(FORMATS)}."
            f"{_hint(others)}"
        )
    if unused:
        verb, they = ("is", "it is") if len(unused) == 1 else ("are", "they are")
        shown = os.path.relpath(unused[0], folder.path)
        yield (
            f"{len(unused):,} of {total:,} files {verb} left out: {they} not among the images of "
            f"{listed.layout or 'this layout'}, such as {shown!r}."
        )


def _links(folder: Folder) -> Iterator[str]:
    """Say how many links lead out of the data set."""
    found = [place.path / name for place in folder.walk() for name in place.links]
    if found:
        verb = "link was" if len(found) == 1 else "links were"
        shown = f"{str(found[0].relative_to(folder.path))!r} to {os.path.realpath(found[0])!r}"
        yield f"{len(found):,} {verb} followed out of the folder, such as {shown}."
