"""What a sweep has left, in its folder and in MLflow, and how it goes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError
from sweeps.lock import locked
from sweeps.spec.sweep_file import read_file
from sweeps.tracking.registry import held_versions, model_name
from sweeps.tracking.runs import of_sweep, runs_of
from sweeps.tracking.store import Tracking, check_tracking, explained, remove_files

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, slots=True)
class Remains:
    """What a sweep has left.

    Attributes:
        folder: of the sweep.
        size: of the folder, in bytes.
        tracking: where MLflow has its runs; None where there is no such store.
        runs, models, versions: in MLflow, that go.
        kept: versions that an alias holds, with its names; they, their models and their runs stay.
    """

    folder: Path
    size: int
    tracking: Tracking | None
    runs: tuple[Run, ...] = ()
    models: tuple[LoggedModel, ...] = ()
    versions: tuple[ModelVersion, ...] = ()
    kept: tuple[tuple[ModelVersion, tuple[str, ...]], ...] = ()


def find_remains(folder: Path, tracking_uri: str | None) -> Remains:
    """Return what the sweep in ``folder`` has left.

    Args:
        folder: of the sweep.
        tracking_uri: as it was given for it; None is the database beside it.

    Raises:
        TrackingError: MLflow cannot be asked.
    """
    remains = Remains(folder, sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()), None)
    file = read_file(folder)
    if tracking_uri is None and not (folder.parent / "mlflow.db").is_file():
        return remains
    (spec,) = file.read_specs()
    tracking = check_tracking(tracking_uri, folder.parent)
    with explained(tracking):
        return replace(_find_in_mlflow(remains, tracking, spec.family, file.id), tracking=tracking)


def _find_in_mlflow(remains: Remains, tracking: Tracking, family: str, sweep_id: str) -> Remains:
    client, name = tracking.client(), model_name(family)
    experiment = client.get_experiment_by_name(f"carsweep-{family}")
    if experiment is None or not sweep_id:
        return remains
    versions = client.search_model_versions(f"name = '{name}' AND {of_sweep(sweep_id)}")
    held = held_versions(client, name) if versions else {}
    kept = [version for version in versions if str(version.version) in held]
    sources, needed = {version.source for version in kept}, {version.run_id for version in kept}
    models = client.search_logged_models([str(experiment.experiment_id)], filter_string=of_sweep(sweep_id))
    runs = runs_of(client, experiment.experiment_id, sweep_id)
    return replace(
        remains,
        runs=tuple(run for run in runs if run.info.run_id not in needed),
        models=tuple(model for model in models if model.model_uri not in sources),
        versions=tuple(version for version in versions if version not in kept),
        kept=tuple((version, held[str(version.version)]) for version in kept),
    )


def remove(remains: Remains) -> None:
    """Remove what is left of a sweep, its folder last: what is interrupted can be done again.

    Raises:
        InputError: something runs the sweep.
        TrackingError: MLflow does not answer; the folder is there still.
    """
    with locked(remains.folder):
        if remains.tracking is not None:
            with explained(remains.tracking):
                _remove_from_mlflow(remains, remains.tracking)
        try:
            shutil.rmtree(remains.folder)
        except OSError as error:
            raise InputError(
                f"{str(remains.folder)!r} must be writable to be removed ({error.strerror}). Mend that, and give the "
                "command again: in MLflow nothing is left of it."
            ) from None
        # While it is held: whoever waits for it notices that it is gone, and takes a new one.
        for what in ("lock", "holder"):
            (remains.folder.parent / f".{remains.folder.name}.{what}").unlink(missing_ok=True)


def _remove_from_mlflow(remains: Remains, tracking: Tracking) -> None:
    client = tracking.client()
    for version in remains.versions:
        client.delete_model_version(version.name, version.version)
    for model in remains.models:
        remove_files(tracking, model.artifact_location)
        client.delete_logged_model(model.model_id)
    for run in remains.runs:
        remove_files(tracking, run.info.artifact_uri)
        client.delete_run(run.info.run_id)
    for name in {version.name for version in remains.versions}:
        if not client.search_model_versions(f"name = '{name}'"):
            client.delete_registered_model(name)
