"""MLflow's model registry: the winner of a sweep becomes a version of ``carsweep-<family>`` and its challenger."""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

import carcls
from carcls.errors import TrackingError, mask_secrets
from sweeps.result import Registered
from sweeps.tracking_runs import SWEEP_ID, TRIAL, KnownRun, SweepRuns
from sweeps.tracking_store import Tracking, explained, patience, remove_files

CHALLENGER = "challenger"
UPLOAD_SECONDS = 120
# What carcls needs to serve a model; MLflow's own inference would load the model in another process to find out.
_REQUIREMENTS = (
    "mlflow",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "filelock",
)
# The winner's answers to the test images, in the artifacts of its run: what promotion compares.
PREDICTIONS = "test-predictions.npz"
TEST_IMAGES = "test_images"
# On versions whose model was trained on the validation images too.
REFIT = "refit"
_COLUMNS: Mapping[str, DataType | Array] = {
    "label": DataType.string,
    "probability": DataType.double,
    "top_labels": Array(DataType.string),
    "top_probabilities": Array(DataType.double),
}
_NEIGHBOUR_COLUMNS: Mapping[str, DataType | Array] = {
    "neighbour_images": Array(DataType.string),
    "neighbour_labels": Array(DataType.string),
    "neighbour_distances": Array(DataType.double),
}


def register_best(
    tracking: Tracking,
    *,
    family: str,
    sweep_id: str,
    number: int,
    export: Path,
    metrics: Mapping[str, float],
    test: Mapping[str, float],
    details: Mapping[str, Any],
    predictions: Path,
) -> Registered:
    """Register the export of a sweep's best trial. A trial that is registered already keeps its version.

    Sets MLflow's global tracking URI, which logging a model needs. Takes seconds, and longer over a network.

    Args:
        tracking: from ``open_tracking``.
        family: the model is called ``carsweep-<family>``.
        sweep_id, number: the trial; its run must be in MLflow (see ``Mirror.flush``), and gets the model.
        export: folder written by ``carcls.export``.
        metrics: the trial's validation metrics.
        test: ``test_accuracy`` and the others; logged to the trial's run too.
        details: more tags of the version: data digest, backbone, … and ``test_images``, which is equal for two
            versions that were tested on the same images, and ``refit``, ``true`` for the trial's settings trained on
            the validation images too, which is another model than the trial's own.
        predictions: the trial's answers to the test images, a file ``test-predictions.npz``; logged to its run. A
            version whose file is gone is registered without, and cannot be compared with another one.

    Raises:
        TrackingError: MLflow does not have the trial's run, or cannot be written.
    """
    assert predictions.name == PREDICTIONS
    name = model_name(family)
    client = tracking.client()
    trial = _Trial(name, sweep_id, number, str(details.get(REFIT, "")))
    with explained(tracking), patience(UPLOAD_SECONDS, 2):
        version = _the_version(client, trial)
        if version is None:
            run = _run_of(tracking, family, sweep_id, number, refit=REFIT in details)
            _log_test(client, run, test)
            if predictions.is_file():
                client.log_artifact(run.run_id, str(predictions))
            tags = _tags(sweep_id, number, metrics, test, details)
            _make_version(tracking, family, run, export, tags)
            version = _the_version(client, trial)
            assert version is not None
        challenger = _point_alias(client, name, version)
        _remove_half_made(tracking, family, trial)
    return _registered(version, challenger=challenger)


def find_registered(
    tracking: Tracking, *, family: str, sweep_id: str, number: int, refit: bool = False
) -> Registered | None:
    """Return where the registry has a trial's model now; None where it does not have it any more.

    The alias is given to it only where no version holds it.

    Raises:
        TrackingError: MLflow does not answer.
    """
    name = model_name(family)
    client = tracking.client()
    with explained(tracking), patience(UPLOAD_SECONDS, 2):
        trial = _Trial(name, sweep_id, number, "true" if refit else "")
        version = _the_version(client, trial)
        _remove_half_made(tracking, family, trial)
        if version is None:
            return None
        holder = client.get_registered_model(name).aliases.get(CHALLENGER)
        if holder is None:
            client.set_registered_model_alias(name, CHALLENGER, str(version.version))
    return _registered(version, challenger=str(holder or version.version) == str(version.version))


def _registered(version: ModelVersion, *, challenger: bool) -> Registered:
    if challenger:
        return Registered(version.name, str(version.version), CHALLENGER, f"models:/{version.name}@{CHALLENGER}")
    return Registered(version.name, str(version.version), "", f"models:/{version.name}/{version.version}")


def model_name(family: str) -> str:
    """Return the name of the registered model that holds a family's winners."""
    return f"carsweep-{family}"


def signature_of(family: str) -> ModelSignature:
    """Return what a family's models answer.

    It has no inputs on purpose: every input schema that takes paths refuses arrays, and the other way round.
    """
    return ModelSignature(inputs=None, outputs=Schema([ColSpec(kind, name) for name, kind in _columns(family).items()]))


def description_of(family: str) -> str:
    """Return what a family's models accept and answer, for people."""
    return (
        "Accepts image paths (one, a list, a Series), arrays uint8 [h, w, 3] or [b, h, w, 3] or a list of them, or a "
        "DataFrame with the column `image` of either. Give the car's box cut out where the training data had boxes. "
        f"Returns one row an image: {', '.join(_columns(family))}."
    )


def _columns(family: str) -> dict[str, DataType | Array]:
    return {**_COLUMNS, **(_NEIGHBOUR_COLUMNS if family == "retrieval" else {})}


class _Trial(NamedTuple):
    """Whose model it is: the registered model's name, the sweep, the trial, and ``true`` for the trial's refit."""

    name: str
    sweep_id: str
    number: int
    refit: str

    @property
    def query(self) -> str:
        """What finds models of the trial, with and without refit."""
        return f"tags.`{SWEEP_ID}` = '{self.sweep_id}' AND tags.`{TRIAL}` = '{self.number}'"


def _the_version(client: MlflowClient, trial: _Trial) -> ModelVersion | None:
    """Return the trial's version.

    MLflow makes more when a request is sent again; those that no alias holds are removed.
    """
    found = client.search_model_versions(f"name = '{trial.name}' AND {trial.query}")
    versions = sorted((v for v in found if v.tags.get(REFIT, "") == trial.refit), key=lambda v: int(v.version))
    if len(versions) < 2:
        return versions[0] if versions else None
    held = {str(number) for number in client.get_registered_model(trial.name).aliases.values()}
    kept = next((v for v in versions if str(v.version) in held), versions[0])
    for version in versions:
        if version is not kept and str(version.version) not in held:
            client.delete_model_version(trial.name, version.version)
    return kept


def _remove_half_made(tracking: Tracking, family: str, trial: _Trial) -> None:
    """Remove models of the trial that no version has, which a process left that died while it uploaded them."""
    client, experiment = tracking.client(), tracking.experiment(family)
    versions = client.search_model_versions(f"name = '{trial.name}'")
    used = {v.model_id for v in versions} | {v.source for v in versions}
    for model in client.search_logged_models([experiment], filter_string=trial.query):
        if model.tags.get(REFIT, "") == trial.refit and not {model.model_id, model.model_uri} & used:
            remove_files(tracking, model.artifact_location)
            client.delete_logged_model(model.model_id)


def _run_of(tracking: Tracking, family: str, sweep_id: str, number: int, *, refit: bool) -> KnownRun:
    runs = SweepRuns(tracking, family=family, sweep_id=sweep_id, name=sweep_id)
    runs.read()
    if number not in runs.trials:
        raise TrackingError(
            f"trial {number} must have a run in {tracking.shown_uri}, got none. "
            "Run the sweep again: nothing is trained twice, and MLflow is brought in line."
        )
    return runs.refit_of(number) if refit else runs.trials[number]


def _log_test(client: MlflowClient, run: KnownRun, test: Mapping[str, float]) -> None:
    client.log_batch(run.run_id, [Metric(name, float(value), run.start, 0) for name, value in test.items()])


def _tags(
    sweep_id: str, number: int, metrics: Mapping[str, float], test: Mapping[str, float], details: Mapping[str, Any]
) -> dict[str, str]:
    scores = {**metrics, **test}
    accuracies = ("val_accuracy", "test_accuracy")
    shown: dict[str, str] = {name: f"{scores[name]:.4f}" for name in accuracies if name in scores}
    named = {name: mask_secrets(str(value)) for name, value in details.items()}
    return {**named, **shown, SWEEP_ID: sweep_id, TRIAL: str(number)}


def _make_version(tracking: Tracking, family: str, run: KnownRun, export: Path, tags: Mapping[str, str]) -> None:
    client, name, accepts = tracking.client(), model_name(family), description_of(family)
    uri, model_id = _log_model(tracking, family, run, export, tags)
    if not client.search_registered_models(f"name = '{name}'"):
        with suppress(MlflowException):  # another sweep was faster
            client.create_registered_model(name, description=f"Car classifier, found by carsweep. {accepts}")
    client.create_model_version(
        name, source=uri, run_id=run.run_id, model_id=model_id, tags=dict(tags), description=accepts
    )


def _log_model(
    tracking: Tracking, family: str, run: KnownRun, export: Path, tags: Mapping[str, str]
) -> tuple[str, str]:
    """Log the export as a model made of code and tensors, with no pickle; return its URI and id."""
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    mlflow.set_experiment(experiment_id=tracking.experiment(family))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # MLflow would like an input example; the signature says what can be said.
        warnings.simplefilter("ignore")
        # Of Model and not of pyfunc, because that would open the trial's run again.
        info = Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=run.run_id,
            tags=dict(tags),
            python_model=str(Path(__file__).with_name("registry_pyfunc.py")),
            artifacts={"export": str(export)},
            code_paths=[str(_packed_code(Path(folder) / "carcls.zip"))],
            pip_requirements=requirements(),
            signature=signature_of(family),
            metadata={"accepts": description_of(family)},
        )
    return str(info.model_uri), str(info.model_id)


def _packed_code(archive: Path) -> Path:
    """Write carcls into one file that Python imports from; a server would get a request for each file of a folder."""
    package = Path(carcls.__file__).parent
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, file.relative_to(package.parent))
    return archive


def requirements() -> list[str]:
    """Pin what is installed, without the part after ``+``, which names a build that package indexes do not have."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS]


def _point_alias(client: MlflowClient, name: str, version: ModelVersion) -> bool:
    """Make the version the challenger, unless a later one is; return whether it is."""
    current = int(client.get_registered_model(name).aliases.get(CHALLENGER, 0))
    if current < int(version.version):
        client.set_registered_model_alias(name, CHALLENGER, str(version.version))
    return current <= int(version.version)
