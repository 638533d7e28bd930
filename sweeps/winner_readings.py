"""Readings of the test split: once for a model, each counted, in the sweep's folder.

``test.json`` is of the winner, ``test-NNNN.json`` of a documented experiment. Each counts its readings and names the
models that were read; a reading is counted before it happens, so that one whose score was lost counts too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.stages import write_json
from sweeps.result import TestReading

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.record import TrialRecord


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is read.

    Attributes:
        number: of its trial.
        config: of the trial.
        model: folder of the trained model, relative to the store.
        data: what it was trained on: the sweep's data set, or the one of a refit.
        refit: whether it was trained on the validation images too.
    """

    number: int
    config: TrialConfig
    model: str
    data: Dataset
    refit: bool = False

    @classmethod
    def of(cls, record: TrialRecord, data: Dataset, *, refit: bool) -> Subject:
        """Return the model of a complete trial, or of its refit, whose folder is not known before it is made."""
        config = TrialConfig.model_validate(dict(record.config))
        return cls(record.number, config, "" if refit else record.model, data.refitted() if refit else data, refit)

    @property
    def key(self) -> dict[str, str]:
        """What makes it the same reading."""
        return {"trial": self.config.digest, "data": self.data.digest}


def read_test(subject: Subject, stages: StageStore, folder: Path, file: str, predictions: str) -> TestReading:
    """Return the test score of a model; the test split is not read again for the same model on the same data.

    Args:
        subject: the model.
        stages: where it is.
        folder: of the sweep.
        file, predictions: names in it of the score and of the answers to the images.
    """
    from carcls.families import evaluate_on_test

    path = folder / file
    written = _written(path)
    if not _is_of(subject, written):
        counted = _counted(written, subject)
        write_json(path, counted)
        score = evaluate_on_test(subject.config, subject.data, stages, subject.model, folder / predictions)
        written = {
            **counted,
            **subject.key,
            "number": subject.number,
            "metrics": dict(score.metrics),
            "interval": list(score.interval),
            "images": score.images,
        }
        write_json(path, written)
    low, high = written["interval"]
    readings, models = count_readings(folder)
    return TestReading(written["metrics"], (low, high), written["images"], readings, models, subject.refit)


def is_read(subject: Subject, path: Path) -> bool:
    """Tell whether ``path`` has the test score of the model, so that ``read_test`` needs no model."""
    return _is_of(subject, _written(path))


def _is_of(subject: Subject, written: Mapping[str, Any]) -> bool:
    return {name: written.get(name) for name in subject.key} == subject.key


def count_readings(folder: Path) -> tuple[int, int]:
    """Return how often a test score was computed in a sweep, and for how many of its models."""
    files = [_written(path) for path in sorted(folder.glob("test*.json"))]
    models = {model for file in files for model in _models(file)}
    return sum(file["readings"] for file in files), len(models)


def _written(path: Path) -> dict[str, Any]:
    """Return what was written of earlier readings; a damaged file held one at least."""
    if not path.is_file():
        return {"readings": 0}
    try:
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**written, "readings": int(written["readings"])}
    except (ValueError, KeyError, TypeError):
        return {"readings": 1}


def _counted(written: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    models = [*_models(written), "/".join(subject.key.values())]
    return {"readings": written["readings"] + 1, "models": list(dict.fromkeys(models))}


def _models(written: Mapping[str, Any]) -> list[str]:
    """Return the models that a file counts; one that names none may have counted another model at each reading."""
    if "models" in written:
        return list(written["models"])
    last = [f"{written['trial']}/{written['data']}"] if "trial" in written else []
    return [*(f"unknown {place}" for place in range(written["readings"] - len(last))), *last]
