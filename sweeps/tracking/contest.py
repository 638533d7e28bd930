"""A challenger beside its champion: their files, descriptions and stored answers, each read when it is asked for."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from carcls.errors import CarsweepError, InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import PairedComparison, compare_hits, wilson_interval
from sweeps.results.result import Champion
from sweeps.text import one_line
from sweeps.tracking.names import CHAMPION, PREDICTIONS, TEST_IMAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from sweeps.tracking.models import ModelFiles

FILES_TAG = "carsweep.files"
"""Of a version: JSON of the SHA-256 of each whole file that was registered, by its path in the model."""
ANEW = "Run its sweep again under another --name; nothing is trained twice."
BY_HAND = "Set the alias yourself, as docs/promotion.md says."


class Refusal(CarsweepError):  # noqa: N818 - the answer of a gate, not an error of the program
    """The challenger may not become champion: why, with the remedy, and the verdict of the ``Promotion``."""

    def __init__(self, reason: str, verdict: str = "refused") -> None:
        super().__init__(reason)
        self.verdict = verdict


class NotAsked(CarsweepError):  # noqa: N818 - the answer of a gate, too
    """A gate has nothing to ask here: why."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a promotion asks beyond what it always asks; None asks nothing.

    Attributes:
        margin: points of accuracy by which the challenger may be worse at most, by the lower end of the interval.
        per_class_margin: points of a class's recall by which it may be shown to fall.
        max_ms: milliseconds that an answer may take on this machine.
        max_mb: megabytes (of 10⁶ bytes) that the export may have.
    """

    margin: float | None = None
    per_class_margin: float = 0.0
    max_ms: float | None = None
    max_mb: float | None = None


class Contest:
    """A challenger, and what a gate may ask of it and of its champion; each is read when it is first asked for.

    Args:
        client: of the registry.
        model: name of the registered model.
        challenger, champion: its versions; there may be no champion.
        scratch: folder for what is downloaded; whoever gave it removes it.
        limits: of the promotion.
        files: of the models; None where nothing asks for them.
    """

    def __init__(
        self,
        client: MlflowClient,
        model: str,
        challenger: str,
        champion: str | None,
        scratch: Path,
        limits: Demands | None = None,
        files: ModelFiles | None = None,
    ) -> None:
        self.client, self.model, self.challenger, self.champion = client, model, challenger, champion
        self.limits, self._files, self._scratch = limits or Demands(), files, scratch
        self._exports: dict[str, Path] = {}
        self.was_evaluated = False  # the champion, for this contest
        self.milliseconds: float | None = None  # that an answer of the challenger took

    def signature_of(self, version: str) -> ModelSignature:
        """Return what a version answers; raises a Refusal where that cannot be read."""
        try:
            signature, why = Model.load(f"models:/{self.model}/{version}").signature, "has no signature"
        except Exception as error:  # a file that is gone or damaged raises whatever its store does
            signature, why = None, f"cannot be read ({one_line(error)})"
        if signature is None or signature.outputs is None:
            raise Refusal(f"Version {version} of {self.model} {why}. {self._remedy(version)}")
        return signature

    def export_of(self, version: str) -> Path:
        """Return the folder of a version's export; of a server's a fresh copy. Raises a Refusal where it is gone."""
        if version not in self._exports:
            try:
                assert self._files is not None
                self._exports[version] = self._files.export_of(self.model, version, self._scratch)
            except InputError as error:
                raise Refusal(str(error)) from error
        return self._exports[version]

    def description_of(self, version: str) -> dict[str, Any]:
        """Return a version's ``model.json``; raises a Refusal where it is damaged."""
        try:
            return dict(json.loads((self.export_of(version) / "model.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise Refusal(f"Version {version} of {self.model} has no description. {self._remedy(version)}") from error

    def tags_of(self, version: str) -> dict[str, str]:
        """Return the tags of a version."""
        return dict(self.client.get_model_version(self.model, version).tags)

    @cached_property
    def pair(self) -> tuple[StoredPredictions, StoredPredictions]:
        """The challenger's and the champion's answers to the same images; raises a Refusal where there are none.

        Of data that has grown, with the same name and other images, the champion is evaluated on the challenger's.
        """
        assert self.champion is not None
        tags = [self.tags_of(version) for version in (self.challenger, self.champion)]
        tested = [one.get(TEST_IMAGES, "unknown") for one in tags]
        ours = self.answers_of(self.challenger)
        has_grown = tags[0].get("data") == tags[1].get("data") and "unknown" not in tested and tested[0] != tested[1]
        theirs, files = None, self._files
        data = files.data_of(tags[0].get("sweep", ""), tested[0]) if files and has_grown else None
        if files is not None and data is not None:
            theirs = files.answers_on(self.model, self.champion, data)
            self.was_evaluated = True
        elif tested[0] == tested[1] != "unknown":
            theirs = self.answers_of(self.champion)
        if theirs is None or not ours.same_images(theirs):
            said = " and ".join(
                f"{one.get('data', 'unnamed data')} (test images {images})"
                for one, images in zip(tags, tested, strict=True)
            )
            raise Refusal(
                f"Versions {self.challenger} and {self.champion} must be tested on the same images, got {said}. "
                + ("Promote with the --out of the challenger's sweep, or run" if has_grown else "Run")
                + " a sweep on the champion's data, or set the alias yourself, as docs/promotion.md says."
            )
        return ours, theirs

    @cached_property
    def comparison(self) -> PairedComparison:
        """The challenger's answers beside the champion's; raises a Refusal where there are no such two."""
        ours, theirs = self.pair
        return compare_hits(ours.hits, theirs.hits)

    def answers_of(self, version: str) -> StoredPredictions:
        """Return a version's stored answers to the test images; raises a Refusal where they cannot be read."""
        try:
            return read_predictions(self._answers(version))
        except InputError as error:
            raise Refusal(f"Version {version}: {error} {self._remedy(version)}") from error

    def _answers(self, version: str) -> Path:
        """Return a copy of the file of a version's answers."""
        folder = self._scratch / f"answers-{version}"
        if not folder.is_dir():
            client = self.client
            run = client.get_model_version(self.model, version).run_id
            try:
                has_answers = any(file.path == PREDICTIONS for file in client.list_artifacts(run))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # otherwise the run was deleted for good
                    raise
                has_answers = False
            if not has_answers:
                raise Refusal(f"The test predictions of version {version} are missing. {self._remedy(version)}")
            folder.mkdir()
            client.download_artifacts(run, PREDICTIONS, str(folder))
        return folder / PREDICTIONS

    def _remedy(self, version: str) -> str:
        return ANEW if version == self.challenger else BY_HAND


def checksums(files: Iterable[tuple[str, Path]]) -> str:
    """Return the value of ``FILES_TAG`` for files, each with its path in the model."""
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files}
    return json.dumps(found, sort_keys=True)


def champion_beside(client: MlflowClient, model: str, version: str) -> Champion | None:
    """Return the champion of a registered model beside one of its versions; None where it has none.

    Read from tags and stored answers; nothing is evaluated again. What cannot be read is told in ``apart``.
    """
    found = Champion(str(client.get_registered_model(model).aliases.get(CHAMPION, "")))
    if not found.version:
        return None
    try:
        own, tags = (dict(client.get_model_version(model, one).tags) for one in (version, found.version))
        found = replace(found, accuracy=float(tags["test_accuracy"]) if "test_accuracy" in tags else None)
        with tempfile.TemporaryDirectory() as scratch:
            contest = Contest(client, model, version, found.version, Path(scratch))
            answers = contest.answers_of(found.version)
            interval = wilson_interval(int(answers.hits.sum()), len(answers.hits))
            found = replace(found, accuracy=answers.accuracy, interval=interval)
            if own.get(TEST_IMAGES) != tags.get(TEST_IMAGES):
                return replace(found, apart=f"it was tested on other images, of {tags.get('data', 'unnamed data')}")
            return found if found.version == version else replace(found, comparison=contest.comparison)
    except (Refusal, MlflowException, OSError) as why:
        return replace(found, apart=one_line(why))
