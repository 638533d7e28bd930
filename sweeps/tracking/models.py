"""Registered models by the names that people give them, as folders that ``carcls.export.load_export`` opens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from carcls.catalog import FAMILIES
from carcls.errors import InputError, nearest
from carcls.evaluation.predictions import StoredPredictions
from carcls.evaluation.significance import NO_DIFFERENCE, compare_hits
from carcls.stages import StageStore
from sweeps.text import one_line, percent, plural
from sweeps.tracking.evaluation import answers_on, stored_answers
from sweeps.tracking.found import ANEW, DESCRIPTION, FoundModel, export_at
from sweeps.tracking.names import CHALLENGER, CHAMPION, VALIDATION, VALIDATION_IMAGES
from sweeps.tracking.naming import models_of
from sweeps.tracking.store import Tracking, explained, patience

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset

DOWNLOADED = "downloaded-model"
"""Kind of the cached stages that are models of servers."""
_FORMS = "a family, NAME@alias, NAME/VERSION or the folder of an exported model"


def find_model(tracking: Tracking, wanted: str | None = None, *, out: Path) -> FoundModel:
    """Return a model by its name; of a family its champion, else its challenger, else the newest version.

    A local store's files are used where they are; a server's are downloaded once, as a cached stage in ``out``.

    Args:
        tracking: from ``check_tracking``.
        wanted: a family, NAME@alias or NAME/VERSION, where NAME is a registered model or a family, or the path of an
            export; None for the best of the families.
        out: folder of all sweeps.

    Raises:
        InputError: there is no such model, or its files are gone.
        TrackingError: the store does not answer.
    """
    if exported := export_at(wanted):
        return exported
    with explained(tracking), patience():
        version, why = _best(tracking) if wanted is None else (_version(tracking, wanted), "")
        aliases = tracking.client().get_registered_model(version.name).aliases
        held = tuple(alias for alias, number in aliases.items() if str(number) == str(version.version))
        folder = _export_of(tracking, version, out)
    return FoundModel(folder, version.name, str(version.version), held, dict(version.tags), why)


def models_in_use(tracking: Tracking, families: Sequence[str]) -> list[str]:
    """Return the names of what of each family is used: the champion, the challenger beside it, else the newest version.

    Args:
        tracking: from ``check_tracking``.
        families: of which; one that has no registered model has none.

    Raises:
        TrackingError: the store does not answer.
    """
    with explained(tracking), patience():
        client, found = tracking.client(), list[str]()
        for name in (name for family in families for name in models_of(client, family)[:1]):
            held = client.get_registered_model(name).aliases
            numbers = [str(held[alias]) for alias in (CHAMPION, CHALLENGER) if alias in held]
            found += [f"{name}/{number}" for number in numbers or [_usual(client, name).version]]
    return list(dict.fromkeys(found))


def _version(tracking: Tracking, wanted: str) -> ModelVersion:
    """Return the version that is meant."""
    text, client = wanted.removeprefix("models:/"), tracking.client()
    name, at, alias = text.partition("@")
    if not at:
        name, _, number = text.rpartition("/") if text.rpartition("/")[2].isdigit() else (text, "", "")
    name = next(iter(models_of(client, name)), name) if name in FAMILIES else name
    known = [model.name for model in client.search_registered_models()]
    if name not in known:
        where = f"{tracking.shown_uri} has {', '.join(known) or 'no registered model'}"
        again = "" if name in FAMILIES else nearest(name, [*known, *FAMILIES]).partition(" Known:")[0]
        raise InputError(
            f"model must be {_FORMS}, got {wanted!r}, and {where}.{again} Run a sweep first, or name the store with "
            "--out or --tracking-uri."
        )
    if not at and not number:
        return _usual(client, name)
    aliases = client.get_registered_model(name).aliases
    versions = client.search_model_versions(f"name = '{name}'")
    found = {str(one.version): one for one in versions}.get(str(aliases.get(alias, "")) if at else number)
    if found is None:
        held = ", ".join(f"@{one} ({number})" for one, number in aliases.items()) or "no alias"
        raise InputError(
            f"model must be there, got {wanted!r}: {name} has {held} and the versions "
            f"{', '.join(sorted((str(one.version) for one in versions), key=int))}. Name one of these."
        )
    return found


def _usual(client: mlflow.MlflowClient, name: str) -> ModelVersion:
    """Return a registered model's champion, else its challenger, else its newest version."""
    held, versions = client.get_registered_model(name).aliases, client.search_model_versions(f"name = '{name}'")
    if not versions:
        raise InputError(f"{name} must have a version, got none. Run a sweep first.")
    newest = max(versions, key=lambda version: int(version.version))
    wanted = str(held.get(CHAMPION) or held.get(CHALLENGER) or newest.version)
    return next((version for version in versions if str(version.version) == wanted), newest)


def _best(tracking: Tracking) -> tuple[ModelVersion, str]:
    """Return the model of the family that is best on validation images, and why it is."""
    client = tracking.client()
    names = {family: models_of(client, family)[:1] for family in FAMILIES}
    found = {family: _usual(client, name) for family, known in names.items() for name in known}
    if not found:
        raise InputError(
            f"model must be registered, and {tracking.shown_uri} has none. Run `carsweep run all` first, or name the "
            "store with --out or --tracking-uri."
        )
    answers = {family: _validation_answers(client, version) for family, version in found.items()}
    images = {(version.tags.get(VALIDATION_IMAGES), version.tags.get("data")) for version in found.values()}
    first = next(iter(answers.values()))
    is_fair = len(images) == 1 and all(one and first and one.same_images(first) for one in answers.values())
    scores = {family: float(version.tags.get("val_accuracy", 0.0)) for family, version in found.items()}
    if is_fair:
        scores = {family: one.accuracy for family, one in answers.items() if one}
    best, *others = sorted(scores, key=lambda family: -scores[family])
    if not others:
        return found[best], ""
    listed = ", ".join(f"{family} {percent(scores[family])}" for family in (best, *others))
    ours, theirs = answers[best], answers[others[0]]
    if not is_fair or ours is None or theirs is None:
        said = "they do not all have answers to the same images, so no test says more"
        return found[best], f"{best} has the best validation score of the families ({listed}); {said}."
    pair = compare_hits(ours.hits, theirs.hits)
    shown = "the difference is shown" if pair.shows(pair.p_value) else NO_DIFFERENCE
    return found[best], (
        f"On the same {plural(pair.images, 'validation image')} {best} is the best family ({listed}); against "
        f"{others[0]} {shown} (exact p = {pair.p_value:.2g})."
    )


def _validation_answers(client: mlflow.MlflowClient, version: ModelVersion) -> StoredPredictions | None:
    with suppress(InputError, MlflowException, OSError):
        return stored_answers(client, version.run_id, VALIDATION)
    return None


def _export_of(tracking: Tracking, version: ModelVersion, out: Path) -> Path:
    """Return the folder of a version's export on this machine."""
    client = tracking.client()
    try:
        place = client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
        parts = urlsplit(place)
        is_here = parts.scheme in ("", "file")
        model = Path(unquote(parts.path)) if is_here else _downloaded(tracking, place, out)
        found = next(model.rglob(f"artifacts/*/{DESCRIPTION}"), None)
        said = f"{model} has none"
    except (OSError, MlflowException) as error:
        found, said = None, one_line(error)
    if found is None:
        raise InputError(f"{version.name}, version {version.version}, must have its files, but {said}. {ANEW}")
    return found.parent


def _downloaded(tracking: Tracking, place: str, out: Path) -> Path:
    """Return where a server's model lies on this machine, a cached stage."""

    def download(folder: Path) -> None:
        mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=tracking.uri)

    key = {"store": tracking.shown_uri, "files": place}
    return StageStore(out.absolute() / "stages").get_or_make(DOWNLOADED, key, download)


class ModelFiles:
    """What a promotion asks of the models' files.

    Args:
        tracking: from ``check_tracking``.
        out: folder of runs, with the data of its sweeps; None evaluates no model on data that has grown.
    """

    def __init__(self, tracking: Tracking, out: Path | None = None) -> None:
        self._tracking, self._out = tracking, out.absolute() if out else None

    def export_of(self, name: str, version: str, scratch: Path) -> Path:
        """Return the folder of a version's export, of a server's a copy in ``scratch``; errors as ``find_model``."""
        return find_model(self._tracking, f"{name}/{version}", out=scratch).folder

    def data_of(self, sweep: str, test_images: str) -> Dataset | None:
        """Return the data of a sweep, if its test images have this digest."""
        from carcls.data.dataset import Dataset

        if self._out is None or not sweep or not (self._out / sweep / "dataset.json").is_file():
            return None
        data = Dataset.load(self._out / sweep / "dataset.json")
        return data if data.test_digest == test_images else None

    def answers_on(self, name: str, version: str, data: Dataset) -> StoredPredictions:
        """Return a version's answers to the test images of ``data``; see ``answers_on``."""
        assert self._out is not None
        model = find_model(self._tracking, f"{name}/{version}", out=self._out)
        return answers_on(self._tracking, model, data, StageStore(self._out / "stages"))
