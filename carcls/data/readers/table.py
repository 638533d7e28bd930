"""A table of images, alone or in a folder: paths and labels, and where it has them splits, boxes and groups.

In a folder it is ``metadata.csv`` (or .jsonl, .parquet, …), there or in its folders of splits, as Hugging Face has it;
or the only table there that names images and labels; or one for each split, such as ``train.csv`` and ``test.csv``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from carcls.data.boxes import as_boxes, box_columns
from carcls.data.config import DataConfig
from carcls.data.files import Folder, entries, is_image, list_folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of, split_named
from carcls.data.table_rows import (
    FLAGS,
    Source,
    are_flags,
    notes_of,
    outside_note,
    relative,
    require_few_wrong,
    rows_of,
    usable,
    where_is,
    with_endings,
    without_unlabelled,
)
from carcls.data.tables import HUGGING_FACE, ID_COLUMNS, PATH_COLUMNS, column_names, is_table, plain, read_table
from carcls.errors import DataError

_LABELS = ("label", "class", "category", "target", "species", "variety")
_SPLITS = ("split", "subset", "partition", "set", "dataset", *FLAGS)
_BARE_FLAGS = tuple(flag.removeprefix("is") for flag in FLAGS)
_GROUPS = ("group", "groupid")


def read_file(path: Path, config: DataConfig) -> tuple[Folder, Manifest] | None:
    """Read a table of images that lie beside it, or in the folder that the config names; None where it is no table."""
    if not (is_table(path.name) and path.is_file()):  # a pipe would be waited for
        return None
    source = _source(path, ".", None, config)
    root = _images_folder(config) or path.parent
    if config.images:
        folder = list_folder(root)
    else:
        folder = _beside(root, {relative(cell, ".", root) for cell in source.table.columns[source.path]})
    return folder, _manifest(folder, [source], config)


def _read(folder: Folder, config: DataConfig) -> Manifest | None:
    """None where no table of the folder has paths and labels."""
    found = _tables_in(folder, config)
    if not found:
        return None
    root = _images_folder(config)
    sources = [_source(folder.path / name, "." if root else place, own, config) for name, place, own in found]
    if root is None:
        return _manifest(folder, sources, config, is_found=True)
    return _manifest(list_folder(root), sources, config)


def _tables_in(folder: Folder, config: DataConfig) -> list[tuple[str, str, Split | None]]:
    """Return the tables that name images and labels: relative path, where their paths begin, and their split."""
    here = [name for name in folder.others if _names_images(folder.path / name, config)]
    own = [name for name in here if Path(name).stem.lower() == "metadata"]
    if len(own) == 1 or len(here) == 1:
        return [((own or here)[0], ".", None)]
    inside: list[tuple[str, str, Split | None]] = [
        (f"{place}/{name}", place, split)
        for place, below in folder.folders.items()
        if (split := split_named(place))
        for name in below.others
        if Path(name).stem.lower() == "metadata" and _names_images(below.path / name, config)
    ]
    if inside and not here:
        return inside
    splits = [split_named(Path(name).stem) for name in here]
    if here and None not in splits and len(set(splits)) == len(splits):
        return [(name, ".", split) for name, split in zip(here, splits, strict=True)]
    if here:
        raise DataError(
            f"data path must be one table where several name images, got {', '.join(here[:5])} in "
            f"{str(folder.path)!r}. Give one of them, such as --data {folder.path / here[0]}."
        )
    return []


def _names_images(path: Path, config: DataConfig) -> bool:
    """Tell whether a file is a table with columns of paths and labels."""
    if not (is_table(path.name) and path.is_file()):
        return False
    try:
        names = column_names(path)
    except DataError:
        return False  # not for us
    if path.name == HUGGING_FACE:
        return True
    if config.label in names:
        return bool(_named(names, (*PATH_COLUMNS, *ID_COLUMNS)))
    return bool(_named(names, PATH_COLUMNS)) and bool(_labels(names))


def _images_folder(config: DataConfig) -> Path | None:
    if config.images is None:
        return None
    folder = Path(os.path.abspath(Path(config.images).expanduser()))  # noqa: PTH100 - tidies ..
    if not folder.is_dir():
        raise DataError(
            f"data.images must be the folder that the table's paths begin in, got {str(folder)!r}, which is none. "
            "Check the spelling of --images."
        )
    return folder


def _source(path: Path, place: str, own: Split | None, config: DataConfig) -> Source:
    head = column_names(path)
    if any(map(is_image, head)):
        shown = ", ".join(head[:5])
        raise DataError(f"{path} must begin with the names of its columns, got {shown}. Write path, label, … above.")
    table = read_table(path)
    names = list(table.columns)
    paths, splits, groups = (_named(names, known) for known in ((*PATH_COLUMNS, *ID_COLUMNS), _SPLITS, _GROUPS))
    if not paths:
        shown = ", ".join(names[:10]) or "nothing"
        raise DataError(f"{path} must have a column path, got {shown}. Name the column of the images in its head.")
    splits += [name for name in _named(names, _BARE_FLAGS) if are_flags(table.columns[name])]
    split = splits[0] if splits and any(table.columns[splits[0]]) else None
    label = _label_column(path, names, config)
    return Source(table, place, own, paths[0], label, split, groups[0] if groups else None, box_columns(table))


def _label_column(path: Path, names: Sequence[str], config: DataConfig) -> str:
    shown = "the data set of Hugging Face's" if path.name == HUGGING_FACE else str(path)
    if config.label is not None:
        if config.label not in names:
            raise DataError(
                f"data.label must be a column of {shown}, got {config.label!r}. It has: {', '.join(names)}."
            )
        return config.label
    found = _labels(names)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{shown} must have one column of labels, got {', '.join(found)}. Say which: --set data.label={found[0]}"
        )
    known = {*_named(names, (*PATH_COLUMNS, *ID_COLUMNS, *_SPLITS, *_GROUPS)), ""}
    others = [name for name in names if name not in known]
    raise DataError(
        f"{shown} must have a column label, got {', '.join(names[:10]) or 'nothing'}. Name it so, or say which it is: "
        f"--set data.label={others[0] if len(others) == 1 else 'NAME'}"
    )


def _labels(names: Sequence[str]) -> list[str]:
    """Return the columns that may have the labels, the names of classes before their numbers.

    >>> _labels(["path", "class", "class_name"]), _labels(["label", "class"]), _labels(["fine_label", "coarse_label"])
    (['class_name'], ['label', 'class'], ['fine_label', 'coarse_label'])
    """
    for endings in (("name", "text"), ("",)):
        if found := _named(names, [label + ending for label in _LABELS for ending in endings]):
            return found
    return [name for name in names if plain(name).endswith(("label", "class", "category"))]


def _named(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those columns that have known names, in the order of these."""
    return [name for one in known for name in names if plain(name) in (one, f"{one}s")]


def _beside(root: Path, paths: set[str]) -> Folder:
    """List what a table names of the folder that it lies in: folders of images, and itself if it has some.

    A table may lie beside anything, such as all that somebody ever downloaded, which would take long to list.
    """
    tops = sorted({path.partition("/")[0] for path in paths if "/" in path and not path.startswith(("/", "../"))})
    folders = {name: list_folder(root / name) for name in tops if (root / name).is_dir()}
    beside = [entry for entry in entries(root) if entry.is_file()] if any("/" not in path for path in paths) else []
    files = [entry.name for entry in beside]
    linked = [name for name in tops if (root / name).is_symlink()] + [e.name for e in beside if e.is_symlink()]
    links = tuple(name for name in linked if not (root / name).resolve().is_relative_to(root.resolve()))
    images, others = (tuple(sorted(name for name in files if is_image(name) == kind)) for kind in (True, False))
    return Folder(root, images, others, folders, links)


def _manifest(folder: Folder, sources: Sequence[Source], config: DataConfig, *, is_found: bool = False) -> Manifest:
    wrong = [(line, where_is(source, line), why) for source in sources for line, why in source.table.broken]
    rows, unlabelled = without_unlabelled([row for source in sources for row in rows_of(folder, source, wrong)])
    rows = list(usable(folder, with_endings(folder, rows), wrong))
    wrong.sort()
    names, total = ", ".join(source.table.path.name for source in sources), len(rows) + len(wrong)
    require_few_wrong(folder.path, wrong, total, names, config.max_loss, is_found=is_found)
    boxes = as_boxes({row.where: row.corners for row in rows if row.corners})
    annotations = [Annotation(row.path, row.label, row.split, boxes.get(row.where), row.group) for row in rows]
    # The order of a table's rows says nothing.
    annotations.sort(key=lambda row: (row.path, row.box or ()))
    tables = [Path(os.path.relpath(source.table.path, folder.path)).as_posix() for source in sources]
    notes = [*unlabelled, *notes_of(sources, wrong, total, names), *outside_note(annotations)]
    return manifest_of(
        folder,
        annotations,
        layout="Hugging Face" if names == HUGGING_FACE else f"the table {names}",
        companions=tables,
        notes=notes,
    )


READER = Reader(
    "a table of paths and labels",
    _read,
    rank=1,
    settings=("images", "label"),
    read_file=read_file,
)
