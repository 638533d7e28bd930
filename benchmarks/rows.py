"""What every benchmark writes: rows of what was measured, against which target, by which command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FIELDS: dict[str, tuple[type, ...]] = {
    "what": (str,),
    "target": (str,),
    "value": (str, int, float),
    "met": (bool, type(None)),
    "runs": (int,),
    "command": (str,),
    "reason": (str,),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: was measured.
        target: in words, with its sign and unit.
        value: what came out, with its unit.
        met: whether the target was; None where this run cannot judge it, such as a short one.
        runs: how many runs of each side the value is the median of.
        command: that measures it again.
        reason: why the target was missed or not judged; empty where it was met.
        lines: of growth: ``x`` and ``y`` name the axes, ``points`` has the lines by name; drawn beside the table.
    """

    what: str
    target: str
    value: str | float
    met: bool | None
    runs: int
    command: str
    reason: str = ""
    lines: Mapping[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        row = asdict(self)
        return row if self.lines else {name: row[name] for name in FIELDS}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list.

    Raises:
        ValueError: a row lacks what it must have.
    """
    plain = [row.plain() for row in rows]
    check_rows(plain)
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what a benchmark wrote.

    Raises:
        ValueError: it is no list of rows, or a row lacks what it must have.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"rows must be a list, got {type(rows).__name__} in {path.name}.")
    check_rows(rows)
    return rows


def check_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError, naming all mistakes, unless every row has every field, and a reason where it is not met."""
    mistakes = [mistake for row in rows for mistake in _mistakes(row)]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _mistakes(row: Mapping[str, Any]) -> list[str]:
    name = str(row.get("what") or row)
    found = [f"{name}: {field} is missing." for field in FIELDS if field not in row]
    found += [
        f"{name}: {field} must be {' or '.join(kind.__name__ for kind in kinds)}, got {row[field]!r}."
        for field, kinds in FIELDS.items()
        if field in row and (not isinstance(row[field], kinds) or (field == "runs" and row[field] < 1))
    ]
    if not found and row["met"] is not True and not row["reason"]:
        found.append(f"{name}: reason must say why the target was not met or not judged, got nothing.")
    if not found and not all(row[field] for field in ("what", "target", "command")):
        found.append(f"{name}: what, target and command must not be empty.")
    return found
