"""Archives of data sets: their regular files are unpacked, whatever they say of links, owners and modes.

Files are written by us, not by ``extract`` of ``zipfile`` and ``tarfile``, which mends hostile names in silence and, in
older Pythons, follows links.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from carcls.disk import is_full_disk
from carcls.errors import DataError, InputError, OutputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Name, size in bytes, and what opens it: None where it is no regular file.
_Member = tuple[str, int, Callable[[], IO[bytes]] | None]


def is_archive(name: str) -> bool:
    """Tell by its suffix whether a file is an archive that is unpacked."""
    return name.lower().endswith(SUFFIXES)


def stem_of(name: str) -> str:
    """Return the name of an archive without its suffix.

    >>> stem_of("cars.v2.tar.gz")
    'cars.v2'
    """
    return name[: -max(len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix))]


def unpack(archive: Path, into: Path) -> list[str]:
    """Write the files of an archive into a folder; return what is to be told, a sentence each.

    Raises:
        DataError: it is damaged, has a password, or names files outside the folder.
        OutputError: the disk has no room for them.
    """
    left_out, room = 0, shutil.disk_usage(into).free
    try:
        for name, size, opened in _members(archive, into):
            path = _inside(archive, name)
            if opened is None:
                left_out += 1
                continue
            room -= size
            if room < 0:
                raise OutputError(
                    f"disk of {str(into)!r} must have room for the files of {archive}, got too little at {name!r}. "
                    "Make room, or give another --out."
                )
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    except InputError:
        raise
    except NotImplementedError as error:  # Deflate64, with which Windows writes those above 2 GB
        raise DataError(
            f"{archive} must be compressed as Python reads it, got another way ({error}). Unpack it, and give its "
            "folder."
        ) from error
    except Exception as error:  # both modules raise whatever a broken archive makes them trip over
        if is_full_disk(error):
            raise
        raise DataError(f"{archive} must be a whole archive, but {_damage(archive, error)}. Fetch it again.") from error
    if not left_out:
        return []
    verb = "entry of it is a link or device and is" if left_out == 1 else "entries of it are links or devices and are"
    return [f"{left_out:,} {verb} left out."]


def _damage(archive: Path, error: Exception) -> str:
    with archive.open("rb") as file:
        if file.read(1 << 10).lstrip().startswith(b"<"):
            return "it is a web page, as sites send that ask for a login"
    said = " ".join(str(error).partition(": - method")[0].split())  # tarfile's list of all that it tried
    return f"it is damaged ({said[:200] or type(error).__name__})"


def _members(archive: Path, into: Path) -> Iterator[_Member]:
    """Yield what is in an archive, but for folders; ``into`` has the files of those before."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield from _zipped(archive, zipped)
    else:
        with tarfile.open(archive, "r:*") as tarred:
            for member in tarred:
                if member.islnk() and _is_inside(member.linkname) and (first := into / member.linkname).is_file():
                    yield member.name, first.stat().st_size, partial(_opened_file, first)
                elif not member.isdir():
                    yield member.name, member.size, partial(_opened, tarred, member) if member.isreg() else None


def _zipped(archive: Path, zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        if info.flag_bits & 1:
            raise DataError(
                f"{archive} must have no password, got one for {info.filename!r}. Unpack it, and give its folder."
            )
        if not info.is_dir():
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_file = kind in (0, stat.S_IFREG)  # 0 where another system wrote it
            yield _name(info), info.file_size, partial(zipped.open, info) if is_file else None


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a file: macOS writes UTF-8 and does not say so, which zipfile takes for code page 437."""
    try:
        return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def _opened(tarred: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tarred.extractfile(member)
    if source is None:
        raise tarfile.ExtractError(f"{member.name} cannot be read")
    return source


def _opened_file(path: Path) -> IO[bytes]:
    return path.open("rb")


def _inside(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a file below the folder that it is unpacked to.

    Raises:
        DataError: it would lie outside.
    """
    if not _is_inside(name):
        raise DataError(
            f"{archive} must hold files of its own folder alone, got the path {name!r}. Do not trust it: fetch it from "
            "its source."
        )
    return _path(name)


def _is_inside(name: str) -> bool:
    path = _path(name)
    return not (path.is_absolute() or ".." in path.parts or not path.parts or re.match(r"[A-Za-z]:", name))


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))  # as Windows writes them
