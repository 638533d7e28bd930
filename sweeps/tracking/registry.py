"""MLflow's model registry: the winner of a sweep becomes a version of a registered model, and its challenger."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature

from carcls.errors import mask_secrets
from sweeps.results.result import REGISTERED, Registered
from sweeps.tracking import pyfunc
from sweeps.tracking.challenge import judge
from sweeps.tracking.compat import remove_files, store_in_use, top_files
from sweeps.tracking.contest import FILES_TAG, champion_beside, checksums
from sweeps.tracking.names import CHALLENGE, CHALLENGER, PREDICTIONS, SWEEP_ID, TRIAL, VALIDATION, of_sweep
from sweeps.tracking.naming import claim_name
from sweeps.tracking.runs import KnownRun, SweepRuns
from sweeps.tracking.store import Tracking, explained, patience
from sweeps.tracking.updates import logged

# On versions whose model was trained on the validation images too.
REFIT = "refit"


def load_model(tracking: Tracking, registered: Registered) -> Any:
    """Return a version of a registered model as a pyfunc.

    Raises:
        TrackingError: MLflow does not have it, or does not answer.
    """
    with explained(tracking), patience(), store_in_use(tracking.uri):
        return mlflow.pyfunc.load_model(f"models:/{registered.name}/{registered.version}")


class TrialModel:
    """What MLflow has of the model of a sweep's best trial.

    Args:
        tracking: from ``check_tracking``.
        family: of the sweep.
        sweep_id, number: the trial.
        refit: whether it is the trial's settings trained on the validation images too, which is another model.
        wanted: name of the registered model, where the user gave one (see ``sweeps.tracking.naming``).
    """

    def __init__(
        self,
        tracking: Tracking,
        family: str,
        sweep_id: str,
        number: int,
        refit: bool = False,
        wanted: str | None = None,
    ) -> None:
        self._tracking, self._family, self._sweep_id, self._number = tracking, family, sweep_id, number
        self._refit, self._wanted = refit, wanted
        self._query = f"{of_sweep(sweep_id)} AND tags.`{TRIAL}` = '{number}'"

    @cached_property
    def _client(self) -> MlflowClient:
        return self._tracking.client()

    def find(self) -> Registered | None:
        """Return where the registry has the model now; None where it does not have it any more.

        The alias is given to it only where no version holds it.

        Raises:
            TrackingError: MLflow does not answer.
        """
        with explained(self._tracking), patience():
            version = self._version()
            self._remove_half_made()
            return None if version is None else self._challenge(version, over=0)

    def register(
        self,
        export: Path,
        *,
        metrics: Mapping[str, float],
        test: Mapping[str, float],
        details: Mapping[str, Any],
        predictions: Path,
        card: str = "",
    ) -> Registered:
        """Register the trial's export. A trial that is registered already keeps its version.

        Takes seconds, and longer over a network.

        Args:
            export: folder written by ``carcls.export``.
            metrics: the trial's validation metrics.
            test: ``test_accuracy`` and the others; logged to the trial's run too, which must be in MLflow.
            details: more tags of the version: ``data``, by which its model is named, data digest, backbone, … and
                ``test_images`` and ``validation_images``, each equal for two versions that saw the same ones.
            predictions: the trial's answers to the test images, a file ``test-predictions.npz``, beside which those to
                the validation images may lie; logged to its run. A version whose file is gone is registered without,
                and cannot be compared with another one.
            card: describes the version, whose name and number take the place of ``REGISTERED`` in it; MLflow has room
                for 5,000 characters in all.

        Raises:
            TrackingError: MLflow does not have the trial's run, or cannot be written.
        """
        assert predictions.name == PREDICTIONS
        with explained(self._tracking), patience():
            version = self._version()
            if version is None:
                runs = SweepRuns(self._tracking, family=self._family, sweep_id=self._sweep_id, name=self._sweep_id)
                run = runs.run_of_model(self._number, refit=self._refit)
                tested = [Metric(name, float(value), run.start, 0) for name, value in logged(test).items()]
                self._client.log_batch(run.run_id, tested)
                for file in (predictions, predictions.with_name(VALIDATION)):
                    if file.is_file():
                        self._client.log_artifact(run.run_id, str(file))
                accuracies = ("val_accuracy", "test_accuracy")
                scores = {name: f"{value:.4f}" for name, value in {**metrics, **test}.items() if name in accuracies}
                self._make_version(run, export, {**details, **scores}, card)
                version = self._version()
                assert version is not None
            registered = self._challenge(version, over=int(version.version))
            self._remove_half_made()
        return registered

    def _version(self) -> ModelVersion | None:
        """Return the model's version, under the name that the user gave, or any.

        MLflow makes more when a request is sent again; those that no alias holds are removed.
        """
        found = filter(self._is_of_this, self._client.search_model_versions(self._query))
        versions = sorted(found, key=lambda version: int(version.version))
        name = self._wanted or (versions[0].name if versions else "")
        versions = [version for version in versions if version.name == name]
        if len(versions) > 1:
            held = held_versions(self._client, name)
            versions.sort(key=lambda version: str(version.version) not in held)
            for version in versions[1:]:
                if str(version.version) not in held:
                    self._client.delete_model_version(name, version.version)
        return versions[0] if versions else None

    def _is_of_this(self, found: ModelVersion | LoggedModel) -> bool:
        """Tell a trial's model from its refit's, which has the same trial."""
        return (REFIT in found.tags) == self._refit

    def _make_version(self, run: KnownRun, export: Path, details: Mapping[str, Any], card: str) -> None:
        """Upload the export as a model of the run, and make a version of it, both with the details as tags."""
        tags = {name: mask_secrets(str(value)) for name, value in details.items()}
        tags |= {SWEEP_ID: self._sweep_id, TRIAL: str(self._number)} | ({REFIT: "true"} if self._refit else {})
        about = pyfunc.description_of(self._family)
        with store_in_use(self._tracking.uri, self._tracking.experiment(self._family)):
            model, files = _log_model(run.run_id, export, tags, pyfunc.signature_of(self._family), about)
            text = f"Car classifier, found by carsweep. {about}"
            name = claim_name(self._client, self._family, tags.get("data", ""), self._wanted, text)
            described = "\n\n".join(filter(None, (card, about)))
            made = self._client.create_model_version(
                name,
                model.model_uri,
                run.run_id,
                tags=tags | {FILES_TAG: files},
                description=described,
                model_id=model.model_id,
            )
            if REGISTERED in described:
                own = described.replace(REGISTERED, f"{name}/{made.version}")
                self._client.update_model_version(name, made.version, own)

    def _challenge(self, version: ModelVersion, *, over: int) -> Registered:
        """Make the version the challenger where none is, or in the place of one with a lower number than ``over``.

        Of that one it must not be shown to be worse (see ``judge``). What is returned is read from the registry.
        """
        client, number, name, said = self._client, str(version.version), version.name, version.tags.get(CHALLENGE, "")
        current = str(client.get_registered_model(name).aliases.get(CHALLENGER, ""))
        if int(current or 0) < max(over, 1):
            may = True
            if current:
                may, said = judge(client, version, client.get_model_version(name, current))
                if said:
                    client.set_model_version_tag(name, number, CHALLENGE, said)
            if may:
                client.set_registered_model_alias(name, CHALLENGER, number)
        holder = str(client.get_registered_model(name).aliases.get(CHALLENGER, ""))
        alias, uri = (CHALLENGER, f"@{CHALLENGER}") if holder == number else ("", f"/{number}")
        beside = champion_beside(client, name, number)
        return Registered(name, number, alias, f"models:/{name}{uri}", beside, holder, said)

    def _remove_half_made(self) -> None:
        """Remove models that no version has, which a process left that died while it uploaded them."""
        versions = self._client.search_model_versions(self._query)
        used = {version.model_id for version in versions} | {version.source for version in versions}
        experiment = self._tracking.experiment(self._family)
        for model in self._client.search_logged_models([experiment], filter_string=self._query):
            if self._is_of_this(model) and not {model.model_id, model.model_uri} & used:
                remove_files(self._tracking.uri, model.artifact_location)
                self._client.delete_logged_model(model.model_id)


def held_versions(client: MlflowClient, name: str) -> dict[str, tuple[str, ...]]:
    """Return the versions of a registered model that aliases hold, each with their names."""
    aliases = client.get_registered_model(name).aliases.items()
    return {str(held): tuple(alias for alias, version in aliases if version == held) for _, held in aliases}


def _log_model(
    run_id: str, export: Path, tags: dict[str, str], signature: ModelSignature, accepts: str
) -> tuple[Any, str]:
    """Log the export as a model made of code and tensors, with no pickle.

    Returns MLflow's ``ModelInfo`` and the checksums of its files: those that were handed over, and MLflow's own beside
    them, as the store has them, which say what code is loaded and what it needs.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive, code = pyfunc.pack_code(Path(folder)), Path(pyfunc.__file__).with_name(pyfunc.CODE)
        # Of Model and not of pyfunc, because that would open the trial's run again.
        sent = {f"artifacts/{export.name}/{file.relative_to(export).as_posix()}": file for file in export.rglob("*")}
        sent |= {f"code/{archive.name}": archive, code.name: code}
        model = Model.log(
            artifact_path=None,
            name="model",
            flavor=pyfunc,
            run_id=run_id,
            tags=tags,
            export=export,
            archive=archive,
            signature=signature,
            accepts=accepts,
            validate_serving_input=False,
        )
        place = mlflow.get_logged_model(model.model_id).artifact_location
        sent |= top_files(mlflow.get_tracking_uri(), place, Path(folder), besides=sent)
        return model, checksums((name, file) for name, file in sent.items() if file.is_file())
