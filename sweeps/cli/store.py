"""The model registry that a command asks, opened with one clear message where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError
from sweeps.cli.output import Streams

if TYPE_CHECKING:
    from sweeps.tracking.found import FoundModel
    from sweeps.tracking.store import Tracking


def store_of(out: Path) -> str:
    """Return the URI of the store that sweeps make under ``out``.

    Raises:
        InputError: there is none.
    """
    database = out.resolve() / "mlflow.db"
    if not database.is_file():
        raise InputError(f"--out must be a folder with runs, got {str(out)!r}. Run a sweep first, or name its --out.")
    return f"sqlite:///{database}"


def open_store(streams: Streams, out: Path, tracking_uri: str | None) -> Tracking:
    """Return the store of a command's --out and --tracking-uri, and load MLflow.

    Raises:
        InputError: there is none.
        TrackingError: it does not answer.
    """
    uri = store_of(out) if tracking_uri is None else tracking_uri
    _, is_file, path = uri.partition("sqlite:///")
    if is_file and not Path(path).expanduser().is_file():  # opening it would make it
        raise InputError(f"--tracking-uri must name an existing database, got {uri!r}. Name the one of a sweep.")
    from sweeps.tracking.store import check_tracking
    from sweeps.waits import Waiting

    with Waiting(streams.notify, "opening MLflow's store …"):
        store = check_tracking(uri, out)
        import sweeps.tracking.models  # noqa: F401 - it loads MLflow
    if store.note:
        streams.notify(store.note)
    return store


def model_named(streams: Streams, wanted: str | None, out: Path, tracking_uri: str | None) -> FoundModel:
    """Return the model that a command asks; an export's folder needs no store. Errors as ``find_model``."""
    from sweeps.tracking.found import export_at

    if exported := export_at(wanted):
        return exported
    store = open_store(streams, out, tracking_uri)
    from sweeps.tracking.models import find_model

    return find_model(store, wanted, out=out)
