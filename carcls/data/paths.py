"""The images that people name: files, folders, tables of paths, and lists that another program writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from carcls.data.files import extension_of, list_folder
from carcls.data.tables import PATH_COLUMNS, csv_records, plain
from carcls.errors import InputError

LIST = "-"
"""The word for a list on stdin."""


def require_images(words: Sequence[str], lines: Iterable[str] | None = ()) -> None:
    """Check what can be checked of the words without reading an image.

    Args:
        words: as of ``images_named``.
        lines: stands for ``-``; None where there is no stdin.

    Raises:
        InputError: none of them exists, a table has no column of paths, or nothing can be read for ``-``.
    """
    if LIST in words and lines is None:
        raise InputError("- must be a list on stdin, which is closed. Pipe one into it, or name a .csv.")
    if not any(word == LIST or Path(word).expanduser().exists() for word in words):
        raise InputError(
            f"PATH must name images, folders, a .csv or - for a list on stdin, got {', '.join(map(repr, words[:3]))}, "
            "which is not there. Check the spelling."
        )
    for path in (Path(word).expanduser() for word in words if _is_table(word)):
        if path.is_file():
            next(_paths_in(path), None)


def images_named(words: Sequence[str], lines: Iterable[str], others: Counter[str]) -> Iterator[str]:
    """Yield the paths of the images that words name, in their order, as they are asked for; none is opened.

    Args:
        words: a file, whatever it is; a folder, of which all images in it and in its folders are meant, hidden ones
            left out; a ``.csv`` with a column ``path``, ``image`` or the like, relative to its folder; ``-``.
        lines: stands for ``-``, a path each.
        others: counts the files in folders that are no images, by extension.
    """
    for word in words:
        path = Path(word).expanduser()
        if word == LIST:
            yield from filter(None, (line.rstrip("\r\n") for line in lines))
        elif path.is_dir():
            for folder in list_folder(path.absolute()).walk():
                others.update(map(extension_of, folder.others))
                yield from (str(path / folder.path.relative_to(path.absolute()) / name) for name in folder.images)
        elif _is_table(word) and path.is_file():
            yield from _paths_in(path)
        else:
            yield str(path)


def _paths_in(table: Path) -> Iterator[str]:
    """Yield what a table's column of paths says, relative to its folder.

    Raises:
        InputError: it has no such column, or is no text.
    """
    records = csv_records(table)
    _, names = next(records, (1, []))
    known = [plain(name) for name in names]
    place = next((known.index(name) for name in PATH_COLUMNS if name in known), None)
    if place is None:
        raise InputError(
            f"{table} must have a column path, image or filename in its first line, got "
            f"{', '.join(names) or 'nothing'}. Name the column."
        )
    for _, row in records:
        if named := row[place] if len(row) > place else "":
            yield str(table.parent / named)


def _is_table(word: str) -> bool:
    return Path(word).suffix.lower() == ".csv"
