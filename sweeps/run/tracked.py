"""MLflow and a sweep that nothing runs: brought in line with its records and its result, or rid of it altogether."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.data.dataset import Dataset
from carcls.errors import InputError
from sweeps.lock import locked
from sweeps.results.result import read_result
from sweeps.run.conclusion import summarise
from sweeps.run.status import sweeps_in
from sweeps.spec.sweep_file import has_begun, read_file, read_spec
from sweeps.study.records import read_history
from sweeps.tracking.compat import reads_views, remove_files
from sweeps.tracking.mirror import mirror_of
from sweeps.tracking.names import SWEEP_ID, experiment_name, of_sweep
from sweeps.tracking.registry import TrialModel, held_versions
from sweeps.tracking.runs import hide, runs_of
from sweeps.tracking.store import SERVER_SECONDS, Tracking, check_tracking, explained, patience
from sweeps.tracking.views import show, view_of

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, slots=True)
class Repaired:
    """A sweep as MLflow has it now.

    Attributes:
        sweep: its name.
        trials: that have a run.
        epochs: that their runs have.
        written: whether MLflow took all of it.
        version: of the winner in the registry; empty where there is none.
        lost: whether the result names a version that the registry does not have any more.
    """

    sweep: str
    trials: int
    epochs: int
    written: bool
    version: str
    lost: bool


def repair(folder: Path, tracking_uri: str | None, notify: Callable[[str], None]) -> Repaired:
    """Bring MLflow in line with the sweep in ``folder``: one parent, one run a trial, every epoch once, one version.

    Args:
        folder: of a sweep that nothing runs.
        tracking_uri: as it was given for the sweep; None is the database beside it.
        notify: gets what could not be written.

    Raises:
        InputError: something runs the sweep, or it has not begun.
        TrackingError: MLflow cannot be used.
    """
    if not has_begun(folder):
        raise InputError(f"NAME must be of a sweep that has begun, got {folder.name!r}: it has no trials yet.")
    with locked(folder):
        file, records, result = read_file(folder), read_history(folder).records, read_result(folder)
        (spec,) = file.read_specs()
        best = result.winner if result else None
        tracking = check_tracking(tracking_uri, folder.parent)
        if tracking.note:
            notify(tracking.note)
        mirror = mirror_of(spec, folder, tracking, Dataset.load(folder / "dataset.json").summary, notify)
        mirror.bring_in_line(records, winner=best)
        if result is not None:
            summarise(mirror, records, result, folder)
        whole = result is not None and not result.interrupted
        written = mirror.close(("complete" if best is not None else "failed") if whole else "interrupted")
        was_registered, found = result is not None and result.registered is not None, None
        if best is not None and was_registered:
            found = TrialModel(tracking, spec.family, file.id, best, spec.refit, spec.model_name).find()
    with_runs = [record for record in records if record.derived_from is None or record.number == best]
    return Repaired(
        sweep=folder.name,
        trials=len(with_runs),
        epochs=sum(len(record.history) for record in with_runs),
        written=written,
        version=str(found) if found else "",
        lost=found is None and was_registered,
    )


def page_of(out: Path, name: str, tracking_uri: str | None) -> str:
    """Return the address of the leaderboard of a sweep or a job on MLflow's pages, behind the server's own.

    Where these pages read saved views, the view is saved, so that sweeps of older versions have one, too.

    Args:
        out: folder of all sweeps.
        name: of the sweep or the job.
        tracking_uri: where MLflow has the runs; None is the database in ``out``.

    Returns:
        Nothing where MLflow has no runs of the sweep's family.

    Raises:
        InputError: there is nothing called ``name``.
        TrackingError: MLflow cannot be asked.
    """
    specs, file = [read_spec(out / sweep) for sweep in sweeps_in(out, name)], read_file(out / name)
    tracking = check_tracking(tracking_uri, out)
    with explained(tracking), patience(SERVER_SECONDS, 0):
        client = tracking.client()
        found = (client.get_experiment_by_name(experiment_name(family)) for family in {s.family: 0 for s in specs})
        experiments = [experiment for experiment in found if experiment is not None]
        if not experiments or not file.id:
            return ""
        view, saved = (
            view_of(specs, name, file.id, is_job=file.kind != "sweep"),
            reads_views(client),
        )
        for experiment in experiments if saved else ():  # the page reads it from the one that it happens to load first
            show(client, experiment, view)
    return view.address([str(experiment.experiment_id) for experiment in experiments], saved=saved)


@dataclass(slots=True)
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
    tracking: Tracking | None = None
    runs: list[Run] = field(default_factory=list)
    models: list[LoggedModel] = field(default_factory=list)
    versions: list[ModelVersion] = field(default_factory=list)
    kept: list[tuple[ModelVersion, tuple[str, ...]]] = field(default_factory=list)


def find_remains(folder: Path, tracking_uri: str | None) -> Remains:
    """Return what the sweep in ``folder`` has left.

    Args:
        folder: of the sweep.
        tracking_uri: as it was given for it; None is the database beside it.

    Raises:
        TrackingError: MLflow cannot be asked.
    """
    left = Remains(folder, sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()))
    if tracking_uri is None and not (folder.parent / "mlflow.db").is_file():
        return left
    file = read_file(folder)
    (spec,) = file.read_specs()
    left.tracking = check_tracking(tracking_uri, folder.parent)
    with explained(left.tracking):
        client = left.tracking.client()
        experiment = client.get_experiment_by_name(experiment_name(spec.family))
        if experiment is None or not file.id:
            return left
        for version in client.search_model_versions(of_sweep(file.id)):
            held = held_versions(client, version.name)
            if str(version.version) in held:
                left.kept.append((version, held[str(version.version)]))
            else:
                left.versions.append(version)
        stays = {one for version, _ in left.kept for one in (version.source, version.run_id)}
        models = client.search_logged_models([str(experiment.experiment_id)], filter_string=of_sweep(file.id))
        left.models = [model for model in models if model.model_uri not in stays]
        runs = runs_of(client, experiment.experiment_id, file.id)
        left.runs = [run for run in runs if run.info.run_id not in stays]
    return left


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
        remove_files(tracking.uri, model.artifact_location)
        client.delete_logged_model(model.model_id)
    for run in remains.runs:
        remove_files(tracking.uri, run.info.artifact_uri)
        client.delete_run(run.info.run_id)
    for experiment, known in {(run.info.experiment_id, run.data.tags[SWEEP_ID]) for run in remains.runs}:
        hide(client, experiment, known)
    for name in {version.name for version in remains.versions}:
        if not client.search_model_versions(f"name = '{name}'"):
            client.delete_registered_model(name)
