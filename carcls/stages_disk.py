"""What a store of stages holds on disk, and taking it out while others may be at work in it."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

State = Literal["made", "unfinished", "making", "trash"]
_STATES: dict[str, State] = {"": "made", ".unfinished": "unfinished", ".making": "making", ".trash": "trash"}


@dataclass(frozen=True, slots=True)
class Stored:
    """One folder of a store.

    Attributes:
        path: where it is.
        kind: of the stage.
        digest: of its key.
        state: ``made`` is a whole stage; ``unfinished`` goes on some day; ``making`` and ``trash`` are of no use once
            the process that wrote them is gone.
        size: bytes that it takes on disk.
        used: when it was last used or written to, in seconds since 1970.
    """

    path: Path
    kind: str
    digest: str
    state: State
    size: int
    used: float

    @property
    def name(self) -> str:
        """Its path as trials know it, relative to the store."""
        return f"{self.kind}/{self.digest}"


def list_store(root: Path) -> list[Stored]:
    """Return all folders of a store that hold stages, whole or not; none where there is no store."""
    folders = (folder for folder in sorted(root.glob("*/*")) if not folder.parent.is_symlink())
    return [stored for folder in folders if (stored := _look(folder))]


def size_of(folder: Path) -> int:
    """Return the bytes that a folder's content takes on disk."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))


def _look(folder: Path) -> Stored | None:
    state = _STATES.get(folder.suffix)
    if state is None or folder.is_symlink() or not folder.is_dir():
        return None
    try:
        size = size_of(folder)
        times = [path.stat().st_mtime for path in (folder, folder / "key.json") if path.exists()]
    except FileNotFoundError:  # somebody takes it out just now
        return None
    return Stored(folder, folder.parent.name, folder.name.split(".")[0], state, size, max(times, default=0.0))


def take_out(stored: Stored, *, dry_run: bool = False) -> bool:
    """Take the folder out of the store, unless somebody makes it, or has used it since it was listed; return whether.

    With ``dry_run`` return only whether it could be taken out.
    """
    try:
        with FileLock(stored.path.with_name(f"{stored.digest}.lock")).acquire(timeout=0):
            now = _look(stored.path)
            if now is None or now.used > stored.used:
                return False
            if not dry_run:
                throw_away(stored.path)
    except (Timeout, FileNotFoundError):
        return False
    return True


def throw_away(folder: Path) -> None:
    """Remove a folder of a stage whose lock the caller holds.

    It vanishes at once under its name, and then file by file: who has a file open or mapped keeps it.
    """
    trash = folder.with_name(f"{folder.stem}.{uuid.uuid4().hex[:8]}.trash")
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)
