"""Files that are whole, or known not to be: a full disk leaves no half of one, and checksums show a damaged one.

Of a file above WHOLE_BYTES the checksum is of SAMPLES blocks of a MiB, the first, the last, and others at equal
distances: reading gigabytes of decoded images at each start would cost more than it saves (255 MiB take 0.32 s on one
core here; a pack of 2.4 GB 0.1 s in samples, and 3 s whole). So a lost end or a bad stretch of such a file is noticed,
a single bit mostly not.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from carcls.errors import DiskFull

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NUMPYS_WORDS = re.compile(r"\d+ requested and \d+ written")
WHOLE_BYTES = 256 * 2**20
SAMPLES = 64
_BLOCK = 2**20


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn a full disk, however the body's libraries report it, into a failure that names ``folder`` and the remedy.

    Raises:
        DiskFull: the body ran out of room on the disk.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFull) or not is_full_disk(error):
            raise
        raise DiskFull(
            f"the disk of {str(folder)!r} is full. Make room, for instance with carsweep gc, and go on with the sweep."
        ) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether an exception, or one that it came from, was a full disk or a used-up quota.

    safetensors and numpy report it in words only; torch.save hides the OSError of its file behind an error of its own.
    """
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        if os.strerror(errno.ENOSPC) in str(error) or _NUMPYS_WORDS.fullmatch(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_out_of_reach(error: BaseException) -> bool:
    """Tell whether an exception means that files cannot be written or read: a full disk, a folder gone or read-only."""
    return is_full_disk(error) or (isinstance(error, OSError) and error.filename is not None)


def reserve(path: Path) -> None:
    """Take the room on the disk that a file of zeros will need once it is filled.

    Writing to a memory map of a file without its room does not raise on a full disk: it kills the process (SIGBUS).

    Raises:
        OSError: there is no room (ENOSPC).
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what the body writes there is put in the place of ``path``, or removed if it fails.

    Whoever may read other new files of this process (its umask says) may read this one, whatever made it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)  # safetensors makes files that only their owner may read
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def describe(path: Path) -> dict[str, Any]:
    """Return the size of a file and the checksum (BLAKE2b) of its content, as JSON can hold them."""
    size = path.stat().st_size
    starts: Sequence[int] = range(0, size, _BLOCK)
    if size > WHOLE_BYTES:
        starts = [(size - _BLOCK) * place // (SAMPLES - 1) for place in range(SAMPLES)]
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "blake2b": digest.hexdigest()}


def damage_of(path: Path, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a file of which ``known`` is what ``describe`` returned, or nothing."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != known["bytes"]:
        return f"has {size} bytes instead of {known['bytes']}"
    return "" if describe(path)["blake2b"] == known["blake2b"] else "has another content than was written"
