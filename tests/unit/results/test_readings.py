"""Readings of the test split are counted, those of lost scores too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import carcls.families
from carcls.config import TrialConfig
from carcls.families import TestScore
from carcls.stages import StageStore
from sweeps.results.models import count_readings, evaluate, find_reading
from sweeps.results.result import TestReading
from sweeps.trial import TrialRecord


@dataclass(frozen=True)
class Images:
    """What of a data set an evaluation asks for."""

    digest: str = "images"

    def refitted(self) -> Images:
        """Return what a refit is trained on."""
        return Images("images and validation")


@dataclass
class Reader:
    """Stands for the family that answers the test images; dies when told to."""

    dies: bool = False
    models: list[str] = field(default_factory=list)

    def __call__(self, _config: object, _data: object, _stages: object, model: str, _predictions: object) -> TestScore:
        """Note the reading, and answer or die."""
        self.models.append(model)
        if self.dies:
            raise KeyboardInterrupt
        return TestScore({"test_accuracy": 0.5}, (0.4, 0.6), 100)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Take the place of reading images with a network."""
    reader = Reader()
    monkeypatch.setattr(carcls.families, "evaluate_on_test", reader)
    monkeypatch.setattr(carcls.families, "refit_trial", lambda config, *_: f"refit-{config.dropout}")
    monkeypatch.setattr("sweeps.results.models.model_on_disk", lambda _stages, _data, record, _tell: record.model)
    return reader


def read(folder: Path, dropout: float, *, file: str = "test.json", refit: bool = False) -> TestReading:
    """Read the model of a trial that is known by its dropout."""
    config = TrialConfig(dropout=dropout).model_dump()
    record = TrialRecord(0, None, {}, config, "complete", {}, 1, 1.0, model=f"model-{dropout}")
    data: Any = Images()
    known = find_reading(record, data, folder / file, refit=refit)
    if known is not None:
        return known
    stages, answers = StageStore(folder / "stages"), folder / "predictions.npz"
    return evaluate(data, stages, record=record, refit=refit, path=folder / file, predictions=answers)[0]


def test_a_model_is_read_once_and_another_winner_is_another_reading(tmp_path: Path, reader: Reader) -> None:
    """Asked again, the sweep answers from what it wrote; extended, with a new winner, it says that it looked twice."""
    assert read(tmp_path, 0.1) == read(tmp_path, 0.1)
    assert count_readings(tmp_path) == (1, 1)
    test = read(tmp_path, 0.2)
    assert (test.readings, test.models) == (2, 2)
    assert reader.models == ["model-0.1", "model-0.2"]


def test_a_reading_whose_score_was_lost_counts(tmp_path: Path, reader: Reader) -> None:
    """Who dies while reading has read: the second attempt is the second reading of one model.

    A count that cannot be read is no reason to begin at nothing either: a damaged file held one at least.
    """
    reader.dies = True
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, 0.1)
    reader.dies = False
    test = read(tmp_path, 0.1)
    assert (test.readings, test.models) == (2, 1)
    (tmp_path / "test.json").write_text('{"readings": 1, "tri')
    assert read(tmp_path, 0.1).readings == 2
    assert reader.models == ["model-0.1"] * 3


def test_a_refit_is_another_model_than_the_trial(tmp_path: Path, reader: Reader) -> None:
    """The same settings trained on more images are read anew, and said to be a refit."""
    assert not read(tmp_path, 0.1).refit
    test = read(tmp_path, 0.1, refit=True)
    assert (test.readings, test.models, test.refit) == (2, 2, True)
    assert len(reader.models) == 2


def test_readings_of_documented_experiments_count_for_the_sweep(tmp_path: Path, reader: Reader) -> None:
    """Each has a file of its own; the sweep's count is over all of them."""
    for number, dropout in enumerate((0.1, 0.2, 0.3)):
        test = read(tmp_path, dropout, file=f"test-{number:04d}.json")
    assert (test.readings, test.models) == (3, 3)
    assert len(reader.models) == 3


def test_files_of_older_versions_count_one_model_a_reading(tmp_path: Path, reader: Reader) -> None:
    """A file without names of models may have counted another one at each reading; its score is kept."""
    old = {"trial": TrialConfig(dropout=0.1).digest, "data": "images", "number": 0, "readings": 2, "images": 100}
    old |= {"metrics": {"test_accuracy": 0.4}, "interval": [0.3, 0.5]}
    (tmp_path / "test.json").write_text(json.dumps(old))
    test = read(tmp_path, 0.1)
    assert (test.readings, test.models, test.metrics) == (2, 2, {"test_accuracy": 0.4})
    assert read(tmp_path, 0.2).models == 3
    assert reader.models == ["model-0.2"]
