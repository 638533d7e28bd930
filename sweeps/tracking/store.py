"""Where runs are written: an MLflow tracking server, or a database that is made on the spot.

What can go wrong before anything starts goes wrong then: ``check_tracking`` asks the server, or looks whether a
database can be written, without MLflow, whose import takes seconds. Every mistake is a ``TrackingError`` with its
remedy.
"""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from carcls.errors import CarsweepError, TrackingError, mask_secrets
from sweeps.text import one_line
from sweeps.tracking import compat  # before MLflow, which reads what it sets
from sweeps.tracking.moving import mend_places
from sweeps.tracking.names import experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

# So long a server may take for its first answer, and for one of those by which a model is uploaded.
SERVER_SECONDS, UPLOAD_SECONDS = 4, 120
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_WAYS_OUT = "leave out --tracking-uri to log to a database under --out"
# What MLflow's errors say of a server -> what the server must do, and the remedy; the first that fits.
_SERVER_PROBLEMS = (
    (
        r"error code 40[13]\b|UNAUTHENTICATED|PERMISSION_DENIED|not authenticated",
        "accept these credentials and this host name",
        "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, check the server's --allowed-hosts",
    ),
    (r"error code (404|405|501)\b|not in a valid JSON format", "be an MLflow server", "Correct --tracking-uri"),
    (
        r"Max retries exceeded|timed out|Connection|NameResolution",
        f"answer within {SERVER_SECONDS} s",
        "Start it (see mlflow/README.md), correct --tracking-uri",
    ),
    ("", "accept requests", "Look at the server's log"),
)
_DATABASE_PROBLEMS = (
    (
        "locked|busy",
        "Another process writes to it: wait until it has, or see which one with `fuser FILE`; nothing is lost",
    ),
    ("disk is full", "Make room on its disk"),
    ("readonly", "Have it opened once by whoever may write it, or work on a copy of its folder"),
    ("", "Correct --tracking-uri, or put a copy of the file back"),
)


@dataclass(frozen=True, slots=True)
class Tracking:
    """A tracking store that could be used when it was checked.

    Attributes:
        uri: MLflow's tracking and registry URI. It may hold a password: never show it.
        artifact_root: folder for artifacts; None where the server decides.
        note: what was done when it was checked, a sentence; empty as a rule.
    """

    uri: str = field(repr=False)
    artifact_root: str | None
    note: str = ""

    @property
    def shown_uri(self) -> str:
        """The URI with user and password masked; for logs, results and messages."""
        return mask_secrets(self.uri)

    @property
    def file(self) -> Path | None:
        """The SQLite database; None where a server keeps the runs."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    def client(self) -> MlflowClient:
        """Return a client of this store and of its model registry. A fresh database is made here."""
        from mlflow import MlflowClient

        if self.file is not None:
            _make_database(self.file, str(self.artifact_root))
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, family: str) -> str:
        """Return the id of ``carsweep-<family>``, the one experiment that holds all sweeps of a family.

        Raises:
            TrackingError: the experiment was deleted, or the store cannot be written.
        """
        name = experiment_name(family)
        with explained(self):
            client = self.client()
            found = client.get_experiment_by_name(name)
            if found is None:
                place = f"{self.artifact_root}/{name}" if self.artifact_root else None
                try:
                    return str(client.create_experiment(name, artifact_location=place))
                except Exception:
                    found = client.get_experiment_by_name(name)
                    if found is None:  # otherwise another process was faster, or only the answer was lost
                        raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"MLflow experiment {name} must be active, got 'deleted' in {self.shown_uri}. "
                f"Restore it with `mlflow experiments restore -x {found.experiment_id}`, or {_WAYS_OUT}."
            )
        return str(found.experiment_id)


def check_tracking(uri: str | None, out: Path, *, plan: bool = False) -> Tracking:
    """Return the tracking store. A server has answered; a database file can be written, though MLflow saw it not yet.

    Args:
        uri: ``http(s)://…``, ``sqlite:///…`` or another database MLflow knows; None means ``out/mlflow.db``.
            Artifacts of a SQLite database lie beside it.
        out: folder of all sweeps, absolute or relative; made when missing.
        plan: whether a database that was moved is left as it is, and the note says what a run would do.

    Raises:
        TrackingError: no such kind of store, a path that cannot be written, or a server that does not answer.
    """
    if uri is None:
        return _check_sqlite(Path(out).absolute() / "mlflow.db", plan=plan)
    try:
        parts = urlsplit(uri)
    except ValueError:  # no URI at all
        parts = urlsplit("")
    scheme = parts.scheme.split("+")[0]  # without its driver
    if scheme == "sqlite":
        place = uri.partition("sqlite:///")[2]
        if not place or place == ":memory:" or "?" in place:
            raise TrackingError(
                f"tracking URI must name a database file as sqlite:///path/mlflow.db, got {mask_secrets(uri)!r}. "
                f"Correct --tracking-uri, or {_WAYS_OUT}."
            )
        return _check_sqlite(Path(place).expanduser().absolute(), plan=plan)
    if scheme in ("http", "https") and parts.netloc:
        tracking = Tracking(uri.rstrip("/"), None)
    elif scheme in _PORTS:
        tracking = Tracking(uri, str(Path(out).absolute() / "artifacts"))
        with explained(tracking):  # knocks at its port, because MLflow would ask a silent one for 100 seconds
            address = (parts.hostname or "localhost", parts.port or _PORTS[scheme])
            socket.create_connection(address, timeout=SERVER_SECONDS).close()
    else:
        raise TrackingError(
            "tracking URI must be http://…, https://…, sqlite:///path/mlflow.db or another database that MLflow knows, "
            f"got {mask_secrets(uri)!r}. Correct --tracking-uri, or {_WAYS_OUT}."
        )
    # One real question, so that wrong credentials and wrong servers show now.
    with explained(tracking), patience(SERVER_SECONDS, 0):
        tracking.client().search_experiments(max_results=1)
    return tracking


@contextmanager
def explained(tracking: Tracking) -> Iterator[None]:
    """Turn whatever MLflow raises inside into one ``TrackingError`` with its remedy."""
    try:
        yield
    except CarsweepError:
        raise
    except Exception as error:
        raise TrackingError(_explanation(tracking, error)) from error


def _explanation(tracking: Tracking, error: Exception) -> str:
    said, shown = str(error), one_line(error)
    if tracking.uri.startswith("http"):
        pattern, must, remedy = next(problem for problem in _SERVER_PROBLEMS if re.search(problem[0], said))
        why = "" if pattern else f" ({shown})"
        return f"tracking server {tracking.shown_uri} must {must}{why}. {remedy}, or {_WAYS_OUT}."
    if "out-of-date database schema" in said:
        return (
            f"tracking database {tracking.shown_uri} must have the installed MLflow's schema. "
            "Run `mlflow db upgrade` on it after a backup, or choose another --out."
        )
    remedy = next(remedy for pattern, remedy in _DATABASE_PROBLEMS if re.search(pattern, said))
    return f"tracking database {tracking.shown_uri} must be readable and writable ({shown}). {remedy}."


@contextmanager
def patience(seconds: int = UPLOAD_SECONDS, retries: int = 2) -> Iterator[None]:
    """Let MLflow wait for a server's answer that long, and ask again that often."""
    wanted = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    before = {name: os.environ[name] for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.update(before)


def _check_sqlite(path: Path, *, plan: bool) -> Tracking:
    """Check that a database can be written, and lead it to the models and files of its runs, which lie beside it.

    MLflow would retry a file that it cannot open for 100 seconds.
    """
    if set("%?#") & set(str(path)):
        raise TrackingError(f"path of the tracking database must not contain %, ? or #, got {str(path)!r}. Rename it.")
    tracking = Tracking(f"sqlite:///{path}", str(path.parent / "artifacts"))
    with explained(tracking):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            tempfile.TemporaryFile(dir=path.parent).close()
            return tracking
        with closing(sqlite3.connect(path, timeout=SERVER_SECONDS, isolation_level=None)) as database:
            return replace(tracking, note=mend_places(database, path, plan=plan))


def _make_database(path: Path, artifacts: str) -> None:
    """Make a fresh database whole or not at all.

    Processes that meet an empty database all migrate it at once and break it, and a kill inside a migration ruins the
    file for good: it is made by one process, under another name.
    """
    if path.exists() and path.stat().st_size:
        return
    with FileLock(f"{path}.lock"):
        if path.exists() and path.stat().st_size:
            return
        for left_over in path.parent.glob(f".{path.name}.*.tmp*"):
            left_over.unlink()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.touch()
        compat.make_tables(f"sqlite:///{temporary}", artifacts)
        temporary.replace(path)
