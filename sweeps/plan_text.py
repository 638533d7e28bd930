"""Times, sizes and tables in plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from carcls.errors import shown


def seconds_text(seconds: float) -> str:
    """Return a duration in words, to the precision that a rough estimate deserves.

    >>> [seconds_text(s) for s in (0.2, 42, 130, 5000, 200_000)]
    ['0 s', '42 s', '2 min', '1 h 23 min', '56 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 36_000:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 3600:.0f} h"


def bytes_text(size: float) -> str:
    """Return a size in words.

    >>> [bytes_text(s) for s in (0, 20_000, 3_400_000, 2_160_000_000)]
    ['-', '20 kB', '3.4 MB', '2.2 GB']
    """
    if size <= 0:
        return "-"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            amount = size / unit
            return f"{amount:.1f} {name}" if amount < 10 else f"{amount:.0f} {name}"
    return f"{size:.0f} B"


def parse_bytes(name: str, text: str) -> int:
    """Return the bytes of a size such as ``20GB`` or ``1.5 TiB``.

    Raises:
        ValueError: it is none; the message begins with ``name``.

    >>> [parse_bytes("disk", text) for text in ("20GB", "1.5 kb", "2MiB")]
    [20000000000, 1500, 2097152]
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt])(i?)b", text.strip().lower())
    size = 0
    if match is not None:
        amount, unit, binary = match.groups()
        exact = float(amount) * (1024 if binary else 1000) ** ("kmgt".index(unit) + 1)
        size = int(exact) if exact < 2**63 else 0
    if size <= 0:
        raise ValueError(f"{name} must be a size in kB, MB, GB or TB, got {shown(text)}. Give one such as 20GB.")
    return size


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, indented by two, the columns aligned."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
