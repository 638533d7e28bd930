"""Values in words."""

from __future__ import annotations

import doctest

import pytest

from sweeps import text


def test_examples_of_every_writer_hold() -> None:
    """What the docstrings show is what the functions return."""
    outcome = doctest.testmod(text)
    assert outcome.attempted > 10
    assert outcome.failed == 0


@pytest.mark.parametrize("width", [40, 200])
def test_only_columns_that_fold_take_more_lines(width: int) -> None:
    """Numbers stand at the right of their column, and a long cell folds where the width is short."""
    rows = [["7", "a few words [and] more of them"], ["12", "one"]]
    lines = text.lines_of(text.table(["trial", "what"], rows, words=["what"], fold=["what"]), width=width)
    assert lines[:2] == ["trial  what", "    7  a few words [and] more of them"]
    assert lines[-1] == "   12  one"


def test_narrow_tables_keep_every_letter() -> None:
    """A column that folds loses nothing."""
    drawn = text.table(["trial", "what"], [["7", "abcdefghijkl"]], words=["what"], fold=["what"])
    assert text.lines_of(drawn, width=14, indent="  ") == [
        "  trial  what",
        "      7  abcde",
        "         fghij",
        "         kl",
    ]
