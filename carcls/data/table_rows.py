"""Rows of tables of images: checked one by one, and those that cannot be used told by their lines."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carcls.data.boxes import BoxColumns, Numbers, corners_of
from carcls.data.files import Folder, is_image
from carcls.data.manifest import Split
from carcls.data.readers import Annotation, split_named
from carcls.data.tables import Table, plain
from carcls.errors import DataError

_MOST_LINES = 10
_ODD = re.compile(r"^/|\\|//|(?:^|/)\.{1,2}(?:/|$)")
_CONTROL = re.compile(r"[\x00-\x1f]")
_NESTED = {"[]": "a list", "{}": "an object"}
_ELSEWHERE = re.compile(r"there is no file '(/|[A-Za-z]:)")
FLAGS: dict[str, tuple[Split, Split]] = {
    **dict.fromkeys(("istrain", "istraining"), ("train", "test")),
    **dict.fromkeys(("isval", "isvalid", "isvalidation"), ("validation", "train")),
    "istest": ("test", "train"),
}
"""The splits that yes and no mean in columns called so, as ``plain`` has them; and so without ``is``."""
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
Wrong = list[tuple[int, str, str]]
"""The line of a row, what names it, and why it is left out."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table, where its paths begin relative to the root, and the split of its rows where its name or place says it.

    ``path``, ``label``, … are the names of its columns.
    """

    table: Table
    place: str
    own: Split | None
    path: str
    label: str
    split: str | None
    group: str | None
    box: BoxColumns | None

    def unread(self) -> list[str]:
        """Return the columns that mean nothing here."""
        read = {self.path, self.label, self.split, self.group, *(self.box.names if self.box else ())}
        return [name for name in self.table.columns if name and name not in read]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table: what names it, and what it says."""

    line: int
    where: str
    path: str
    label: str
    split: Split
    group: str
    corners: Numbers | None


def relative(cell: str, place: str, root: Path) -> str:
    """Return a path of a table relative to the root; one that leads out of it keeps leading there."""
    if not _ODD.search(cell):  # the others take seconds of a hundred thousand
        return cell if place == "." else f"{place}/{cell}"
    cell = cell.replace("\\", "/")  # as Windows writes them
    if os.path.isabs(cell):  # noqa: PTH117 - as normpath
        return os.path.normpath(cell).removeprefix(f"{root}/")
    return os.path.normpath(f"{place}/{cell}")


def where_is(source: Source, line: int) -> str:
    """Name a row."""
    return f"{source.table.unit} {line} of {source.table.path.name}"


def rows_of(folder: Folder, source: Source, wrong: Wrong) -> Iterator[TableRow]:
    """Yield the rows of a table, but those that say nothing that could be used, which are added to the wrong ones."""
    table, splits = source.table, dict[str, Split | None]()
    blank = [""] * len(table.lines)
    paths, labels = table.columns[source.path], table.columns[source.label]
    said = table.columns[source.split] if source.split else blank
    groups = table.columns[source.group] if source.group else blank
    boxes = zip(*(table.columns[name] for name in source.box.names), strict=True) if source.box else None
    for line, path, label, word, group in zip(table.lines, paths, labels, said, groups, strict=True):
        where, cells = where_is(source, line), next(boxes) if boxes else ()
        if word not in splits:
            splits[word] = _split_of(word, plain(source.split or ""))
        split = splits[word] if source.split else source.own or "train"
        if why := _unusable(path, label):
            wrong.append((line, where, why))
            continue
        if split is None:
            wrong.append((line, where, f"its split {word!r} is none of train, validation, test"))
            continue
        try:
            corners = corners_of(source.box, cells) if source.box else None
        except ValueError as error:
            wrong.append((line, where, str(error)))
            continue
        yield TableRow(line, where, relative(path, source.place, folder.path), label, split, group, corners)


def _unusable(path: str, label: str) -> str:
    """Say why a row's path and label are none; an empty text where they may be.

    >>> _unusable("a.jpg", "Audi A4"), _unusable("a.jpg", '["Audi", "BMW"]')
    ('', 'its label ["Audi", "BMW"] is a list: give one')
    """
    if not path:
        return "it names no file"
    if "://" in path:
        return f"{path!r} is an address: fetch its image and name the file"
    if kind := _NESTED.get(label[:1] + label[-1:]):
        return f"its label {label} is {kind}: give one"
    return f"its label {label!r} has control characters" if _CONTROL.search(label) else ""


def are_flags(cells: Iterable[str]) -> bool:
    """Tell whether all cells of a column say yes or no."""
    return {cell.lower() for cell in cells} <= {*_YES, *_NO}


def _split_of(word: str, column: str) -> Split | None:
    """Return the split that a cell means.

    >>> _split_of("val", "split"), _split_of("0", "istrain"), _split_of("True", "valid"), _split_of("", "istest")
    ('validation', 'test', 'validation', None)
    """
    column = f"is{column.removeprefix('is')}"
    if column not in FLAGS:
        return split_named(word)
    yes, no = FLAGS[column]
    return yes if word.lower() in _YES else no if word.lower() in _NO else None


def with_endings(folder: Folder, rows: Sequence[TableRow]) -> list[TableRow]:
    """Complete names that lack what the one image of that name ends in, as tables of ids have them."""
    ends: dict[str, str | None] = {}
    for place in folder.walk() if any(not is_image(row.path) for row in rows) else ():
        inside = place.path.relative_to(folder.path).as_posix()
        for name in place.images:
            path = name if inside == "." else f"{inside}/{name}"
            bare = path[: path.rindex(".")]
            ends[bare] = None if bare in ends else path
    return [row if is_image(row.path) else replace(row, path=ends.get(row.path) or row.path) for row in rows]


def without_unlabelled(rows: list[TableRow]) -> tuple[list[TableRow], list[str]]:
    """Leave out splits that have no label at all, as test splits of competitions are; return what is said of them."""
    labelled = {row.split for row in rows if row.label}
    counts = Counter(row.split for row in rows if row.split != "train" and row.split not in labelled)
    notes = [f"{split} is left out: none of its {count:,} images has a label." for split, count in counts.items()]
    return [row for row in rows if row.split not in counts], notes


def usable(folder: Folder, rows: Sequence[TableRow], wrong: Wrong) -> Iterator[TableRow]:
    """Yield the rows whose files are there, once each; the others are added to the wrong ones."""
    listed = set[str]()
    for place in folder.walk():
        inside = place.path.relative_to(folder.path).as_posix()
        listed.update(name if inside == "." else f"{inside}/{name}" for name in (*place.images, *place.others))
    first = dict[tuple[str, Numbers | None], TableRow]()
    for row in rows:
        before = first.setdefault((row.path, row.corners), row)
        if not row.label:
            wrong.append((row.line, row.where, "it has no label"))
        elif row.path not in listed and not Path(folder.path, row.path).is_file():
            wrong.append((row.line, row.where, f"there is no file {row.path!r}"))
        elif before is not row:
            other = f", as {before.label!r}" if before.label != row.label else ""
            wrong.append((row.line, row.where, f"{row.path!r} is in {before.where} already{other}"))
        else:
            yield row


def require_few_wrong(root: Path, wrong: Wrong, total: int, names: str, max_loss: float, *, is_found: bool) -> None:
    """Check that enough of a table's rows can be used.

    Args:
        root: that paths begin in.
        wrong: rows that cannot be used.
        total: how many rows there are.
        names: of the tables.
        max_loss: share of the rows that may be wrong.
        is_found: whether the table was found in a folder; nobody named it.

    Raises:
        DataError: too many are wrong, or there is none; the first are named with their reasons.
    """
    if total and len(wrong) < total and len(wrong) <= max_loss * total:
        return
    if not total:
        raise DataError(f"{names} must have a row for each image, got none. Write a line for each.")
    shown = "; ".join(f"{where}: {why}" for _, where, why in wrong[:3])
    more = f" (and {len(wrong) - 3:,} more)" if len(wrong) > 3 else ""
    if len(wrong) == total and all(why.startswith("there is no file") for *_, why in wrong):
        remedy = f"Paths begin in {str(root)!r}: say --images FOLDER where they begin elsewhere."
        if all(_ELSEWHERE.match(why) for *_, why in wrong):
            remedy = "They are paths of another machine: write them relative to the table, or to --images FOLDER."
        remedy += " If the folders are meant, move the table away." if is_found else ""
    else:
        remedy = "Mend them, or raise data.max_loss."
    raise DataError(
        f"rows of {names} must be wrong in at most {100 * max_loss:g}%, got {len(wrong):,} of {total:,}: "
        f"{shown}{more}. {remedy}"
    )


def notes_of(sources: Sequence[Source], wrong: Wrong, total: int, names: str) -> Iterator[str]:
    """Say which rows are left out, and which columns mean nothing here."""
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        yield f"{len(wrong):,} of {total:,} rows of {names} {verb} left out."
        yield from (f"left out: {where} ({why})" for _, where, why in wrong[:_MOST_LINES])
        if len(wrong) > _MOST_LINES:
            yield f"… and {len(wrong) - _MOST_LINES:,} more of its rows."
    for source in sources:
        if unread := source.unread():
            verb = "column is" if len(unread) == 1 else "columns are"
            shown = f"{', '.join(unread[:8])}{' …' * (len(unread) > 8)}"
            yield f"{len(unread):,} {verb} not read in {source.table.path.name}: {shown}."


def outside_note(rows: Sequence[Annotation]) -> Iterator[str]:
    """Say how many images lie outside the folder that paths begin in."""
    found = [row.path for row in rows if row.path.startswith(("/", "../"))]
    if found:
        verb = "image lies" if len(found) == 1 else "images lie"
        yield f"{len(found):,} {verb} outside the folder of the images, such as {found[0]!r}."
