"""The journal of a study: lines of JSON in one file, each with a sum of itself and of the sum before it.

So a line that a disk changed, lost, doubled or put elsewhere is noticed: the sums from there on do not follow each
other. Only lines that are missing at the very end cannot be. All that is read of a journal is read here.

Each line says by the name of its sum what the sum covers: ``sum`` covers the line and the sum before it; ``crc``, which
older versions wrote, covers the line alone. Older versions wrote through Optuna's storage; ours has the same lines, by
the same names, but those that only Optuna reads.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from carcls.errors import InputError, OutputError
from carcls.outcome import Measurement
from sweeps.trial import OBJECTIVE

JOURNAL = "study.journal"
# Waiting for each of the lines of a trial takes longer than all else that the study does.
SYNC_SECONDS = 0.25
_SEALED = re.compile(rb'(.*),"(sum|crc)":"([0-9a-f]{8})"\}\n', re.DOTALL)


def sealed(log: Mapping[str, Any], before: int = 0) -> tuple[bytes, int]:
    """Return the line of ``log`` after a line with the sum ``before``, and its own sum.

    Whoever reads a line as JSON finds one more key, ``sum``.

    >>> sealed({"study_id": 0})
    (b'{"study_id":0,"sum":"5cf043ab"}\\n', 1559249835)
    """
    text = json.dumps(log, separators=(",", ":"))
    total = zlib.crc32(text.encode(), before)
    return f'{text[:-1]},"sum":"{total:08x}"}}\n'.encode(), total


def _whole_lines(file: BinaryIO, before: int = 0) -> Iterator[tuple[bytes, int]]:
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

    def __getitem__(self, index: Any) -> Any:
        """Read one epoch, or a tuple of some.

        Raises:
            InputError: the journal was written anew in the meantime.
        """
        places = self._places[index]
        return tuple(self._read(places)) if isinstance(index, slice) else next(self._read([places]))

    def __iter__(self) -> Iterator[Measurement]:
        return self._read(self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

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


def measurement_in(log: Mapping[str, Any]) -> Measurement:
    """Return the measurement of an epoch's line; the oldest versions wrote no more of it than the accuracy."""
    measured = log.get("measured") or {"metrics": {OBJECTIVE: log["intermediate_value"]}, "trained": True}
    return Measurement(log["step"], measured["metrics"], measured["trained"], measured.get("stages", {}))


class Journal:
    """The file, read on from where it was read to, and written at its end by one driver.

    A process that dies loses no line. A machine that stops may lose what was written in the last moments: after each
    SYNC_SECONDS at most the next line is waited for until all of the file is on the disk.

    Args:
        path: of the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = -math.inf
        self._lines = self._end = 0  # what was read of it, in lines and in bytes
        self._sum = 0  # of the last of these lines
        if not path.exists():
            path.open("ab").close()

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the whole lines that were not read yet, and where each begins, in bytes.

        Raises:
            InputError: the journal is damaged.
        """
        with self.path.open("rb") as file:
            file.seek(self._end)
            try:
                for line, total in _whole_lines(file, self._sum):
                    begin, log = self._end, json.loads(line)
                    self._lines, self._end, self._sum = self._lines + 1, begin + len(line), total
                    yield begin, log
            except ValueError as error:
                raise InputError(
                    f"{self.path.name} must be as carsweep wrote it, got a damaged one at {self.path} (line "
                    f"{self._lines + 1}: {error}). Put a copy of it back, or keep the lines before the damage (head -n "
                    "LINES) and run the sweep again: what they tell is not run twice."
                ) from None

    def cut(self) -> None:
        """Cut off the half line at the end that a writer left when it was killed; only its driver may.

        All whole lines must have been read.
        """
        if self._end < self.path.stat().st_size:
            os.truncate(self.path, self._end)

    def append(self, log: Mapping[str, Any]) -> None:
        """Write a line at the end, which is read like any other; all lines before it must have been read.

        Raises:
            OutputError: there is no room.
        """
        line, _ = sealed(log, self._sum)
        with self.path.open("ab", buffering=0) as file:
            begin = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if time.monotonic() - self._synced >= SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
            except OSError as error:
                file.truncate(begin)  # half a line would spoil all that come after it
                raise OutputError(
                    f"the sweep's journal must be written, got {error.strerror!r} for {str(self.path)!r}. "
                    "Make room there; then run the same command with the sweep's --name: nothing is lost."
                ) from None

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with self.path.open("ab", buffering=0) as file:
            os.fsync(file.fileno())
