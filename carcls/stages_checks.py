"""Checksums of stages, so that a byte that was flipped or a file that was cut is noticed before it becomes a score.

Beside its key a stage has ``files.json``: of every file the size, and the BLAKE2b of its content. Of a file above
WHOLE_BYTES the content is SAMPLES blocks of a MiB, the first, the last, and others at equal distances: reading
gigabytes of decoded images at each start would cost more than it saves (255 MiB take 0.32 s on one core here; a pack
of 2.4 GB 0.1 s in samples, and 3 s whole). So a lost end or a bad stretch of such a file is noticed, a single bit
mostly not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carcls.disk import replacing

FILES = "files.json"
WHOLE_BYTES = 256 * 2**20
SAMPLES = 64
_BLOCK = 2**20
_NOT_CHECKED = {FILES, "key.json"}


def seal(folder: Path) -> None:
    """Write ``files.json`` for what the folder holds."""
    listing = {path.relative_to(folder).as_posix(): describe(path) for path in _files(folder)}
    with replacing(folder / FILES) as temporary:
        temporary.write_text(json.dumps(listing, indent=1), encoding="utf-8")


def find_damage(folder: Path) -> str:
    """Return which file is not as it was sealed, and why; nothing for a whole stage, or one older than checksums."""
    try:
        listing: Mapping[str, Mapping[str, Any]] = json.loads((folder / FILES).read_text(encoding="utf-8"))
        for name, known in listing.items():
            damage = damage_of(folder / name, known)
            if damage:
                return f"{name} {damage}"
    except FileNotFoundError:
        return ""
    except (ValueError, AttributeError, KeyError, TypeError):
        return f"{FILES} cannot be read"
    return ""


def damage_of(path: Path, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a file of which ``known`` is what ``describe`` returned, or nothing."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != known["bytes"]:
        return f"has {size} bytes instead of {known['bytes']}"
    return "" if describe(path)["blake2b"] == known["blake2b"] else "has another content than was written"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _NOT_CHECKED)


def describe(path: Path) -> dict[str, Any]:
    """Return the size of a file and the checksum of its content, as JSON can hold them."""
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        for start in _starts(size):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "blake2b": digest.hexdigest()}


def _starts(size: int) -> list[int]:
    """Return where the blocks begin that count.

    >>> _starts(3 * 2**20 + 5) == [0, 2**20, 2 * 2**20, 3 * 2**20]
    True
    """
    if size <= WHOLE_BYTES:
        return list(range(0, size, _BLOCK))
    return [(size - _BLOCK) * place // (SAMPLES - 1) for place in range(SAMPLES)]
