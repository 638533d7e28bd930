"""Tables as data sets come with them: CSV as programs and spreadsheets write it, TSV, JSON lines and Parquet, as text.

They are read as data alone: nothing in them is executed.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from carcls.errors import DataError

_LONGEST_HEAD = 1_000_000
HUGGING_FACE = "hugging_face.csv"
"""The table of a data set of Hugging Face's whose images were written as files."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PATH_COLUMNS = (
    *("path", "filepath", "imagepath", "imgpath", "file", "filename", "image", "img", "imagename", "imagefile"),
    *("imagefilename", "imgname", "fname"),
)
"""What columns of paths are called, in small letters without spaces and marks."""
ID_COLUMNS = ("imageid", "imgid", "fileid", "id")
"""What columns are called whose cells are names of files without what they end in."""
_PARTED_BY = re.compile(r'"?sep=(.)"?\s*$')


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text.

    Attributes:
        path: of the file.
        columns: cells by the name of their column, as the file spells it; an empty text is no value.
        lines: where in the file each row begins, from 1; of Parquet the number of the row.
        unit: what ``lines`` counts: ``line`` or ``row``.
        broken: lines that are no rows, and why.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    unit: str = "line"
    broken: Sequence[tuple[int, str]] = field(default=())


def is_table(name: str) -> bool:
    """Tell by its suffix whether a file is a table."""
    return name.lower().endswith(SUFFIXES)


def plain(name: str) -> str:
    """Return the name of a column in small letters, without spaces and marks.

    >>> plain("File Name"), plain("bbox_x1")
    ('filename', 'bboxx1')
    """
    return re.sub(r"[\W_]+", "", name.lower())


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns; of JSON lines those of its first line.

    Raises:
        DataError: it is no such table.
    """
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    if path.suffix.lower() in (".csv", ".tsv"):
        return next(csv_records(path), (1, list[str]()))[1]
    _, first = next(_json_lines(path), (0, None))
    return list(first) if isinstance(first, dict) else []


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        DataError: it cannot be read, or is no such table.
    """
    suffix = path.suffix.lower()
    return (
        _read_parquet(path) if suffix == ".parquet" else (_read_csv if suffix in (".csv", ".tsv") else _read_json)(path)
    )


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV with the lines that they begin at, the names of its columns first.

    Cells are parted by what its first line has most of: commas, semicolons (as spreadsheets of many countries have
    them), tabs or bars; or by what a line ``sep=;`` above says, as Excel writes it.

    Raises:
        DataError: it is no text in UTF-8, or in UTF-16 with its mark.
    """
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            head = file.readline(_LONGEST_HEAD)
            if len(head) == _LONGEST_HEAD:
                raise csv.Error(f"its first line has over {_LONGEST_HEAD // 1000:,} kB")
            split = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=head.count)
            if "\0" in head:
                raise csv.Error("it has bytes of zero, as UTF-16 has")
            told = _PARTED_BY.match(head)
            if not told:
                file.seek(0)
            before = 1 if told else 0
            reader = csv.reader(file, delimiter=told[1] if told else split, strict=True)
            line = before + 1
            for cells in reader:
                yield line, [cell.strip() for cell in cells]
                line = before + reader.line_num + 1
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} must be a table of text ({_reason(error)}). Save it as CSV in UTF-8.") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _read_csv(path: Path) -> Table:
    records = csv_records(path)
    names = next(records, (1, list[str]()))[1]
    cells: list[list[str]] = [[] for _ in names]
    lines, broken = list[int](), list[tuple[int, str]]()
    for line, record in records:
        if not any(record):
            continue
        if len(record) < len(names) or any(record[len(names) :]):
            broken.append((line, f"it has {len(record)} cells, not {len(names)}"))
            continue
        lines.append(line)
        for column, cell in zip(cells, record, strict=False):
            column.append(cell)
    return Table(path, _by_name(path, names, cells), lines, broken=broken)


def _read_json(path: Path) -> Table:
    rows, lines, broken = list[dict[str, Any]](), list[int](), list[tuple[int, str]]()
    for line, value in _json_lines(path):
        if isinstance(value, dict):
            rows.append(value)
            lines.append(line)
        else:
            broken.append((line, "it is no JSON object"))
    if broken and not rows:
        raise DataError(
            f'{path} must have a JSON object a line, such as {{"path": "a.jpg", "label": "A"}}, got none. Write it so.'
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(path, {name: [as_text(row.get(name)) for row in rows] for name in names}, lines, broken=broken)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield what the lines say, None for one that is no JSON."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _json_of(text)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} must be JSON lines ({_reason(error)}). Write an object a line, in UTF-8.") from error


def _json_of(text: str) -> Any:
    """Return what a line says; None where it is no JSON, or has half a character."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError):
        return None


def _read_parquet(path: Path) -> Table:
    """Read the columns of texts, numbers and truth values; the others are empty."""
    file = _parquet(path)
    _require_once(path, file.schema_arrow.names)
    simple = [field.name for field in file.schema_arrow if is_simple(field.type)]
    cells: dict[str, list[str]] = {name: [] for name in file.schema_arrow.names}
    try:
        for batch in file.iter_batches(columns=simple):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                cells[name] += map(as_text, column.to_pylist())
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
        raise DataError(f"{path} must be a Parquet file ({_reason(error)}). Fetch it again.") from error
    rows = int(file.metadata.num_rows)
    columns = {name: cells[name] if name in simple else [""] * rows for name in cells}
    return Table(path, columns, range(1, rows + 1), "row")


def _parquet(path: Path) -> Any:
    # Here because pyarrow takes half a second to import.
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, buffer_size=1 << 20)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be a Parquet file ({_reason(error)}). Fetch it again.") from error


def is_simple(kind: Any) -> bool:
    """Tell whether an Arrow type has texts, numbers or truth values."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    texts, numbers = (types.is_string, types.is_large_string), (types.is_integer, types.is_floating, types.is_decimal)
    return any(test(kind) for test in (*texts, *numbers, types.is_boolean))


def as_text(value: Any) -> str:
    """Return a value as a cell; a whole number is written as one, and nothing is empty.

    >>> [as_text(value) for value in (3, 3.0, 0.5, None, float("nan"), " Audi ")]
    ['3', '3', '0.5', '', '', 'Audi']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, default=str)


def _by_name(path: Path, names: Sequence[str], cells: Sequence[list[str]]) -> dict[str, list[str]]:
    named = [(name, column) for name, column in zip(names, cells, strict=True) if name or any(column)]
    _require_once(path, [name for name, _ in named])
    return dict(named)


def _require_once(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} must have a name for each column, got {twice!r} twice. Rename one of them.")


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split())[:200]
