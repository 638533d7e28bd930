"""Whether a new version takes the alias ``challenger`` from the version that has it: by their validation answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from numpy.typing import NDArray

from carcls.errors import InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import compare_hits
from sweeps.text import percent, plural
from sweeps.tracking.names import VALIDATION, VALIDATION_IMAGES

_NAMED = 5


class _Answers(NamedTuple):
    """What a version says to the validation images: of the search, bool [m, n] of its fresh seeds, names of classes."""

    single: StoredPredictions
    confirmed: NDArray[np.bool_]
    classes: tuple[str, ...]


def judge(client: MlflowClient, new: ModelVersion, old: ModelVersion) -> tuple[bool, str]:
    """Tell whether the new version may take the alias from the old one, and what is to be said of that, if anything.

    It may not where a paired test on the same validation images shows it to be worse: the means over fresh seeds where
    both were confirmed, else the scores of their searches. Of other images, or without stored answers, it may.
    """
    known = VALIDATION_IMAGES if VALIDATION_IMAGES in old.tags else "data_digest"  # of older versions
    ours, theirs = (_read(client, version) for version in (new, old))
    if new.tags.get(known) != old.tags.get(known):
        classes = _classes(ours.classes, theirs.classes) if ours and theirs else ""
        return True, f"Its data is not that of version {old.version}, the challenger before{classes}."
    if ours is None or theirs is None or not ours.single.same_images(theirs.single):
        return True, ""
    of_means = len(ours.confirmed) > 0 and len(theirs.confirmed) > 0
    sides = (ours.confirmed, theirs.confirmed) if of_means else (ours.single.hits, theirs.single.hits)
    found = compare_hits(*sides)
    if found.difference >= 0 or not found.shows(found.p_value):
        return True, ""
    seeds = f" in the mean of {len(sides[1])} and {len(sides[0])} fresh seeds" if of_means else ""
    return False, (
        f"On the same {plural(found.images, 'validation image')} version {old.version} has significantly more right: "
        f"{percent(found.second_accuracy)} against {percent(found.first_accuracy)}{seeds} (exact p = "
        f"{found.p_value:.2g})."
    )


def _classes(now: tuple[str, ...], before: tuple[str, ...]) -> str:
    """Say which classes came and which are gone."""
    parts = []
    for what, names in (("classes added", set(now) - set(before)), ("classes gone", set(before) - set(now))):
        listed, more = ", ".join(sorted(names)[:_NAMED]), f" and {len(names) - _NAMED} more"
        parts += [f"; {what}: {listed}{more if len(names) > _NAMED else ''}"] if names else []
    return "".join(parts) or "; it has the same classes"


def _read(client: MlflowClient, version: ModelVersion) -> _Answers | None:
    """Return a version's stored answers; None where it has none that can be read, as those of older versions."""
    if all(file.path != VALIDATION for file in client.list_artifacts(version.run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(version.run_id, VALIDATION, folder))
        try:
            single = read_predictions(path)
            with np.load(path, allow_pickle=False) as file:
                confirmed = file["confirmed"].reshape(-1, len(single.labels)) == single.labels
                return _Answers(single, confirmed, tuple(map(str, file["classes"])))
        except (InputError, ValueError, LookupError):
            return None
