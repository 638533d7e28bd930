"""What a challenger must pass to become champion, a row of ``GATES`` each (docs/promotion.md).

What is cheap to ask comes first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from carcls.errors import CarsweepError, InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import LEVEL, PairedComparison, compare_hits, wilson_interval
from sweeps.results.result import Champion
from sweeps.tracking.names import CHAMPION, PREDICTIONS, TEST_IMAGES
from sweeps.tracking.store import Tracking, one_line

PROBE_SECONDS = 300
_ANEW = "Run its sweep again under another --name; nothing is trained twice."
_BY_HAND = "Set the alias yourself, as docs/promotion.md says."
# For a process of its own: a registered model brings its own copy of carcls, which must not meet the installed one.
_PROBE = """
import json, sys
import mlflow, numpy as np
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(np.zeros((64, 64, 3), np.uint8))
print(json.dumps([list(answer.columns), len(answer), float(answer["probability"].iloc[0])]))
"""


class Refusal(CarsweepError):  # noqa: N818 - the answer of a gate, not an error of the program
    """The challenger may not become champion: why, with the remedy, and the verdict of the ``Promotion``."""

    def __init__(self, reason: str, verdict: str = "refused") -> None:
        super().__init__(reason)
        self.verdict = verdict


class Contest:
    """A challenger, and what a gate may ask of it and of its champion; each is read when it is first asked for.

    Args:
        tracking: from ``check_tracking``.
        model: name of the registered model.
        challenger, champion: its versions; there may be no champion.
    """

    def __init__(self, tracking: Tracking, model: str, challenger: str, champion: str | None) -> None:
        self.tracking, self.model, self.challenger, self.champion = tracking, model, challenger, champion

    def signature_of(self, version: str) -> ModelSignature:
        """Return what a version answers; raises a Refusal where that cannot be read."""
        try:
            signature, why = Model.load(f"models:/{self.model}/{version}").signature, "has no signature"
        except Exception as error:  # a file that is gone or damaged raises whatever its store does
            signature, why = None, f"cannot be read ({one_line(error)})"
        if signature is None or signature.outputs is None:
            raise Refusal(f"Version {version} of {self.model} {why}. {self._remedy(version)}")
        return signature

    @cached_property
    def comparison(self) -> PairedComparison:
        """The challenger's stored answers beside the champion's; raises a Refusal where there are no such two."""
        client = self.tracking.client()
        versions = [client.get_model_version(self.model, version) for version in (self.challenger, self.champion)]
        ours, theirs = (self.answers_of(str(version)) for version in (self.challenger, self.champion))
        tested = [version.tags.get(TEST_IMAGES, "unknown") for version in versions]
        if tested[0] != tested[1] or "unknown" in tested or not ours.same_images(theirs):
            said = " and ".join(
                f"{version.tags.get('data', 'unnamed data')} (test images {images})"
                for version, images in zip(versions, tested, strict=True)
            )
            raise Refusal(
                f"Versions {self.challenger} and {self.champion} must be tested on the same images, got {said}. Run a "
                "sweep on the champion's data, or set the alias yourself, as docs/promotion.md says."
            )
        return compare_hits(ours.hits, theirs.hits)

    def answers_of(self, version: str) -> StoredPredictions:
        """Return a version's stored answers to the test images; raises a Refusal where they cannot be read."""
        client, remedy = self.tracking.client(), self._remedy(version)
        run = client.get_model_version(self.model, version).run_id
        try:
            has_answers = any(file.path == PREDICTIONS for file in client.list_artifacts(run))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # otherwise the run was deleted for good
                raise
            has_answers = False
        if not has_answers:
            raise Refusal(f"The test predictions of version {version} are missing. {remedy}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                return read_predictions(Path(client.download_artifacts(run, PREDICTIONS, folder)))
            except InputError as error:
                raise Refusal(f"Version {version}: {error} {remedy}") from error

    def _remedy(self, version: str) -> str:
        return _ANEW if version == self.challenger else _BY_HAND


def champion_beside(tracking: Tracking, model: str, version: str) -> Champion | None:
    """Return the champion of a registered model beside one of its versions; None where it has none.

    Read from tags and stored answers; nothing is evaluated again. What cannot be read is told in ``apart``.
    """
    client = tracking.client()
    found = Champion(str(client.get_registered_model(model).aliases.get(CHAMPION, "")))
    if not found.version:
        return None
    try:
        own, tags = (dict(client.get_model_version(model, one).tags) for one in (version, found.version))
        found = replace(found, accuracy=float(tags["test_accuracy"]) if "test_accuracy" in tags else None)
        contest = Contest(tracking, model, version, found.version)
        answers = contest.answers_of(found.version)
        interval = wilson_interval(int(answers.hits.sum()), len(answers.hits))
        found = replace(found, accuracy=answers.accuracy, interval=interval)
        if own.get(TEST_IMAGES) != tags.get(TEST_IMAGES):
            return replace(found, apart=f"it was tested on other images, of {tags.get('data', 'unnamed data')}")
        return found if found.version == version else replace(found, comparison=contest.comparison)
    except (Refusal, MlflowException, OSError) as why:
        return replace(found, apart=one_line(why))


class Gate(NamedTuple):
    """Something that is asked of a challenger.

    Attributes:
        name: in JSON and in docs/promotion.md.
        asks: the same in words.
        check: raises a ``Refusal``, or lets the challenger pass.
        of_first: whether it is asked also where there is no champion.
    """

    name: str
    asks: str
    check: Callable[[Contest], None]
    of_first: bool = False


def _same_signature(contest: Contest) -> None:
    ours, theirs = map(contest.signature_of, (contest.challenger, str(contest.champion)))
    if ours != theirs:
        raise Refusal(
            f"Version {contest.challenger} answers {_written(ours)}, the champion, version {contest.champion}, answers "
            f"{_written(theirs)}: whoever uses the champion could not use it. {_BY_HAND}"
        )


def _written(signature: ModelSignature) -> str:
    takes = "" if signature.inputs is None else f" to {signature.inputs.to_dict()}"
    return ", ".join(f"{column.name} ({column.type})" for column in signature.outputs) + takes


def _not_worse(contest: Contest) -> None:
    if contest.comparison.p_value <= LEVEL and contest.comparison.difference < 0:
        raise Refusal(
            f"The champion, version {contest.champion}, has significantly more of the test images right than version "
            f"{contest.challenger}. Sweep on, with more trials or other settings.",
            "worse",
        )


def _answers(contest: Contest) -> None:
    uri = f"models:/{contest.model}/{contest.challenger}"
    wanted = [column.name for column in contest.signature_of(contest.challenger).outputs]
    # The stores come from the environment, so that no password stands on a command line.
    stores = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"), contest.tracking.uri)
    command = [sys.executable, "-P", "-c", _PROBE, uri]
    run = partial(subprocess.run, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = run(command, env={**os.environ, **stores}, cwd=folder)
        columns, rows, probability = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Refusal(f"{uri} must load and answer an image within {PROBE_SECONDS} s. {_ANEW}") from None
    except (IndexError, ValueError, TypeError):
        said = one_line(Exception((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]))
        raise Refusal(f"{uri} must load and answer an image, got: {said}. {_ANEW}") from None
    if (columns, rows) != (wanted, 1) or not 0.0 <= probability <= 1.0:
        raise Refusal(
            f"{uri} must answer one image with one row of {', '.join(wanted)} and a probability in 0..1, got {rows} of "
            f"{', '.join(map(str, columns))} and {probability}. {_ANEW}"
        )


GATES: list[Gate] = [
    Gate("signature", "Its signature equals the champion's.", _same_signature),
    Gate("not worse", "It is not shown to be worse than the champion on the same test images.", _not_worse),
    Gate("answer", "It loads, and answers a small image as its signature says.", _answers, of_first=True),
]
