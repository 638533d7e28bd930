"""Values in words."""

from __future__ import annotations

import doctest
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from sweeps import tables, text

ROOT = Path(__file__).resolve().parents[2]
SHOWN = [
    path for pattern in ("sweeps/*.py", "sweeps/spec/*.py") for path in ROOT.glob(pattern) if ">>>" in path.read_text()
]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_examples_hold(path: Path) -> None:
    """What the docstrings of writers, of other base modules and of specs show is what the functions return."""
    outcome = doctest.testmod(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert outcome.attempted > (10 if path.name == "text.py" else 0)
    assert outcome.failed == 0


@pytest.mark.parametrize("width", [40, 200])
def test_only_columns_that_fold_take_more_lines(width: int) -> None:
    """Numbers stand at the right of their column, and a long cell folds where the width is short."""
    rows = [["7", "a few words [and] more of them"], ["12", "one"]]
    lines = tables.lines_of(tables.Grid(["trial", "what"], rows, words=["what"], fold=["what"]), width=width)
    assert lines[:2] == ["trial  what", "    7  a few words [and] more of them"]
    assert lines[-1] == "   12  one"


@pytest.mark.parametrize("width", [12, 20, 30, 50])
def test_no_letter_is_lost_at_any_width(width: int) -> None:
    """Where the width is short columns that should not fold do, rather than to show half a number."""
    rows = [["all-20261128-204122-transfer", "100.0% ±12.5", "1 min 15 s"], ["b", "7.0%", "2 s"]]
    grid = tables.Grid(["sweep", "accuracy", "time"], rows, words=["sweep"], fold=["sweep"])
    shown, whole = (Counter("".join(tables.lines_of(grid, width=w)).replace(" ", "")) for w in (width, 200))
    assert shown == whole
    assert max(map(len, tables.lines_of(grid, width=width))) <= width


@pytest.mark.parametrize("width", range(30, 100, 3))
def test_columns_that_fold_beside_one_that_does_not_lose_no_letter(width: int) -> None:
    """What the fixed column takes is left out of what the others share."""
    rows = [["search.augmentation_strength", "{low: 0.0001, high: 0.01, log: true}", "{low: 0.0005, high: 0.01}"]]
    grid = tables.Grid(["", "cars-transfer", "demo-all-transfer"], rows, fold=["cars-transfer", "demo-all-transfer"])
    shown, whole = (Counter("".join(tables.lines_of(grid, width=w)).replace(" ", "")) for w in (width, 200))
    assert shown == whole
    assert max(map(len, tables.lines_of(grid, width=width))) <= width


def test_a_column_is_a_key_in_json_and_a_cell_in_tables() -> None:
    """What is not known is null and a dash; a column without a title is in JSON only."""
    columns = [
        tables.Column("half", lambda number: number / 2 if number else None, "half", text.percent),
        tables.Column("name", str, "name", cell=lambda number: f"number {number}", is_word=True),
        tables.Column("odd", lambda number: number % 2 == 1),
    ]
    shown = [column for column in columns if column.title]
    assert [tables.json_of(columns, number) for number in (0, 1)] == [
        {"half": None, "name": "0", "odd": False},
        {"half": 0.5, "name": "1", "odd": True},
    ]
    assert tables.lines_of(tables.table_of(shown, [0, 1])) == [" half  name", "    –  number 0", "50.0%  number 1"]


@pytest.mark.parametrize(
    "size", ["5000", "20GBx", "20 GB/s", "20GB and more", "1-30GB", "2000.1.GB", "0.5kB", "-1GB", "9kbit"]
)
def test_what_is_no_size_is_refused(size: str) -> None:
    """Nothing of a size is left unread, and one without a unit was hardly meant in bytes."""
    with pytest.raises(ValueError, match="disk must be a size in kB"):
        text.parse_size("disk", size)
