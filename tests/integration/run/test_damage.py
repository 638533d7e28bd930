"""Damaged files in the store: noticed by their checksums, told in a line, made again, and in no number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import events_of

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.families import run_trial
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.training.checkpoint import CHECKPOINT
from carcls.training.trained import TrainedClassifier
from sweeps.run.sweep import DamageNews

SIZE = 32
# Each store measures its own number format, and trials of two stores are compared.
COMMON = TrialConfig(image_size=SIZE, batch_size=8, precision="fp32")
SCRATCH = COMMON.model_copy(update={"family": "scratch", "backbone": "scratch", "depth": 3, "width": 16, "epochs": 3})
FROZEN = COMMON.model_copy(update={"backbone": "efficientnet_lite0", "epochs": 2, "unfreezing": "frozen"})
RETRIEVAL = FROZEN.model_copy(update={"family": "retrieval", "k": 3})
# What the undamaged store has answers for, and what is asked of it next: the next needs what the first has left.
FIRST = {"transfer": FROZEN, "retrieval": RETRIEVAL}
NEXT = {"transfer": FROZEN.model_copy(update={"head_lr": 0.02}), "retrieval": RETRIEVAL.model_copy(update={"k": 5})}
_TIMED = {"seconds", "predict_ms", "val_fit_seconds", "fit_seconds", "predict_seconds", "ms_per_query"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 10 training and 3 test images of each of three tints."""
    tints = [(150, 60, 60), (60, 150, 60), (60, 60, 150)]
    return draw_tints(tmp_path_factory.mktemp("tints"), 10, 3, size=(40, 50), tints=tints, noise=100)


def prepare(folder: Path, stages: StageStore) -> Dataset:
    """Read the data set; the pack is checked or made."""
    return prepare_dataset(DataConfig(path=str(folder), validation_fraction=0.4), stages, SIZE)


def numbers_of(config: TrialConfig, data: Dataset, stages: StageStore) -> list[dict[str, float]]:
    """Run a trial; return what it measured after each epoch, and at last, without times."""
    said: list[Measurement] = []
    outcome = run_trial(config, data, stages, said.append)
    metrics = [*(measurement.metrics for measurement in said), outcome.metrics]
    return [{name: value for name, value in each.items() if name not in _TIMED} for each in metrics]


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the first trial of each family has left its stages."""
    stages = StageStore(tmp_path_factory.mktemp("store"))
    data = prepare(folder, stages)
    for config in FIRST.values():
        run_trial(config, data, stages, lambda _: None)
    return stages.root


@pytest.fixture(scope="module")
def undamaged(folder: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data set's digest, and what the next trials measure in a whole copy of the store."""
    stages = StageStore(shutil.copytree(store, tmp_path_factory.mktemp("whole") / "stages"))
    data = prepare(folder, stages)
    return {"digest": data.digest, **{family: numbers_of(config, data, stages) for family, config in NEXT.items()}}


def spoil(file: Path, how: str) -> None:
    """Flip a byte in the middle, cut the last one off, leave nothing in the file, or remove it."""
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b""}[how])


@pytest.mark.parametrize(
    ("family", "kind", "name", "how"),
    [
        ("transfer", "pack", "pixels.npy", "flip"),
        ("transfer", "pack", "pixels.npy", "cut"),
        ("transfer", "pack", "pixels.npy", "remove"),
        ("transfer", "pack", "key.json", "remove"),
        ("transfer", "index", "copies.npy", "flip"),
        ("transfer", "features", "features.npy", "flip"),
        ("transfer", "features", "features.npy", "remove"),
        ("retrieval", "embeddings", "average.npy", "flip"),
        ("retrieval", "neighbours", "euclidean-indices.npy", "cut"),
    ],
)
def test_a_damaged_stage_costs_its_making_and_changes_no_number(
    folder: Path, store: Path, undamaged: dict[str, Any], tmp_path: Path, family: str, kind: str, name: str, how: str
) -> None:
    """It is dropped with one line that names the file, made again, and the next trial measures what it would have."""
    stages, told = StageStore(shutil.copytree(store, tmp_path / "stages")), list[str]()
    news = DamageNews(stages, told.append)
    spoilt = sorted(stages.root.glob(f"{kind}/*/{name}"))[0]
    spoil(spoilt, how)
    before, digest = len(events_of(stages)), spoilt.parent.name
    data = prepare(folder, stages)
    assert numbers_of(NEXT[family], data, stages) == undamaged[family]
    assert data.digest == undamaged["digest"]
    assert [e.event for e in events_of(stages)[before:] if e.digest == digest][:2] == ["dropped", "made"]
    for _ in range(2):  # what was told is not told again
        news.check()
        (line,) = told
    assert line.startswith(f"damaged, so it is made again: {kind} {digest} (")
    assert name in line


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_model_is_trained_again_to_the_same(folder: Path, store: Path, tmp_path: Path, how: str) -> None:
    """A trial that is answered from the store answers as before although the store had lost its model."""
    stages, untouched = StageStore(shutil.copytree(store, tmp_path / "stages")), StageStore(store)
    (model,) = stages.root.glob("training/*/model.safetensors")
    whole = model.read_bytes()
    spoil(model, how)
    numbers = numbers_of(FROZEN, prepare(folder, stages), stages)
    assert model.read_bytes() == whole
    assert numbers == numbers_of(FROZEN, prepare(folder, untouched), untouched)


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_rotten_checkpoint_starts_the_trial_anew(folder: Path, tmp_path: Path, how: str) -> None:
    """It is no bug of the trial's: one line tells it, and the end is that of a trial that nothing disturbed."""

    def stop(measurement: Measurement) -> None:
        if measurement.epoch == 2:
            raise KeyboardInterrupt

    whole, stages = StageStore(tmp_path / "whole"), StageStore(tmp_path / "stages")
    expected = numbers_of(SCRATCH, prepare(folder, whole), whole)
    data, told = prepare(folder, stages), list[str]()
    news = DamageNews(stages, told.append)
    with pytest.raises(KeyboardInterrupt):
        run_trial(SCRATCH, data, stages, stop)
    key = TrainedClassifier(SCRATCH, data, stages).key
    spoil(stages.folder("training", key).with_suffix(".unfinished") / CHECKPOINT, how)
    assert numbers_of(SCRATCH, data, stages) == expected
    news.check()
    (line,) = told
    assert CHECKPOINT in line
    assert "training begins anew" in line
