"""The journal of a study: lines of JSON in one file, each with a sum of itself and of the sum before it.

So a line that a disk changed, lost, doubled or put elsewhere is noticed: the sums from there on do not follow each
other. Only lines that are missing at the very end cannot be. All that is read of a journal is read here.

Each line says by the name of its sum what the sum covers: ``sum`` covers the line and the sum before it; ``crc``, which
older versions wrote, covers the line alone. Older versions wrote through Optuna's storage; ours has the same lines, by
the same names, but those that only Optuna reads.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def _sum_of(line: bytes, before: int) -> int:
    """Return the sum of a whole line.

    Raises:
        ValueError: it is not what was written there; says what was found in its place.
    """
    found = _SEALED.fullmatch(line)
    if found is None:
        raise ValueError("it has no sum")
    total = zlib.crc32(found[1] + b"}", before if found[2] == b"sum" else 0)
    if total != int(found[3], 16):
        raise ValueError("its sum is another one")
    return total


def _is_half(line: bytes) -> bool:
    """Tell whether a killed writer left it: it has no end, and nothing but zeros of the file system in its place."""
    return not line.endswith(b"\n") and (line.endswith(b"\0") or not _SEALED.fullmatch(line[:-1] + b"\n"))


@dataclass(frozen=True, eq=False, slots=True)
class EpochHistory(Sequence[Measurement]):
    """The measurements of a trial, oldest first, each epoch once; read from the journal when they are looked at.

    So what a driver holds does not grow with the epochs of its trials.

    Attributes:
        journal: the file.
        places: where the lines of the epochs begin, in bytes.

    Raises:
        InputError: the journal was written anew since; raised by whatever reads an epoch.
    """

    journal: Path
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        found = tuple(self._read(self.places[index] if isinstance(index, slice) else [self.places[index]]))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[Measurement]:
        return self._read(self.places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def _read(self, places: Iterable[int]) -> Iterator[Measurement]:
        with self.journal.open("rb") as file:
            for place in places:
                file.seek(place)
                try:
                    yield measurement_in(json.loads(file.readline()))
                except (ValueError, KeyError, TypeError):
                    raise InputError(
                        f"{self.journal.name} must stay as it is while it is read, got one that was written anew at "
                        f"{self.journal}. Give the command again."
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
        path: of the file; one that is missing has no lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = -math.inf
        self._lines = self._end = 0  # what was read of it, in lines and in bytes
        self._sum = 0  # of the last of these lines

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the whole lines that were not read yet, and where each begins, in bytes.

        Raises:
            InputError: the journal is damaged.
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._end)
            try:
                for line in itertools.takewhile(lambda line: not _is_half(line), file):
                    total, begin, log = _sum_of(line, self._sum), self._end, json.loads(line)
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
        with self.path.open("ab") as file:
            if file.tell() > self._end:
                file.truncate(self._end)

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
