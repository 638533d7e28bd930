"""A database that was moved or copied with its folder: MLflow keeps absolute paths of files, which are mended."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from carcls.errors import TrackingError
from sweeps.lock import holder_of
from sweeps.text import command_text

# Where MLflow has absolute paths of the files of runs and models.
_PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def mend_places(database: sqlite3.Connection, path: Path, *, plan: bool = False) -> str:
    """Lead all that lay beside the database where it was made to the files beside it now.

    So the files of a copy are its own: what is read, and what is written from now on. It is one transaction.

    Args:
        database: open, and in no transaction.
        path: where it is now; ``artifacts`` lies beside it.
        plan: whether nothing is changed, and the sentence says what would be.

    Returns:
        One sentence; nothing where it lies where it was made, or MLflow has not made its tables yet.

    Raises:
        TrackingError: the files are not beside it, or a sweep beside it runs.
        sqlite3.OperationalError: it cannot be written.
    """
    here = path.parent / "artifacts"
    database.execute("BEGIN IMMEDIATE")
    try:
        olds = _elsewhere(database, here)
        if olds:
            _require_ready(path, here, olds[0])
        for old in [] if plan else olds:
            for before, after in ((str(old), str(here)), (old.as_uri(), here.as_uri())):
                _lead(database, f"{before}/", f"{after}/")
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
    done = "will be mended by a run" if plan else "are mended"
    return f"{path.parent} was moved or copied from {olds[0].parent}: MLflow's paths {done}." if olds else ""


def has_runs_of(path: Path, known: str) -> bool:
    """Tell whether the database at ``path`` has runs of the sweep or the job with this id; it is not changed."""
    query = "SELECT 1 FROM tags WHERE key IN ('carsweep.sweep_id', 'carsweep.job') AND value = ?"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query, (known,)).fetchone() is not None
    except sqlite3.Error:  # none is there, or MLflow has not made its tables
        return False


def _elsewhere(database: sqlite3.Connection, here: Path) -> list[Path]:
    """Return the folders in which sweeps of this database have their files, other than ``here`` by any name."""
    has_tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
    query = "SELECT artifact_location FROM experiments WHERE name LIKE 'carsweep-%'"
    found = database.execute(query).fetchall() if has_tables else []
    olds = [Path(unquote(urlsplit(place).path) if place.startswith("file:") else place).parent for (place,) in found]
    known = [old for old in dict.fromkeys(olds) if (old.root, old.name) == ("/", "artifacts")]
    # By another path, such as a link, they are the same files.
    return [old for old in known if old != here and not (here.exists() and old.exists() and old.samefile(here))]


def _require_ready(path: Path, here: Path, old: Path) -> None:
    if not here.is_dir():
        raise TrackingError(
            f"{path} must lie beside the models and files of its runs, which are in {old}. Copy or move them, too "
            f"(cp -r {old} {here}), or move this database away: carsweep resume writes each sweep's runs and model to "
            "a new one."
        )
    for lock in path.parent.glob(".*.lock"):
        name = lock.name[1:].removesuffix(".lock")
        holder = holder_of(path.parent / name)
        if holder is not None and holder.pid != os.getpid():
            raise TrackingError(
                f"{path} was made in {old.parent}, and is used by {name!r}, which {holder} runs, by that path or "
                f"another. Use the same path, or wait for its end ({command_text('stop', name, out=path.parent)})."
            )


def _lead(database: sqlite3.Connection, before: str, after: str) -> None:
    for table, column in _PLACES.items():
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            text = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"  # noqa: S608
            database.execute(text, (after, len(before) + 1, len(before), before))
