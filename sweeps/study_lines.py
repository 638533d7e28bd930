"""The lines of a journal: JSON objects, each with a checksum of itself, so that what a disk did to one is noticed."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

_SEALED = re.compile(rb'(.*),"crc":"([0-9a-f]{8})"\}\n', re.DOTALL)


def line_of(log: Mapping[str, Any]) -> bytes:
    """Return the line of a log; whoever reads it as JSON finds one more key, ``crc``.

    >>> line_of({"op_code": 0})
    b'{"op_code":0,"crc":"0dd5bba7"}\\n'
    """
    text = json.dumps({name: value for name, value in log.items() if name != "crc"}, separators=(",", ":"))
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def is_whole(line: bytes) -> bool:
    """Tell whether a line is as it was written; one of an older version, without a checksum, need only be an object."""
    sealed = _SEALED.fullmatch(line)
    if sealed is not None:
        return zlib.crc32(sealed[1] + b"}") == int(sealed[2], 16)
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def whole_lines(content: bytes) -> int:
    """Return how many bytes of a journal its whole lines take: less than all where a dying machine left half a line.

    Raises:
        ValueError: a line before the end is damaged, so that what follows cannot be trusted; says which.
    """
    lines = content.splitlines(keepends=True)
    whole = [is_whole(line) for line in lines]
    kept = len(lines) if all(whole) else whole.index(False)
    if any(whole[kept:]):
        raise ValueError(f"line {kept + 1} cannot be read")
    return sum(map(len, lines[:kept]))
