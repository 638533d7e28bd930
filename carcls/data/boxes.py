"""Boxes in tables: which columns have them, and whether their numbers are pixels or fractions of an image's sides."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carcls.data.manifest import Box
from carcls.data.tables import Table, plain
from carcls.errors import DataError

_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_SIDES = tuple(
    (x, y, *sides)
    for x, y in (("x", "y"), ("x1", "y1"), ("xmin", "ymin"), ("left", "top"))
    for sides in (("width", "height"), ("w", "h"))
)
_PREFIXES = ("boundingbox", "bbox", "box")
# How far the sum of rounded fractions may exceed 1.
_SLACK = 1e-3
# Of 1,024 nobody knows whether it is a thousand.
_DECIMAL_COMMA = re.compile(r"(?<=^0),(?=\d+$)|(?<=\d),(?=\d+$)(?!\d{3}$)")
Numbers = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxColumns:
    """The columns of a table's boxes: two corners, or a corner and the box's sides."""

    names: tuple[str, ...]
    has_sides: bool


def box_columns(table: Table) -> BoxColumns | None:
    """Return the columns of a table's boxes; None without any.

    Raises:
        DataError: some of the columns of a box are missing.
    """
    names = {_bare(name): name for name in reversed(list(table.columns))}
    for scheme in (*_CORNERS, *_SIDES):
        if all(name in names for name in scheme):
            return BoxColumns(tuple(names[name] for name in scheme), scheme in _SIDES)
    some = {name for scheme in _CORNERS for name in scheme} & names.keys()
    if len(some) > 1:
        found = ", ".join(names[name] for name in sorted(some))
        raise DataError(
            f"{table.path} must have all columns of its boxes, x1, y1, x2, y2 or x, y, width, height, got {found}. Add "
            "the others, or rename these."
        )
    return None


def corners_of(columns: BoxColumns, cells: Sequence[str]) -> Numbers | None:
    """Return a row's x1, y1, x2, y2, in whatever unit; None where all its cells are empty.

    Raises:
        ValueError: it is no box; says why.
    """
    if not any(cells):
        return None
    try:
        if "," in "".join(cells):
            cells = [_DECIMAL_COMMA.sub(".", cell) for cell in cells]
        x1, y1, third, fourth = map(float, cells)
    except ValueError:
        raise ValueError(f"its box ({', '.join(cells)}) has no four numbers") from None
    if columns.has_sides:
        third, fourth = x1 + third, y1 + fourth
    if not all(map(math.isfinite, (x1, y1, third, fourth))) or third <= x1 or fourth <= y1:
        raise ValueError(f"its box ({', '.join(cells)}) is empty")
    if third <= 0 or fourth <= 0:
        raise ValueError(f"its box ({', '.join(cells)}) lies outside the image")
    return x1, y1, third, fourth


def as_boxes(corners: Mapping[str, Numbers]) -> dict[str, Box]:
    """Return the boxes of rows: pixels, or fractions if no number exceeds 1.

    Args:
        corners: by what names a row, such as ``line 3 of cars.csv``.

    Raises:
        DataError: some rows seem to have fractions, and others pixels.
    """
    small = [row for row, box in corners.items() if max(box) <= 1 + _SLACK]
    if len(small) == len(corners):
        return {row: _fractions(box) for row, box in corners.items()}
    if small:
        large = next(row for row in corners if row not in small)
        raise DataError(
            f"boxes must be all in pixels or all in fractions of the image's width and height, got {corners[small[0]]} "
            f"in {small[0]} and {corners[large]} in {large}. Write all of them in one unit."
        )
    return {row: _pixels(box) for row, box in corners.items()}


def _fractions(box: Numbers) -> Box:
    x1, y1, x2, y2 = (min(1.0, max(0.0, float(edge))) for edge in box)
    return x1, y1, x2, y2


def _pixels(box: Numbers) -> Box:
    x1, y1, x2, y2 = box
    return math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)


def _bare(name: str) -> str:
    """Return the name of a column without what says that it is of a box."""
    bare = plain(name)
    return next((bare.removeprefix(prefix) for prefix in _PREFIXES if bare.startswith(prefix)), bare)
