"""Tables of things: each column is a property, which is a key of their JSON, too."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sweeps.text import DASH

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
    from rich.table import Table

UNLIMITED = 10_000  # characters of a line
_LEAST = 8  # of a column that folds
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Column(Generic[Thing]):
    """A property of things: a key of their JSON, and a column of a table of them.

    Attributes:
        key: in JSON.
        value: what JSON has.
        title: of the column; empty for a property that no table shows.
        write: a value as the table shows it; without a value it shows a dash.
        cell: what the table shows in the place of the value alone.
        is_word: whether the cells are words, which are left-aligned, or numbers.
        room: when the table shows it, in words of whoever draws it.
        was: its key in JSON until version 0.1, which this version writes beside the new one.
    """

    key: str
    value: Callable[[Thing], Any]
    title: str = ""
    write: Callable[[Any], str] = str
    cell: Callable[[Thing], str] | None = None
    is_word: bool = False
    room: str = ""
    was: str = ""

    def text(self, thing: Thing) -> str:
        """Return the cell of a thing."""
        if self.cell is not None:
            return self.cell(thing)
        value = self.value(thing)
        return DASH if value in (None, "") else self.write(value)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table that rich draws at any width, and no letter of it is lost.

    Attributes:
        header: names of the columns; without one the columns are words, and the last folds.
        rows: as many cells as columns.
        words: columns of words, which are left-aligned; the others are numbers, and right-aligned.
        fold: columns that take more lines where the width is short. The others do where that is not enough.
    """

    header: Sequence[str] | None
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    fold: Collection[str] = ()

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Give the table for the console's width."""
        from rich.table import Table
        from rich.text import Text

        lines = [*([] if self.header is None else [self.header]), *self.rows]
        if not lines:
            return
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        last = len(widths) - 1
        names = [*(self.header or [""] * len(widths))]
        folds = [name in self.fold if self.header else place == last for place, name in enumerate(names)]
        least = [min(width, _LEAST) if can else width for width, can in zip(widths, folds, strict=True)]
        fits = sum(least) + 2 * last <= options.max_width
        drawn = Table(box=None, pad_edge=False, header_style="bold", show_header=self.header is not None)
        for name, width, can in zip(names, least, folds, strict=True):
            justify: JustifyMethod = "left" if self.header is None or name in self.words else "right"
            least_width = width if fits else None
            # rich makes all columns narrower that may wrap, and then this one wide again: the table would be too wide
            stays = fits and not can
            drawn.add_column(Text(name), justify=justify, overflow="fold", min_width=least_width, no_wrap=stays)
        for row in self.rows:
            drawn.add_row(*map(Text, row))
        yield drawn


def json_of(columns: Iterable[Column[Thing]], thing: Thing) -> dict[str, Any]:
    """Return a thing as the object of its columns' keys."""
    return {key: column.value(thing) for column in columns for key in (column.key, column.was) if key}


def table_of(columns: Sequence[Column[Thing]], things: Iterable[Thing], *, fold: Collection[str] = ()) -> Grid:
    """Return a table with a row for each thing; ``fold`` names the keys of columns that fold."""
    rows = [[column.text(thing) for column in columns] for thing in things]
    words = [column.title for column in columns if column.is_word]
    return Grid([c.title for c in columns], rows, words, [c.title for c in columns if c.key in fold])


def lines_of(drawn: RenderableType, *, width: int = UNLIMITED, indent: str = "") -> list[str]:
    """Return a table, or whatever else rich draws, as lines of plain text without blanks at their ends."""
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width - len(indent), color_system=None, force_jupyter=False).print(drawn)
    return [f"{indent}{line}".rstrip() for line in file.getvalue().splitlines()]


def markdown_table(grid: Grid) -> str:
    """Return a table that has a header in Markdown.

    >>> print(markdown_table(Grid(["family", "test"], [["transfer", "80%"]])))
    | family | test |
    | --- | --- |
    | transfer | 80% |
    """
    header = list(grid.header or ())
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *grid.rows])
