"""The journal of a study: lines of JSON in one file, each with a sum of itself and of the sum before it.

So a line that a disk changed, lost, doubled or put elsewhere is noticed: the sums from there on do not follow each
other. Only lines that are missing at the very end cannot be. All that is read of a journal is read here.

Each line says by the name of its sum what the sum covers: ``sum`` covers the line and the sum before it; ``crc``, which
older versions wrote, covers the line alone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

from optuna.storages.journal import BaseJournalBackend

from carcls.disk import full_disk_named, replacing
from carcls.errors import InputError, OutputError
from carcls.outcome import Measurement
from sweeps.failures import NO_FAULT
from sweeps.record import OBJECTIVE

JOURNAL = "study.journal"
# What the line of an epoch holds besides the objective, which Optuna reads: the whole measurement.
MEASURED = "measured"
# Waiting for each of the lines of a trial takes longer than all else that the study does.
SYNC_SECONDS = 0.25
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
                    yield _measurement_in(json.loads(file.readline()))
                except (ValueError, KeyError, TypeError):
                    raise InputError(
                        f"{self._journal.name} must stay as it is while it is read, got one that was written anew at "
                        f"{self._journal}. Give the command again."
                    ) from None


def measured_in(measurement: Measurement) -> dict[str, Any]:
    """Return what the line of an epoch holds under MEASURED."""
    said = {"metrics": measurement.metrics, "trained": measurement.trained}
    return {**said, "stages": measurement.stages} if measurement.stages else said


def _measurement_in(log: Mapping[str, Any]) -> Measurement:
    """Return the measurement of an epoch's line; older versions wrote no more of it than the accuracy."""
    measured = log.get(MEASURED) or {"metrics": {OBJECTIVE: log["intermediate_value"]}, "trained": True}
    return Measurement(log["step"], measured["metrics"], measured["trained"], measured.get("stages", {}))


class _Place(NamedTuple):
    """How far a journal was read: lines, bytes, and the sum of the last line."""

    lines: int = 0
    end: int = 0
    sum: int = 0


class Journal(BaseJournalBackend):
    """The file that everything is written to, as Optuna's storage of journals wants one.

    A process that dies loses no line. A machine that stops may lose what was written in the last moments: after each
    SYNC_SECONDS at most the next line is waited for until all of the file is on the disk.

    Args:
        path: of the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = -math.inf
        self._read = _Place()
        self._written = 0  # the sum of the last line
        self._more: Mapping[str, Any] = {}
        self._epochs: defaultdict[int, list[int]] = defaultdict(list)
        if not path.exists():
            path.open("ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the whole lines from a number on.

        Raises:
            InputError: the journal is damaged.
        """
        if log_number_from != self._read.lines:
            self._read = _Place()
            self._epochs.clear()
        with self.path.open("rb") as file:
            file.seek(self._read.end)
            try:
                for line, total in _whole_lines(file, self._read.sum):
                    log, begin = json.loads(line), self._read.end
                    self._read = _Place(self._read.lines + 1, begin + len(line), total)
                    if "intermediate_value" in log:
                        self._epochs[log["trial_id"]].append(begin)
                    if self._read.lines > log_number_from:
                        yield log
            except ValueError as error:
                raise self._damaged(f"line {self._read.lines + 1}: {error}") from None
        self._written = self._read.sum

    def cut(self) -> None:
        """Cut off the half line at the end that a writer left when it was killed; only its driver may.

        Raises:
            InputError: the journal is damaged.
        """
        deque(self.read_logs(self._read.lines), maxlen=0)
        if self._read.end < self.path.stat().st_size:
            os.truncate(self.path, self._read.end)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines at the end.

        Raises:
            OutputError: there is no room.
        """
        lines, total = sealed(({**log, **self._more} for log in logs), self._written)
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(lines) != len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if time.monotonic() - self._synced >= SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
            except OSError as error:
                file.truncate(before)  # half a line would spoil all that come after it
                raise OutputError(
                    f"the sweep's journal must be written, got {error.strerror!r} for {str(self.path)!r}. "
                    "Make room there; then run the same command with the sweep's --name: nothing is lost."
                ) from None
        self._written = total

    @contextmanager
    def adding(self, **more: Any) -> Iterator[None]:
        """Write more values into each line than Optuna gives, which it passes over when it reads."""
        self._more = more
        try:
            yield
        finally:
            self._more = {}

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with self.path.open("ab", buffering=0) as file:
            os.fsync(file.fileno())

    def history(self, trial: int) -> EpochHistory:
        """Return the epochs of a trial that were read so far."""
        return EpochHistory(self.path, self._epochs.get(trial, ()))

    def reopen(self) -> set[int]:
        """Make trials unfinished again that failed through no fault of their own; return their ids in the journal.

        They keep their numbers and their checkpoints. The lines about their end are replaced, all at once; how they
        had failed stays in the journal under another name.
        """
        logs = list(self.read_logs(0))
        failed = {log["trial_id"] for log in logs if _outcome_in(log).get("failure") in NO_FAULT}
        if failed:
            kept = [new for log in logs for new in (_reopened(log) if log.get("trial_id") in failed else [log])]
            with full_disk_named(self.path.parent), replacing(self.path) as temporary, temporary.open("wb") as file:
                file.write(sealed(kept)[0])
                file.flush()
                os.fsync(file.fileno())
            self._read = _Place()
        return failed

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"{self.path.name} must be as carsweep wrote it, got a damaged one at {self.path} ({what}). Put a copy of "
            "it back, or keep the lines before the damage (head -n LINES) and run the sweep again: "
            "what they tell is not run twice."
        )


def _outcome_in(log: Mapping[str, Any]) -> Mapping[str, Any]:
    outcome: Mapping[str, Any] = log.get("user_attr", {}).get("outcome", {})
    return outcome


def _reopened(log: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what stands in a journal instead of a line about a trial that is open again."""
    if "state" in log:
        return []
    if not _outcome_in(log):
        return [log]
    return [{**log, "user_attr": {"failed_before": _outcome_in(log)}}, {**log, "user_attr": {"attempts": 0}}]
