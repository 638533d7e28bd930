"""The content-addressed store: a stage is a folder that is a pure function of its key, made once and shared by all.

A stage lives at ``<root>/<kind>/<digest of its key>/`` (``kind/digest`` is its name) and holds ``key.json`` beside what
its maker wrote. It appears complete or not at all: the maker writes into a folder of another name, which is renamed at
the end. One maker at a time holds the stage's lock; others wait and then find it made. Every answer (``made``,
``reused``, ``dropped``) is a line of ``<root>/LOG``, and a store object knows the names of all stages that were asked
for through it.

Each process checks a stage against its checksums, ``files.json``, when it first uses it. One that is damaged is
dropped, and made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from carcls.config import digest_of
from carcls.disk import damage_of, describe, full_disk_named, replacing
from carcls.stages_disk import throw_away

LOG = "log.jsonl"
WAIT_SECONDS = 10.0
_KEY, _MADE, _FILES = "key.json", "made.json", "files.json"
Key = Mapping[str, Any]
Make = Callable[[Path], None]
# Stages that this process has found to be whole.
_whole: set[Path] = set()


class StageStore:
    """Get a stage, or make it.

    Args:
        root: the store's folder, made when missing. Several processes may share it.
        waits: called every WAIT_SECONDS while another process makes a stage that is waited for.
    """

    def __init__(self, root: Path, waits: Callable[[], None] = lambda: None) -> None:
        self.root = Path(root)
        self._waits = waits
        self._used: set[str] = set()
        self._first_used: dict[str, float | None] = {}
        self.root.mkdir(parents=True, exist_ok=True)

    def folder(self, kind: str, key: Key) -> Path:
        """Return where the stage is, or would be."""
        return self.root / kind / digest_of(dict(key), length=24)

    def has(self, kind: str, key: Key) -> bool:
        """Tell whether the stage is made."""
        return (self.folder(kind, key) / _KEY).is_file()

    def get_or_make(self, kind: str, key: Key, make: Make, *, keep: bool = False) -> Path:
        """Return the stage's folder; when it is not there yet, ``make`` fills an empty folder that becomes it.

        Args:
            kind, key: of the stage.
            make: gets the folder. Where it raises, nothing is left of it.
            keep: the folder survives its maker's death, and the next maker finds what was written. It must write each
                file to a temporary name and rename it, and must accept a folder in any such state.
        """
        with self.making(kind, key, keep=keep) as work:
            if work is not None:
                make(work)
        return self.folder(kind, key)

    def make_if_free(self, kind: str, key: Key, make: Make) -> bool:
        """As ``get_or_make``, but leaves it to another process that is making it; return whether it is there."""
        with self.making(kind, key, wait=False) as work:
            if work is not None:
                make(work)
        return self.has(kind, key)

    @contextmanager
    def making(self, kind: str, key: Key, *, keep: bool = False, wait: bool = True) -> Iterator[Path | None]:
        """Yield a folder that becomes the stage once the body has filled it; None where there is nothing to make.

        That is where it is made, or, if we do not ``wait``, where another process makes it. ``keep`` as in
        ``get_or_make``.
        """
        final, start = self.folder(kind, key), time.perf_counter()
        if self._reuse(final, start):
            yield None
            return
        with self._lock(final, wait=wait) as is_ours:
            if not is_ours or self._reuse(final, start, locked=True):
                yield None
                return
            self._note(final, made=True)
            work = final.with_suffix(".unfinished" if keep else ".making")
            try:
                with full_disk_named(self.root):
                    _prepare(work, keep=keep)
                    begun = time.perf_counter()
                    yield work
                    if not (work / _MADE).exists():  # the maker may know better what finding it is worth
                        note_made(work, time.perf_counter() - begun)
                    _seal(work, key)
            except BaseException:
                if not keep:
                    shutil.rmtree(work, ignore_errors=True)
                raise
            work.rename(final)
            _whole.add(final)
            self._log(final, "made", start)

    def take_used(self) -> dict[str, float | None]:
        """Return the names of the stages that were used first since the last call, each with what finding it saved.

        That is how many seconds its making took; None for a stage that was made through this object.
        """
        used, self._first_used = self._first_used, {}
        return used

    def note_damage(self, kind: str, key: Key, damage: str) -> None:
        """Write to the log that unfinished work on the stage was damaged, and begins anew."""
        self._log(self.folder(kind, key), "dropped", time.perf_counter(), damage)

    def forget(self, kind: str, key: Key) -> None:
        """Remove a stage that nobody will ask for any more, if nobody else has; it does not count as used."""
        final = self.folder(kind, key)
        self._first_used.pop(self._name_of(final), None)
        if final.exists():
            with self._lock(final):
                if final.exists():
                    _remove(final)

    def find_damage(self, name: str) -> str:
        """Return what is wrong with a stage: the first file that is not as it was sealed, and why; or nothing.

        Stages that are older than checksums are taken on trust. One that is damaged is made again when it is next
        asked for.
        """
        folder, damage = self.root / name, ""
        try:
            listing: Mapping[str, Mapping[str, Any]] = json.loads((folder / _FILES).read_text(encoding="utf-8"))
            found = ((file, damage_of(folder / file, known)) for file, known in listing.items())
            damage = next((f"{file} {wrong}" for file, wrong in found if wrong), "")
        except FileNotFoundError:
            pass
        except (ValueError, AttributeError, KeyError, TypeError):
            damage = f"{_FILES} cannot be read"
        if damage:
            _whole.discard(folder)
        return damage

    def _reuse(self, final: Path, start: float, *, locked: bool = False) -> bool:
        """Tell whether the stage is made and whole, and note that it is used: key.json has the time of the last use.

        One that is damaged is taken out if the caller holds its lock.
        """
        if not final.exists():
            return False
        damage = "" if (final / _KEY).is_file() else f"{_KEY} is missing"
        if not damage and final not in _whole:
            damage = self.find_damage(self._name_of(final))
        if damage:
            if locked:
                _remove(final)
                self._log(final, "dropped", start, damage)
            return False
        _whole.add(final)
        with suppress(PermissionError):  # another user's store
            os.utime(final / _KEY)
        self._note(final)
        self._log(final, "reused", start)
        return True

    def _note(self, final: Path, *, made: bool = False) -> None:
        name = self._name_of(final)
        if name not in self._used:
            self._used.add(name)
            self._first_used[name] = None if made else seconds_of(final)

    def _name_of(self, final: Path) -> str:
        return final.relative_to(self.root).as_posix()

    @contextmanager
    def _lock(self, final: Path, *, wait: bool = True) -> Iterator[bool]:
        """Acquire the stage's lock; yield whether it is ours, which it is not if another has it and we do not wait."""
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{final}.lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=WAIT_SECONDS if wait else 0.0)
            except Timeout:
                if not wait:
                    break
                self._waits()
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _log(self, final: Path, event: str, start: float, reason: str = "") -> None:
        seconds = round(time.perf_counter() - start, 3)
        said = {"kind": final.parent.name, "digest": final.name, "event": event, "seconds": seconds, "pid": os.getpid()}
        line = json.dumps({**said, "reason": reason} if reason else said)
        # One write of less than a page to a file opened for appending is not torn by other writers.
        with full_disk_named(self.root), (self.root / LOG).open("ab", buffering=0) as log:
            log.write((line + "\n").encode())


def _prepare(work: Path, *, keep: bool) -> None:
    """Make the folder that a stage is made in; one that is kept has lost what its last maker was killed at."""
    if not keep:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    for leftover in work.glob(".*.tmp"):
        leftover.unlink()


def _seal(work: Path, key: Key) -> None:
    """Write the checksums of what the folder holds, and last its key."""
    files = sorted(path for path in work.rglob("*") if path.is_file() and path.name not in (_FILES, _KEY))
    listing = {path.relative_to(work).as_posix(): describe(path) for path in files}
    (work / _FILES).write_text(json.dumps(listing, indent=1), encoding="utf-8")
    write_json(work / _KEY, dict(key))


def _remove(final: Path) -> None:
    _whole.discard(final)
    throw_away(final)


def note_made(folder: Path, seconds: float) -> None:
    """Write down what finding the stage in ``folder`` is worth; a maker that does not leaves the time of its making."""
    (folder / _MADE).write_text(json.dumps({"seconds": round(seconds, 3)}), encoding="utf-8")


def seconds_of(folder: Path) -> float:
    """Return how long the stage took to make; 0 for one that is older than these notes."""
    try:
        return float(json.loads((folder / _MADE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON so that ``path`` is whole or absent, whenever the machine stops."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent, whenever the machine stops."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
