"""Whether a challenger may become champion: it answers, with the champion's signature, and is not shown to be worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from carcls.errors import InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison, compare_hits
from sweeps.tracking.registry import PREDICTIONS, TEST_IMAGES
from sweeps.tracking.store import Tracking, explained, one_line

PROBE_SECONDS = 300
_ANEW = "Run its sweep again under another --name; nothing is trained twice."
_BY_HAND = "Set the alias yourself, as docs/promotion.md says."


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the challenger may become champion.

    Attributes:
        verdict: ``first champion``, ``better``, ``no difference shown`` or ``already champion``; otherwise ``worse`` or
            ``refused``.
        reason: a sentence, with the remedy where there is one.
        comparison: the challenger (first) with the champion (second); None where they were not compared.
    """

    verdict: str
    reason: str
    comparison: PairedComparison | None = None


class Refusal(Exception):  # noqa: N818 - an answer of the judge, not an error of the program
    """The challenger may not become champion.

    Args:
        reason: why, and what to do.
        comparison: the challenger (first) with the champion (second), when that one is shown to be better.
    """

    def __init__(self, reason: str, comparison: PairedComparison | None = None) -> None:
        super().__init__(reason)
        self.judgement = Judgement("worse" if comparison else "refused", reason, comparison)


def judge(tracking: Tracking, name: str, challenger: str, champion: str | None) -> Judgement:
    """Return why a version may become champion; what is cheap to ask comes first.

    Args:
        tracking: from ``open_tracking``; MLflow's global URIs must be set to it.
        name: of the registered model.
        challenger, champion: two different versions; no champion yet is None.

    Raises:
        Refusal: it may not.
        TrackingError: the store does not answer.
    """
    signature = _signature_of(name, challenger, _ANEW)
    if champion is None:
        _require_answer(tracking, name, challenger, signature)
        return Judgement("first champion", f"{name} had no champion, and version {challenger} answers.")
    _require_equal(signature, _signature_of(name, champion, _BY_HAND), challenger, champion)
    comparison = _compare(_version(tracking, name, challenger), _version(tracking, name, champion), tracking)
    judgement = _weigh(comparison, challenger, champion)
    _require_answer(tracking, name, challenger, signature)
    return judgement


def _version(tracking: Tracking, name: str, version: str) -> ModelVersion:
    with explained(tracking):
        return tracking.client().get_model_version(name, version)


def _signature_of(name: str, version: str, remedy: str) -> ModelSignature:
    try:
        signature = Model.load(f"models:/{name}/{version}").signature
    except Exception as error:  # a file that is gone or damaged raises whatever its store does
        raise Refusal(f"Version {version} of {name} cannot be read ({one_line(error)}). {remedy}") from error
    if signature is None or signature.outputs is None:
        raise Refusal(f"Version {version} of {name} has no signature. {remedy}")
    return signature


def _require_equal(one: ModelSignature, other: ModelSignature, challenger: str, champion: str) -> None:
    if one != other:
        raise Refusal(
            f"Version {challenger} answers {_written(one)}, the champion, version {champion}, answers "
            f"{_written(other)}: whoever uses the champion could not use it. {_BY_HAND}"
        )


def _written(signature: ModelSignature) -> str:
    takes = "" if signature.inputs is None else f" to {signature.inputs.to_dict()}"
    return ", ".join(f"{column.name} ({column.type})" for column in signature.outputs) + takes


def _compare(challenger: ModelVersion, champion: ModelVersion, tracking: Tracking) -> PairedComparison:
    """Compare the stored answers of two versions; no test image is read."""
    tested = [version.tags.get(TEST_IMAGES) for version in (challenger, champion)]
    answers = [_answers_of(tracking, challenger, _ANEW), _answers_of(tracking, champion, _BY_HAND)]
    if None in tested or tested[0] != tested[1] or not answers[0].same_images(answers[1]):
        raise Refusal(
            f"Versions {challenger.version} and {champion.version} must be tested on the same images, got "
            f"{_data_of(challenger)} and {_data_of(champion)}. Run a sweep on the champion's data, or set the alias "
            "yourself, as docs/promotion.md says."
        )
    return compare_hits(answers[0].hits, answers[1].hits)


def _data_of(version: ModelVersion) -> str:
    return f"{version.tags.get('data', 'unnamed data')} (test images {version.tags.get(TEST_IMAGES, 'unknown')})"


def _answers_of(tracking: Tracking, version: ModelVersion, remedy: str) -> StoredPredictions:
    with tempfile.TemporaryDirectory() as folder:
        file = _download(tracking, version, folder)
        if file is None:
            raise Refusal(f"The test predictions of version {version.version} are missing. {remedy}")
        try:
            return read_predictions(file)
        except InputError as error:
            raise Refusal(f"Version {version.version}: {error} {remedy}") from error


def _download(tracking: Tracking, version: ModelVersion, folder: str) -> Path | None:
    client = tracking.client()
    with explained(tracking):
        try:
            if PREDICTIONS not in {file.path for file in client.list_artifacts(version.run_id)}:
                return None
            return Path(client.download_artifacts(version.run_id, PREDICTIONS, folder))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the run was deleted for good
                return None
            raise


def _weigh(comparison: PairedComparison, challenger: str, champion: str) -> Judgement:
    if comparison.p_value > LEVEL:
        reason = f"No difference shown between version {challenger} and the champion, version {champion}."
        return Judgement(NO_DIFFERENCE, reason, comparison)
    if comparison.difference < 0:
        raise Refusal(
            f"The champion, version {champion}, has significantly more of the test images right than version "
            f"{challenger}. Sweep on, with more trials or other settings.",
            comparison,
        )
    reason = f"Version {challenger} has significantly more of the test images right than version {champion}."
    return Judgement("better", reason, comparison)


def _require_answer(tracking: Tracking, name: str, version: str, signature: ModelSignature) -> None:
    """Load the version in another process and ask it about a small image."""
    answer = _ask(tracking, f"models:/{name}/{version}")
    columns = [column.name for column in signature.outputs]
    if answer["columns"] != columns or answer["rows"] != 1:
        raise Refusal(
            f"Version {version} must answer one image with one row of {', '.join(columns)}, got {answer['rows']} of "
            f"{', '.join(map(str, answer['columns']))}. {_ANEW}"
        )
    if not 0.0 <= answer["probability"] <= 1.0:
        raise Refusal(f"Version {version} must answer a probability in 0..1, got {answer['probability']}. {_ANEW}")


def _ask(tracking: Tracking, uri: str) -> dict[str, Any]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_REGISTRY_URI": tracking.uri}
    # -P: the folder of the program, whose modules have everyday names, stays off the path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), uri]
    try:
        with tempfile.TemporaryDirectory() as folder:
            # This interpreter and a file of this package; the address of the model is its only argument.
            done = subprocess.run(  # noqa: S603
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
            )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Refusal(f"{uri} must load and answer an image within {PROBE_SECONDS} s. {_ANEW}") from None
    except (IndexError, ValueError):
        said = one_line(Exception((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]))
        raise Refusal(f"{uri} must load and answer an image, got: {said}. {_ANEW}") from None
    return answer
