"""Digests of the contents of files, remembered by size and modification time so that no file is read twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from carcls.data.decode import UnreadableImage, require_file
from carcls.stages import write_json

UNREADABLE, _UNREAD = "unreadable", "unread"
_THREADS = 2

# Size in bytes, modification time in nanoseconds, digest.
Entry = tuple[int, int, str]


def content_digests(root: Path, paths: Sequence[str], cache: Path | None = None) -> tuple[str, ...]:
    """Return 32 hexadecimal digits of BLAKE2b per file, ``unreadable`` for one that cannot be read.

    Args:
        root: the folder that ``paths`` are relative to.
        paths: the files.
        cache: a JSON file of what is known already, read first and rewritten when something was added.
    """
    known = _read_cache(cache)
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = list(threads.map(lambda path: _entry(root / path, known.get(path), _read), paths))
    if cache is not None:
        fresh = {path: entry for path, entry in zip(paths, entries, strict=True) if entry is not None}
        if fresh != known:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, fresh)
    return tuple(UNREADABLE if entry is None else entry[2] for entry in entries)


def known_digests(root: Path, paths: Sequence[str], cache: Path) -> tuple[str, ...] | None:
    """Return what ``content_digests`` would without reading a file; None where it would have to read one."""
    known = _read_cache(cache)
    entries = [_entry(root / path, known.get(path), _leave_unread) for path in paths]
    digests = tuple(UNREADABLE if entry is None else entry[2] for entry in entries)
    return None if _UNREAD in digests else digests


def _entry(path: Path, known: Entry | None, digest: Callable[[Path], str]) -> Entry | None:
    """Return size, modification time and digest of a file, which may be known; None where there is none to read."""
    try:
        state = require_file(path)
        if known is not None and known[:2] == (state.st_size, state.st_mtime_ns):
            return known
        return state.st_size, state.st_mtime_ns, digest(path)
    except (OSError, ValueError, UnreadableImage):  # ValueError: a name that no file can have
        return None


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _leave_unread(path: Path) -> str:
    return _UNREAD if os.access(path, os.R_OK) else UNREADABLE


def _read_cache(cache: Path | None) -> dict[str, Entry]:
    if cache is None or not cache.is_file():
        return {}
    try:
        stored = json.loads(cache.read_text(encoding="utf-8"))
        return {path: (int(size), int(time), str(digest)) for path, (size, time, digest) in stored.items()}
    except (ValueError, TypeError, AttributeError, OSError):
        return {}  # only a memory: what it does not know is read again
