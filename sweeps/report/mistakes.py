"""The worst mistakes of a trial, and the training images that are nearest to them, which only its network can say."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carcls.errors import InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions, read_probabilities
from carcls.families.votes import kept_answers
from carcls.stages import write_json

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.trial import TrialRecord

MISTAKES, NEIGHBOURS = 12, 4
NEAREST, VERSION = "nearest", 1
_FOUND = "nearest.json"


@dataclass(frozen=True, slots=True)
class NearImage:
    """A training image near to another one: its row of the data set, its class, and how far it is."""

    row: int
    label: int
    distance: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        row: of the data set.
        label, answered: its class, and the one that it was taken for.
        confidence, truth: the probabilities of the answer and of its class, in [0, 1]; None where none were stored.
        nearest: training images, the nearest first; none where they were not looked for.
    """

    row: int
    label: int
    answered: int
    confidence: float | None
    truth: float | None
    nearest: tuple[NearImage, ...] = ()


def worst_mistakes(path: Path, data: Dataset, near: dict[str, Any]) -> tuple[Mistake, ...]:
    """Return the mistakes in a file of answers, the surest first; without probabilities the first ones.

    Args:
        path: of the file.
        data: whose images are answered.
        near: what ``read_nearest`` returns.
    """
    stored, probabilities = read_predictions(path), read_probabilities(path, len(data.classes))
    wrong = np.flatnonzero(~stored.hits)
    if probabilities is not None:
        wrong = wrong[np.argsort(-probabilities[wrong, stored.predicted[wrong]], kind="stable")]
    found = []
    for place in wrong[:MISTAKES].tolist():
        row, true, said = (int(each[place]) for each in (stored.rows, stored.labels, stored.predicted))
        sure, truth = (None, None) if probabilities is None else probabilities[place, [said, true]].tolist()
        others = near.get("images", {}).get(str(row), ())
        nearest = tuple(NearImage(other, int(data.labels[other]), far) for other, far in others)
        found.append(Mistake(row, true, said, sure, truth, nearest))
    return tuple(found)


def answers_file(stages: StageStore, record: TrialRecord) -> Path:
    """Return where the answers of a complete trial to the validation images are, if they are kept."""
    if record.predictions:
        return stages.root / record.predictions
    return kept_answers(record.trial_config, stages, stages.root / record.model)


def stored_answers(path: Path, data: Dataset, rows: NDArray[np.int64]) -> StoredPredictions | None:
    """Return the answers in a file; None where it is gone, or damaged, or of other images than these rows."""
    try:
        stored = read_predictions(path)
    except InputError:
        return None
    same = np.array_equal(stored.rows, rows) and np.array_equal(stored.labels, data.labels[rows])
    return stored if same and 0 <= stored.predicted.min() <= stored.predicted.max() < len(data.classes) else None


def has_nearest(data: Dataset, stages: StageStore, record: TrialRecord) -> bool:
    """Tell whether ``look_at_mistakes`` has looked."""
    return stages.has(NEAREST, _key(data, record))


def read_nearest(data: Dataset, stages: StageStore, record: TrialRecord) -> dict[str, Any]:
    """Return what ``look_at_mistakes`` found: ``said``, and ``images`` by row; nothing where it has not looked."""
    try:
        found: dict[str, Any] = json.loads((_folder(data, stages, record) / _FOUND).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def look_at_mistakes(data: Dataset, stages: StageStore, *, record: TrialRecord, seconds: float) -> None:
    """Find the training images that are nearest to a trial's worst mistakes; keep them as a stage of the store.

    It runs in a trial's process.

    Args:
        data, stages: of the sweep.
        record: of a complete trial.
        seconds: that embedding may take.

    Raises:
        TrialFailure: it would take longer, or what it needs is gone.
        InputError: the stored answers are damaged.
    """
    from carcls.families.nearest import find_nearest
    from carcls.families.retrieval import RetrievalTrial

    def make(folder: Path) -> None:
        if not record.predictions:  # a derived trial's are made when they are asked for
            embeddings = stages.root / record.model
            RetrievalTrial(record.trial_config, data, stages).answer_validation(embeddings)
        path = answers_file(stages, record)
        mistakes = [(one.row, one.label, one.answered) for one in worst_mistakes(path, data, {})]
        each, config = record.measured("predict_ms"), record.trial_config
        time = {"seconds": seconds, "per_image": math.inf if each is None else each / 1000}
        said, images = find_nearest(config, data, stages, record.model, mistakes, NEIGHBOURS, **time)
        write_json(folder / _FOUND, {"said": said, "images": images})

    stages.get_or_make(NEAREST, _key(data, record), make)


def _folder(data: Dataset, stages: StageStore, record: TrialRecord) -> Path:
    return stages.folder(NEAREST, _key(data, record))


def _key(data: Dataset, record: TrialRecord) -> dict[str, Any]:
    trial = {"model": record.model, "trial": record.trial_config.digest, "data": data.digest}
    return {**trial, "mistakes": MISTAKES, "neighbours": NEIGHBOURS, "version": VERSION}
