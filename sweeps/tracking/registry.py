"""MLflow's model registry: the winner of a sweep becomes a version of ``carsweep-<family>`` and its challenger."""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

import carcls
from carcls.errors import TrackingError, mask_secrets
from sweeps.results.result import Registered
from sweeps.tracking.runs import SWEEP_ID, TRIAL, KnownRun, SweepRuns, of_sweep
from sweeps.tracking.store import Tracking, explained, patience, remove_files

CHALLENGER = "challenger"
UPLOAD_SECONDS = 120
# What carcls needs to serve a model; MLflow's own inference would load the model in another process to find out.
_NEEDED = ("mlflow", "torch", "torchvision", "timm", "safetensors", "numpy", "pandas", "pillow", "pydantic", "filelock")
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


@dataclass(frozen=True)
class TrialModel:
    """What MLflow has of the model of a sweep's best trial.

    Attributes:
        tracking: from ``open_tracking``.
        family: the model is called ``carsweep-<family>``.
        sweep_id, number: the trial.
        refit: whether it is the trial's settings trained on the validation images too, which is another model.
    """

    tracking: Tracking
    family: str
    sweep_id: str
    number: int
    refit: bool = False

    @cached_property
    def _client(self) -> MlflowClient:
        return self.tracking.client()

    @property
    def _name(self) -> str:
        return model_name(self.family)

    @property
    def _query(self) -> str:
        return f"{of_sweep(self.sweep_id)} AND tags.`{TRIAL}` = '{self.number}'"

    def find(self) -> Registered | None:
        """Return where the registry has the model now; None where it does not have it any more.

        The alias is given to it only where no version holds it.

        Raises:
            TrackingError: MLflow does not answer.
        """
        with explained(self.tracking), patience(UPLOAD_SECONDS, 2):
            version = self._version()
            self._remove_half_made()
            if version is None:
                return None
            if self._challenger() in (0, int(version.version)):
                return self._challenge(version)
        return _registered(version, challenger=False)

    def register(
        self,
        export: Path,
        *,
        metrics: Mapping[str, float],
        test: Mapping[str, float],
        details: Mapping[str, Any],
        predictions: Path,
    ) -> Registered:
        """Register the trial's export. A trial that is registered already keeps its version.

        Sets MLflow's global tracking URI, which logging a model needs. Takes seconds, and longer over a network.

        Args:
            export: folder written by ``carcls.export``.
            metrics: the trial's validation metrics.
            test: ``test_accuracy`` and the others; logged to the trial's run too, which must be in MLflow.
            details: more tags of the version: data digest, backbone, … and ``test_images``, which is equal for two
                versions that were tested on the same images.
            predictions: the trial's answers to the test images, a file ``test-predictions.npz``; logged to its run. A
                version whose file is gone is registered without, and cannot be compared with another one.

        Raises:
            TrackingError: MLflow does not have the trial's run, or cannot be written.
        """
        assert predictions.name == PREDICTIONS
        with explained(self.tracking), patience(UPLOAD_SECONDS, 2):
            version = self._version()
            if version is None:
                run = self._run()
                tested = [Metric(name, float(value), run.start, 0) for name, value in test.items()]
                self._client.log_batch(run.run_id, tested)
                if predictions.is_file():
                    self._client.log_artifact(run.run_id, str(predictions))
                accuracies = ("val_accuracy", "test_accuracy")
                scores = {name: f"{value:.4f}" for name, value in {**metrics, **test}.items() if name in accuracies}
                self._make_version(run, export, {**details, **scores})
                version = self._version()
                assert version is not None
            registered = self._challenge(version)
            self._remove_half_made()
        return registered

    def _version(self) -> ModelVersion | None:
        """Return the model's version.

        MLflow makes more when a request is sent again; those that no alias holds are removed.
        """
        found = self._client.search_model_versions(f"name = '{self._name}' AND {self._query}")
        versions = sorted(filter(self._is_of_this, found), key=lambda version: int(version.version))
        if len(versions) < 2:
            return versions[0] if versions else None
        held = held_versions(self._client, self._name)
        kept = next((version for version in versions if str(version.version) in held), versions[0])
        for version in versions:
            if version is not kept and str(version.version) not in held:
                self._client.delete_model_version(self._name, version.version)
        return kept

    def _is_of_this(self, found: ModelVersion | LoggedModel) -> bool:
        """Tell a trial's model from its refit's, which has the same trial."""
        return (REFIT in found.tags) == self.refit

    def _run(self) -> KnownRun:
        """Return the run that gets the model.

        Raises:
            TrackingError: MLflow does not have the trial.
        """
        runs = SweepRuns(self.tracking, family=self.family, sweep_id=self.sweep_id, name=self.sweep_id)
        runs.read()
        run = runs.trial(self.number)
        if run is None:
            raise TrackingError(
                f"trial {self.number} must have a run in {self.tracking.shown_uri}, got none. "
                "Run the sweep again: nothing is trained twice, and MLflow is brought in line."
            )
        return runs.refit_of(self.number) if self.refit else run

    def _make_version(self, run: KnownRun, export: Path, details: Mapping[str, Any]) -> None:
        """Upload the export as a model of the run, and make a version of it, both with the details as tags."""
        tags = {name: mask_secrets(str(value)) for name, value in details.items()}
        tags |= {SWEEP_ID: self.sweep_id, TRIAL: str(self.number)} | ({REFIT: "true"} if self.refit else {})
        accepts = description_of(self.family)
        uri, model_id = _log_model(self.tracking, self.family, run, export, tags)
        if not self._client.search_registered_models(f"name = '{self._name}'"):
            with suppress(MlflowException):  # another sweep was faster
                about = f"Car classifier, found by carsweep. {accepts}"
                self._client.create_registered_model(self._name, description=about)
        self._client.create_model_version(
            self._name, source=uri, run_id=run.run_id, model_id=model_id, tags=tags, description=accepts
        )

    def _challenger(self) -> int:
        """Return the version that holds the alias; 0 where none does."""
        return int(self._client.get_registered_model(self._name).aliases.get(CHALLENGER, 0))

    def _challenge(self, version: ModelVersion) -> Registered:
        """Make the version the challenger, unless a later one is."""
        number, current = int(version.version), self._challenger()
        if current < number:
            self._client.set_registered_model_alias(self._name, CHALLENGER, str(number))
        return _registered(version, challenger=current <= number)

    def _remove_half_made(self) -> None:
        """Remove models that no version has, which a process left that died while it uploaded them."""
        versions = self._client.search_model_versions(f"name = '{self._name}'")
        used = {version.model_id for version in versions} | {version.source for version in versions}
        experiment = self.tracking.experiment(self.family)
        for model in self._client.search_logged_models([experiment], filter_string=self._query):
            if self._is_of_this(model) and not {model.model_id, model.model_uri} & used:
                remove_files(self.tracking, model.artifact_location)
                self._client.delete_logged_model(model.model_id)


def _registered(version: ModelVersion, *, challenger: bool) -> Registered:
    place = f"@{CHALLENGER}" if challenger else f"/{version.version}"
    alias = CHALLENGER if challenger else ""
    return Registered(version.name, str(version.version), alias, f"models:/{version.name}{place}")


def model_name(family: str) -> str:
    """Return the name of the registered model that holds a family's winners."""
    return f"carsweep-{family}"


def held_versions(client: MlflowClient, name: str) -> dict[str, tuple[str, ...]]:
    """Return the versions of a registered model that aliases hold, each with their names."""
    aliases = client.get_registered_model(name).aliases.items()
    return {str(held): tuple(alias for alias, version in aliases if version == held) for _, held in aliases}


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


def _log_model(tracking: Tracking, family: str, run: KnownRun, export: Path, tags: dict[str, str]) -> tuple[str, str]:
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
            tags=tags,
            python_model=str(Path(__file__).with_name("model_code.py")),
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
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in _NEEDED]
