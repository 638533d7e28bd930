"""A full disk, named: what ran into it says which folder it was and what to do, and leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carcls.errors import DiskFull

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NUMPYS_WORDS = re.compile(r"\d+ requested and \d+ written")


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn a full disk, however the body's libraries tell it, into a failure that names ``folder`` and the remedy.

    Raises:
        DiskFull: the body ran out of room on the disk.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise DiskFull(
            f"the disk of {str(folder)!r} is full. Make room, for instance with carsweep gc, and go on with the sweep."
        ) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Tell whether an exception, or one that it came from, was a full disk or a used-up quota.

    safetensors and numpy tell it in words only; torch.save hides the OSError of its file behind an error of its own.
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
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


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
