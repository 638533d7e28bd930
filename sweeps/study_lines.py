"""The lines of a journal: JSON objects, each with a sum of itself and of the sum before it.

So a line that a disk changed, lost, doubled or put elsewhere is noticed: the sums from there on do not follow each
other. Only lines that are missing at the very end cannot be. All that is read of a journal is read here.

Each line says by the name of its sum what the sum covers: ``sum`` covers the line and the sum before it; ``crc``, which
older versions wrote, covers the line alone.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from carcls.errors import InputError
from carcls.outcome import Measurement

# The metric that the line of an epoch holds for Optuna, and what it holds besides: the whole measurement.
OBJECTIVE, MEASURED = "val_accuracy", "measured"
_SEALED = re.compile(rb'(.*),"(sum|crc)":"([0-9a-f]{8})"\}\n', re.DOTALL)


def sealed(logs: Iterable[Mapping[str, Any]], before: int = 0) -> tuple[bytes, int]:
    """Return the lines of ``logs`` after a line with the sum ``before``, and the sum of the last one.

    Whoever reads a line as JSON finds one more key, ``sum``.

    >>> sealed([{"op_code": 0}])
    (b'{"op_code":0,"sum":"0dd5bba7"}\\n', 232111015)
    """
    lines = []
    for log in logs:
        plain = {name: value for name, value in log.items() if name not in ("sum", "crc")}
        text = json.dumps(plain, separators=(",", ":"))
        before = zlib.crc32(text.encode(), before)
        lines.append(f'{text[:-1]},"sum":"{before:08x}"}}\n'.encode())
    return b"".join(lines), before


def whole_lines(file: BinaryIO, before: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield each whole line from where ``file`` stands, and its sum; not the half line that a killed writer left.

    Args:
        file: a journal, at the beginning of a line.
        before: the sum of the line before it; 0 at the beginning.

    Raises:
        ValueError: a line is not what was written there; says what was found in its place.
    """
    for line in file:
        if line.endswith(b"\n"):
            before = _sum_of(line, before)
            yield line, before
        elif _is_changed_at_the_end(line, before):
            raise ValueError("it has another end")


def _sum_of(line: bytes, before: int) -> int:
    found = _SEALED.fullmatch(line)
    if found is None:
        raise ValueError("it has no sum")
    total = zlib.crc32(found[1] + b"}", before if found[2] == b"sum" else 0)
    if total != int(found[3], 16):
        raise ValueError("its sum is another one")
    return total


def _is_changed_at_the_end(line: bytes, before: int) -> bool:
    """Tell whether only the end of the line is missing, because something stands in its place.

    Not so zeros, which a file system leaves of what it had no time to write.
    """
    if line.endswith(b"\0"):
        return False
    try:
        _sum_of(line[:-1] + b"\n", before)
    except ValueError:
        return False
    return True


class EpochHistory(Sequence[Measurement]):
    """The measurements of a trial, oldest first, each epoch once; read from the journal when they are looked at.

    So what a driver holds does not grow with the epochs of its trials.

    Args:
        journal: the file.
        places: where the lines of the epochs begin, in bytes.
    """

    def __init__(self, journal: Path, places: Sequence[int]) -> None:
        self._journal, self._places = journal, tuple(places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Measurement: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Measurement, ...]: ...

    def __getitem__(self, index: int | slice) -> Measurement | tuple[Measurement, ...]:
        """Read one epoch, or some.

        Raises:
            InputError: the journal was written anew in the meantime.
        """
        if isinstance(index, slice):
            return tuple(self._read(self._places[index]))
        return next(self._read([self._places[index]]))

    def __iter__(self) -> Iterator[Measurement]:
        return self._read(self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((self._journal, self._places))

    def _read(self, places: Iterable[int]) -> Iterator[Measurement]:
        with self._journal.open("rb") as file:
            for place in places:
                file.seek(place)
                try:
                    yield measurement_in(json.loads(file.readline()))
                except (ValueError, KeyError, TypeError):
                    raise InputError(
                        f"{self._journal.name} must stay as it is while it is read, got one that was written anew at "
                        f"{self._journal}. Give the command again."
                    ) from None


def is_epoch(log: Mapping[str, Any]) -> bool:
    """Tell whether a line is of an epoch."""
    return "intermediate_value" in log


def measured_in(measurement: Measurement) -> dict[str, Any]:
    """Return what the line of an epoch holds besides; the inverse of ``measurement_in``."""
    said = {"metrics": measurement.metrics, "trained": measurement.trained}
    return {**said, "stages": measurement.stages} if measurement.stages else said


def measurement_in(log: Mapping[str, Any]) -> Measurement:
    """Return the measurement of an epoch's line; older versions wrote no more of it than the accuracy."""
    measured = log.get(MEASURED) or {"metrics": {OBJECTIVE: log["intermediate_value"]}, "trained": True}
    return Measurement(log["step"], measured["metrics"], measured["trained"], measured.get("stages", {}))
