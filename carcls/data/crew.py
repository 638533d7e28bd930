"""The decoding processes of one pack: started, fed, listened to and always ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import loads
from pathlib import Path
from typing import IO

import carcls
from carcls.data.filling import Broken, Job, Row, encode, fill
from carcls.errors import CarsweepError
from carcls.machine import usable_cores

Progress = Callable[[int, int], None]

_ALONE_BELOW = 200
"""Fewer images than this are decoded here: starting processes takes longer."""

_CHUNK = 32


def fill_all(job: Job, rows: Sequence[Row], workers: int | None, progress: Progress | None) -> list[Broken]:
    """Decode all rows on ``workers`` processes (default: one per usable core); return the unreadable ones, in order.

    Raises:
        CarsweepError: a decoding process died.
    """
    tell = progress or _silent
    count = workers or usable_cores()
    length = _CHUNK if len(rows) < _ALONE_BELOW else max(1, min(_CHUNK, len(rows) // (4 * count)))
    chunks = deque(rows[start : start + length] for start in range(0, len(rows), length))
    if count == 1 or len(rows) < _ALONE_BELOW:
        answers: Iterator[tuple[int, list[Broken]]] = ((len(chunk), fill(job, chunk)) for chunk in chunks)
        return _collect(answers, len(rows), tell)
    with _crew(job, min(count, len(chunks))) as members:
        return _collect(_distribute(members, chunks), len(rows), tell)


def _silent(done: int, total: int) -> None:
    del done, total


def _collect(answers: Iterator[tuple[int, list[Broken]]], total: int, tell: Progress) -> list[Broken]:
    done, broken = 0, []
    tell(0, total)
    for count, lost in answers:
        done += count
        broken += [(int(row), str(reason)) for row, reason in lost]
        tell(done, total)
    return sorted(broken)


@dataclass(eq=False)
class _Member:
    """One decoding process and the chunks it has been given and not yet answered."""

    process: subprocess.Popen[bytes]
    complaints: IO[bytes]
    pending: deque[Sequence[Row]] = field(default_factory=deque)

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
        except BrokenPipeError:
            self._fail()

    def give(self, chunks: deque[Sequence[Row]]) -> None:
        if chunks:
            self.pending.append(chunks.popleft())
            self.send(encode(self.pending[-1]))

    def answer(self) -> tuple[int, list[Broken]]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            self._fail()
        return len(self.pending.popleft()), loads(line)

    def _fail(self) -> None:
        code = self.process.wait()
        self.complaints.seek(0)
        last = self.complaints.read().decode(errors="replace").strip().splitlines()[-1:]
        first = self.pending[0][0][1] if self.pending else "the first image"
        raise CarsweepError(
            f"a decoding process ended with code {code} at or soon after {first!r}. "
            f"{' '.join(last) or 'It said nothing.'}"
        )


def _distribute(members: list[_Member], chunks: deque[Sequence[Row]]) -> Iterator[tuple[int, list[Broken]]]:
    """Keep two chunks with every member, so that none waits for the next, and yield the answers as they come."""
    with selectors.DefaultSelector() as selector:
        for member in members:
            assert member.process.stdout is not None
            selector.register(member.process.stdout, selectors.EVENT_READ, member)
            member.give(chunks)
        for member in members:
            member.give(chunks)
        while any(member.pending for member in members):
            for key, _ in selector.select():
                member = key.data
                answer = member.answer()
                member.give(chunks)
                yield answer


@contextmanager
def _crew(job: Job, count: int) -> Iterator[list[_Member]]:
    members: list[_Member] = []
    try:
        for _ in range(count):
            members.append(_start())
            members[-1].send(encode(job))
        yield members
    finally:
        for member in members:
            member.process.kill()
        for member in members:
            with member.process, member.complaints:
                pass


def _start() -> _Member:
    """Start one process that finds this same package, installed or not."""
    package_parent = str(Path(carcls.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": package_parent + (os.pathsep + inherited if inherited else ""),
        "OPENBLAS_NUM_THREADS": "1",
    }
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - the crew closes it
    process = subprocess.Popen(
        [sys.executable, "-m", "carcls.data.filling"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        # Unbuffered, so that an answer is never in Python's buffer where the selector cannot see it.
        bufsize=0,
        env=environment,
    )
    return _Member(process, complaints)
