"""What a folder holds: the first layout that it has, its images, and what of it is left out.

Another layout is one more module in ``carcls/data/readers/``, or one more ``Reader`` in ``READERS``.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from carcls.data import readers
from carcls.data.archives import is_archive
from carcls.data.config import DataConfig
from carcls.data.files import Folder, extension_of, list_folder
from carcls.data.left_out import heic_hint, left_out, links, missing_images
from carcls.data.manifest import Manifest
from carcls.data.readers import Reader, are_no_classes, split_named, words_beside_split
from carcls.data.tables import SUFFIXES, is_table
from carcls.errors import DataError

_MODULES = (import_module(f"{readers.__name__}.{module.name}") for module in pkgutil.iter_modules(readers.__path__))
READERS: list[Reader] = [module.READER for module in _MODULES if hasattr(module, "READER")]
"""Those of a lower rank are asked first, of the folder and of each folder inside; others in their order."""

_REMEDIES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "Save it as CSV."),
    ".json": 'Write an object a line, as .jsonl: {"path": "a.jpg", "label": "A"}; boxes as x, y, width, height.',
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
            f"data must have at least 2 classes, got {len(listed.classes)} in {str(root)!r}. "
            + ("Give the folder that holds the class folders." if root.is_dir() else "Add rows of another class.")
        )
    _require_text(listed)
    _require_training(listed, config)
    # A table that somebody gives may name files anywhere, and its reader has looked for them.
    missing = missing_images(folder, listed, config) if root.is_dir() else ()
    return replace(listed, notes=(*_twins(listed), *missing, *left_out(folder, listed), *listed.notes, *links(folder)))


def _require_training(listed: Manifest, config: DataConfig) -> None:
    """Check that every class has images to train on: those of validation train where others are cut."""
    splits = ("train", "validation") if config.validation == "cut" else ("train",)
    trained = {image.label for image in listed.images if image.split in splits}
    if lacking := [image for image in listed.images if image.label not in trained]:
        (label, split), others = (lacking[0].label, lacking[0].split), len({image.label for image in lacking}) - 1
        more = f" (and {others} more such {'class' if others == 1 else 'classes'})" if others else ""
        twins = (name for row, name in enumerate(listed.classes) if row in trained)
        twin = next((name for name in twins if _bare(name) == _bare(listed.classes[label])), "")
        raise DataError(
            f"{split} classes must have training images, got {listed.classes[label]!r} only in {split}, such as "
            f"{lacking[0].path}{more}. Add training images, or take them out of {split}."
            f"{f' Training has {twin!r}: rename one.' if twin else ''}"
        )


def _twins(listed: Manifest) -> Iterator[str]:
    """Say that two classes may be one, by their names."""
    first: dict[str, str] = {}
    found = [(first.setdefault(_bare(name), name), name) for name in listed.classes]
    if twins := [pair for pair in found if pair[0] != pair[1]]:
        verb = "pair of classes differs" if len(twins) == 1 else "pairs of classes differ"
        yield f"{len(twins):,} {verb} by case or spaces alone: {twins[0][0]!r} and {twins[0][1]!r}."


def _bare(name: str) -> str:
    """Return a class's name without what typing makes of it: case, underscores, and spaces at its ends or doubled."""
    return " ".join(name.replace("_", " ").casefold().split())


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
    """Say that a folder above is a published data set, whose splits and boxes nobody finds from here, or has splits."""
    published, around = [reader for reader in READERS if reader.rank == 0], folder
    with suppress(OSError):
        for above in folder.path.parents[:-1][:2]:
            parent = list_folder(above, deep=False)
            around = replace(parent, folders={**parent.folders, around.path.name: around})
            with suppress(DataError):
                if (found := _first(published, around, DataConfig())) and _has_part(found[1], folder):
                    yield f"{above.name}/ above it is {found[1].layout}, with its own splits: --data {str(above)!r}."
                    return
            if above == folder.path.parent and (other := _other_split(folder, parent)):
                yield f"{other}/ beside it is another split of the same data: --data {str(above)!r}."
                return


def _other_split(folder: Folder, parent: Folder) -> str | None:
    """Return the folder of another split beside one: of the same name but for the split, with no code in it."""
    mine, rest = split_named(folder.path.name), words_beside_split(folder.path.name)
    if not mine or any(split_named(name) not in (mine, None) for name in folder.folders):
        return None
    beside = (name for name, inside in parent.folders.items() if not inside.others and words_beside_split(name) == rest)
    return next((name for name in beside if split_named(name) not in (mine, None)), None)


def _has_part(listed: Manifest, folder: Folder) -> bool:
    """Tell whether a data set's images or other files lie in a folder below it."""
    place, paths = f"{folder.path}/", (*(image.path for image in listed.images), *listed.companions)
    return any(f"{listed.root}/{path}".startswith(place) for path in paths)


def _detect(folder: Folder, config: DataConfig) -> tuple[Reader, Manifest]:
    """Read a folder, else the only one in it that has a layout; what anything looks like is tried last."""
    for rank in sorted({reader.rank for reader in READERS}):
        asked = [reader for reader in READERS if reader.rank == rank]
        for places in _places(folder):
            read = [(place, _first(asked, place, config)) for place in places]
            found = [listed for _, listed in read if listed]
            of_none = [place.path.name for place, listed in read if rank == 3 and not listed and _is_deep(place)]
            if found and len(found) + len(of_none) > 1:
                raise DataError(_several(folder, [*(listed.root.name for _, listed in found), *of_none], rank))
            if found:
                return found[0]
    if config.depth and folder.holds_images:
        raise DataError(
            f"data.depth must be how many folders deep classes are in {str(folder.path)!r}, got {config.depth}, where "
            "none hold images. Say less, or leave it out."
        )
    if part := next(_above(folder), None):
        raise DataError(f"data path must be a whole data set, got a part of one, {str(folder.path)!r}. {part}")
    raise DataError(_unknown_layout(folder))


def _is_deep(place: Folder) -> bool:
    """Tell whether images lie in it that are neither in it nor in its folders, so that these may be makes of models."""
    return place.holds_images and not any(inside.images for inside in (place, *place.folders.values()))


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
    if not folder.folders and not folder.images and not folder.others:
        return f"data path must hold images, got the empty folder {str(folder.path)!r}.{_remedy(folder)}"
    found, flat = ", ".join([*folder.folders, *folder.others][:5]), _flat(folder)
    if found_below := _deeper(folder):
        return (
            f"data path must hold one data set, in it or in the only folder in it, got {str(folder.path)!r}, which has "
            f"one deeper: {found_below.layout}. Give its folder: --data {str(found_below.root)!r}."
        )
    if depth := _unsaid_depth(folder):
        return depth
    if not folder.holds_images:
        found = f"{found}, but no image below it"
    elif folder.images:
        found = "images without class folders"
    elif flat:
        shown = f"{', '.join(flat[:5])}{', …' if len(flat) > 5 else ''}"
        found = f"images beside each other in {shown}, which are no classes (data.depth=1 if they are)"
    published = {reader.what for reader in READERS if not reader.rank}
    common = dict.fromkeys(reader.what for reader in sorted(READERS, key=lambda reader: -reader.rank) if reader.rank)
    return (
        f"data path must be in a known layout, got {str(folder.path)!r} with {found}. Looked for {', '.join(common)}, "
        f"{len(published)} published data sets (docs/data.md)."
        + _remedy(folder)
        + heic_hint(extension_of(name) for place in folder.walk() for name in place.others)
    )


def _remedy(folder: Folder) -> str:
    """Say what may be meant, or what to make of images that nothing tells the classes of."""
    given = next((name for name in folder.others if is_archive(name)), None)
    given = given or next((name for name in folder.others if is_table(name)), None)
    if not folder.holds_images:
        return f" If they are in {given}: --data {str(folder.path / given)!r}." if given else ""
    if given and is_table(given):
        return f" If {given} has their labels: --data {str(folder.path / given)!r} --images FOLDER."
    if annotations := next((name for name in folder.others if name.lower().endswith(".coco.json")), None):
        return f" {annotations} is not read. {_REMEDIES['.json']}"
    return " Put images into folders of their classes, or name them in a table."


def _deeper(folder: Folder) -> Manifest | None:
    """Return the first data set below a folder that its own files or split folders give away."""
    asked = [reader for reader in READERS if reader.rank in (0, 2)]
    for place in folder.walk():
        with suppress(DataError):
            if found := _first(asked, place, DataConfig()):
                return found[1]
    return None


def _unsaid_depth(folder: Folder) -> str:
    """Say that images lie several folders deep, so that nobody knows which are the classes; empty where they do not."""
    inside = [child for child in folder.folders.values() if child.holds_images]
    if len(inside) == 1 and not folder.images:
        return _unsaid_depth(inside[0])
    depths = [len(place.path.relative_to(folder.path).parts) for place in folder.walk() if place.images]
    names = [child.path.name for child in inside]
    if min(depths, default=0) < 2 or are_no_classes(names):
        return ""
    if are_no_classes([name for child in inside for name in child.folders]):
        below = next(iter(inside[0].folders))
        return (
            f"splits must hold the folders of their classes, got {str(folder.path)!r} with {names[0]}/{below}/. Make "
            f"it {below}/{names[0]}/ and so on, or say data.depth=1 to cut other splits."
        )
    return (
        f"classes must be one of the levels of folders, got images {min(depths)} folders deep in {str(folder.path)!r}. "
        f"Give that folder and say data.depth=1 if {', '.join(names[:2])} are the classes, up to "
        f"data.depth={min(depths)}."
    )


def _flat(folder: Folder) -> list[str]:
    """Return the first folders that directly hold images, relative to ``folder``."""
    found = (
        [place.path.relative_to(folder.path).as_posix() for place in places if place.images]
        for places in _places(folder)
    )
    return next(filter(None, found), [])
