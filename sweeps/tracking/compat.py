"""What we use of MLflow that its documentation does not name, each with what is done where a later MLflow lacks it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

# MLflow reads its environment when it is imported: it reports nothing to its makers, and stdout is left to us.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    # Its own patience with a silent server is 120 s, eight times over. It asks once: whoever asks looks first whether a
    # request whose answer was lost was carried out, and MLflow's client does not.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}.items():
    os.environ.setdefault(_name, _value)
# It names a model that this store may not have, and every metric would be logged for it.
os.environ.pop("MLFLOW_ACTIVE_MODEL_ID", None)
# They print a traceback for each error that they also raise; where they are called otherwise, it is seen.
for _name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# MLflow sets them to what its global functions use, for processes that it starts.
_GLOBAL = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID")
# The version of MLflow whose pages and server were seen to be as we have them.
PAGES = "3.17."
# Two threads that change the same store at a time would leave it changed.
_ONE_AT_A_TIME = threading.Lock()


def make_tables(uri: str, artifacts: str) -> None:
    """Make MLflow's tables in an empty database; where that cannot be called, MLflow does it when it opens the file."""
    with suppress(ImportError):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, artifacts).engine.dispose()


def reads_views(client: Any) -> bool:
    """Tell whether the pages that show a client's store are known to read saved views; its server is asked by it."""
    if not client.tracking_uri.startswith("http"):
        return version("mlflow").startswith(PAGES)
    with suppress(Exception):
        store = client._tracking_client.store
        return str(store._get_server_version(store.get_host_creds())).startswith(PAGES)
    return False


def pages_server(uri: str, artifacts: str, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves MLflow's pages on a database, and its environment, which alone has the address.

    `mlflow server` loads MLflow, then starts another process that loads it again. Where that is known, it is started
    directly: it listens after half the time.
    """
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    place = ["--host", host, "--port", str(port), "--workers", "1"]
    if version("mlflow").startswith(PAGES):
        known = {"_MLFLOW_SERVER_FILE_STORE": uri, "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts}
        quiet |= {"PYTHONWARNINGS": "ignore", **known}
        return [
            sys.executable,
            "-m",
            "uvicorn",
            *place,
            "--log-level",
            "warning",
            "mlflow.server.fastapi_app:app",
        ], quiet
    place += ["--default-artifact-root", artifacts, "--uvicorn-opts", "--log-level warning"]
    return [sys.executable, "-m", "mlflow", "server", *place], {**quiet, "MLFLOW_BACKEND_STORE_URI": uri}


def remove_files(uri: str, place: str) -> None:
    """Remove the files that a run or a model of a store has at ``place``; MLflow's own way is `mlflow gc`, for all."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(place, tracking_uri=uri).delete_artifacts()


def top_files(uri: str, place: str, folder: Path, besides: Container[str]) -> dict[str, Path]:
    """Return copies in ``folder`` of the files that a model of a store has at the top of ``place``, by their names.

    MLflow's public way sends five requests a file, this one two.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files = get_artifact_repository(place, tracking_uri=uri)
    names = [file.path for file in files.list_artifacts() if not file.is_dir and file.path not in besides]
    return {name: Path(files.download_artifacts(name, str(folder))) for name in names}


@contextmanager
def store_in_use(uri: str, experiment: str | None = None) -> Iterator[None]:
    """Lead MLflow's global functions to a store, and one of its experiments, then back: a notebook has its own."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as service

    runs, models = getattr(service, "_tracking_uri", None), getattr(registry, "_registry_uri", None)
    active = getattr(fluent, "_active_experiment_id", None)
    variables = {name: os.environ.get(name) for name in _GLOBAL}
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        if experiment is not None:
            mlflow.set_experiment(experiment_id=experiment)
        yield
    finally:
        mlflow.set_tracking_uri(runs)  # None takes it back
        mlflow.set_registry_uri(models)
        fluent._active_experiment_id = active
        for name, value in variables.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


@contextmanager
def one_transaction(client: Any) -> Iterator[None]:
    """Carry out all requests of this thread to a database at the end, or none of them if left by an exception.

    A request to MLflow is up to four transactions; each waits for the disk, and reads again what the one before wrote.
    A run that is made, logged to and closed takes 137 ms so, and 16 ms in one transaction with nine others (SQLite, two
    busy cores).

    Args:
        client: an ``MlflowClient``.

    Raises:
        AttributeError: requests go to a server, or the names are gone; then each request is to be sent by itself.
    """
    store, thread = client._tracking_client.store, threading.get_ident()

    @contextmanager
    def same_session(read_only: bool = True) -> Iterator[Any]:
        if threading.get_ident() != thread:
            with make_session(read_only=read_only) as other:
                yield other
        else:
            yield session
            session.flush()

    with _ONE_AT_A_TIME:
        make_session = store.ManagedSessionMaker  # MLflow's own: clients of a database share its store
        with make_session(read_only=False) as session:
            commit, roll_back = session.commit, session.rollback
            store.ManagedSessionMaker, session.commit, session.rollback = same_session, session.flush, _cannot
            try:
                yield
            finally:
                store.ManagedSessionMaker, session.commit, session.rollback = make_session, commit, roll_back


def _cannot() -> None:
    """Take the place of a rollback: MLflow would go on after it with its own request, and lose those before it."""
    from mlflow.exceptions import MlflowException

    raise MlflowException("a request cannot be taken back by itself")
