"""Digests of the contents of files, remembered by size and modification time so that no file is read twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

from carcls.data.decode import UnreadableImage, require_file
from carcls.stages import write_json

UNREADABLE = "unreadable"
_THREADS = 2

Remembered = dict[str, tuple[int, int, str]]


def content_digests(root: Path, paths: Sequence[str], cache: Path | None = None) -> tuple[str, ...]:
    """Return 32 hexadecimal digits of BLAKE2b per file, ``unreadable`` for one that cannot be read.

    Args:
        root: the folder that ``paths`` are relative to.
        paths: the files.
        cache: a JSON file of what is known already, read first and rewritten when something was added.
    """
    known = _read_cache(cache)
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = list(threads.map(lambda path: _entry(root / path, known.get(path)), paths))
    if cache is not None:
        fresh = {path: entry for path, entry in zip(paths, entries, strict=True) if entry is not None}
        if fresh != known:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, fresh)
    return tuple(UNREADABLE if entry is None else entry[2] for entry in entries)


def known_digests(root: Path, paths: Sequence[str], cache: Path) -> tuple[str, ...] | None:
    """Return what ``content_digests`` would without reading a file; None where it would have to read one."""
    known = _read_cache(cache)
    digests: list[str] = []
    for path in paths:
        remembered = known.get(path)
        try:
            state = (root / path).stat()
        except OSError:
            digests.append(UNREADABLE)
            continue
        if remembered is not None and remembered[:2] == (state.st_size, state.st_mtime_ns):
            digests.append(remembered[2])
        elif S_ISREG(state.st_mode) and os.access(root / path, os.R_OK):
            return None
        else:
            digests.append(UNREADABLE)
    return tuple(digests)


def _entry(path: Path, known: tuple[int, int, str] | None) -> tuple[int, int, str] | None:
    try:
        state = require_file(path)
        if known is not None and known[:2] == (state.st_size, state.st_mtime_ns):
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, ValueError, UnreadableImage):  # ValueError: a name that no file can have
        return None
    return state.st_size, state.st_mtime_ns, digest


def _read_cache(cache: Path | None) -> Remembered:
    if cache is None or not cache.is_file():
        return {}
    try:
        stored = json.loads(cache.read_text(encoding="utf-8"))
        return {path: (int(size), int(time), str(digest)) for path, (size, time, digest) in stored.items()}
    except (ValueError, TypeError, AttributeError, OSError):
        return {}  # only a memory: what it does not know is read again
