"""Readings of the test split: once for a model, each counted, in the sweep's folder; and the model that is read.

``test.json`` is of the winner, ``test-NNNN.json`` of a documented experiment. Each counts its readings and names the
models that were read; a reading is counted before it happens, so that one whose score was lost counts too.

``evaluate`` and ``export`` are computed in a trial's process (see sweeps.engine.task): arguments and answers travel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.stages import write_json
from sweeps.results.models import model_on_disk
from sweeps.results.result import TestReading

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.trial import TrialRecord


@dataclass(frozen=True, slots=True)
class Subject:
    """What is read.

    Attributes:
        number: of its trial.
        config: of the trial.
        data: what it was trained on: the sweep's data set, or the one of a refit.
        refit: whether it was trained on the validation images too.
    """

    number: int
    config: TrialConfig
    data: Dataset
    refit: bool = False

    @classmethod
    def of(cls, record: TrialRecord, data: Dataset, *, refit: bool) -> Subject:
        """Return the model of a complete trial, or of its refit."""
        config = TrialConfig.model_validate(dict(record.config))
        return cls(record.number, config, data.refitted() if refit else data, refit)

    @property
    def key(self) -> dict[str, str]:
        """What makes it the same reading."""
        return {"trial": self.config.digest, "data": self.data.digest}


def find_reading(subject: Subject, path: Path) -> TestReading | None:
    """Return the test score in ``path``, if it is one of this model."""
    written = _written(path)
    if {name: written.get(name) for name in subject.key} != subject.key:
        return None
    low, high = written["interval"]
    readings, models = count_readings(path.parent)
    return TestReading(written["metrics"], (low, high), written["images"], readings, models, subject.refit)


def read_test(subject: Subject, model: str, stages: StageStore, path: Path, predictions: Path) -> TestReading:
    """Read the test split with a model, which has not been read before or whose score was lost.

    Args:
        subject: what is read.
        model: its folder, relative to the store.
        stages: where it is.
        path: of the score, in the sweep's folder.
        predictions: gets the answers to the images.
    """
    from carcls.families import evaluate_on_test

    written = _written(path)
    models = [*_models(written), "/".join(subject.key.values())]
    counted = {"readings": written["readings"] + 1, "models": list(dict.fromkeys(models))}
    write_json(path, counted)
    score = evaluate_on_test(subject.config, subject.data, stages, model, predictions)
    told = {"metrics": dict(score.metrics), "interval": list(score.interval), "images": score.images}
    write_json(path, {**counted, **subject.key, "number": subject.number, **told})
    reading = find_reading(subject, path)
    assert reading is not None
    return reading


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


def _models(written: Mapping[str, Any]) -> list[str]:
    """Return the models that a file counts; one that names none may have counted another model at each reading."""
    if "models" in written:
        return list(written["models"])
    last = [f"{written['trial']}/{written['data']}"] if "trial" in written else []
    return [*(f"unknown {place}" for place in range(written["readings"] - len(last))), *last]


def evaluate(
    data: Dataset, stages: StageStore, *, record: TrialRecord, refit: bool, path: Path, predictions: Path
) -> tuple[TestReading, list[str]]:
    """Return the test score of a complete trial, and what a person should know of its model.

    Args:
        data, stages: of the sweep.
        record: of the trial.
        refit: evaluate another model, its settings trained on the validation images too.
        path, predictions: as in ``read_test``.

    Raises:
        TrialFailure: the model is gone, or not there yet, and cannot be made.
    """
    subject, model, notes = _made(data, stages, record, refit)
    return read_test(subject, model, stages, path, predictions), notes


def export(
    data: Dataset,
    stages: StageStore,
    *,
    record: TrialRecord,
    refit: bool,
    folder: Path,
    details: Mapping[str, Any],
) -> list[str]:
    """Write the trial's model as a folder that ``carcls.export.load_export`` opens; otherwise as ``evaluate``."""
    from carcls.families import export_trial

    subject, model, notes = _made(data, stages, record, refit)
    export_trial(subject.config, subject.data, stages, model, folder, details)
    return notes


def _made(data: Dataset, stages: StageStore, record: TrialRecord, refit: bool) -> tuple[Subject, str, list[str]]:
    from carcls.families import refit_trial

    subject, notes = Subject.of(record, data, refit=refit), list[str]()
    if refit:
        return subject, refit_trial(subject.config, subject.data, stages), notes
    return subject, model_on_disk(stages, data, record, notes.append), notes
