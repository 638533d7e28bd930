"""Trials that keep the backbone closed at first train that head once; frozen ones do not even build their backbone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from carcls.config import TrialConfig
from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.families import run_trial
from carcls.models import classifier as classifiers
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.training import measured
from carcls.training.loop import Trainer
from carcls.training.trained import TrainedClassifier

SIZE = 32
CONFIG = TrialConfig(
    backbone="efficientnet_lite0",
    precision="fp32",
    image_size=SIZE,
    epochs=3,
    batch_size=8,
    crop="random",
    flip=True,
    dropout=0.2,
)
LATER = CONFIG.model_copy(update={"unfreezing": "2:all", "clip_norm": 1.0, "optimizer": "adamw", "weight_decay": 1e-3})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small lose more by sharing the work than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 10 training images and one test image of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 10, 1)


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the epochs that are really trained."""
    trained: list[int] = []
    train = Trainer._train_epoch

    def counted(self: Trainer, epoch: int) -> float:
        trained.append(epoch)
        return train(self, epoch)

    monkeypatch.setattr(Trainer, "_train_epoch", counted)
    return trained


def _data(folder: Path, stages: StageStore) -> Dataset:
    return prepare_dataset(DataConfig(path=str(folder), validation_fraction=0.3), stages, SIZE)


def _run(config: TrialConfig, data: Dataset, stages: StageStore) -> tuple[list[dict[str, float]], list[bool]]:
    """Return the numbers of each epoch, and which were trained by this trial."""
    reports: list[Measurement] = []
    run_trial(config, data, stages, reports.append)
    times = ("seconds", "fit_seconds", "predict_seconds", "ms_per_query", "predict_ms")
    numbers = [{k: v for k, v in report.metrics.items() if k not in times} for report in reports]
    return numbers, [report.trained for report in reports]


@pytest.mark.parametrize(
    "other",
    [
        {"unfreezing": "1:1,2:all"},
        {"epochs": 4, "unfreezing": "2:1"},
        {"backbone_lr": 1e-4, "family": "retrieval"},
    ],
)
def test_a_head_is_trained_once_for_all_that_open_the_backbone_later(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[int], other: dict[str, Any]
) -> None:
    """The second trial trains no epoch of the common head, and measures what it would have without any sharing."""
    shared, alone = StageStore(tmp_path / "shared"), StageStore(tmp_path / "alone")
    second = LATER.model_copy(update=other)
    common = 1 if other.get("unfreezing", "").startswith("1") else 2
    first_numbers, trained = _run(LATER, _data(folder, shared), shared)
    assert (epochs, trained) == ([0, 1, 2], [True] * 3)
    epochs.clear()
    numbers, trained = _run(second, _data(folder, shared), shared)
    assert epochs == list(range(common, second.epochs))
    assert trained[:common] == [False] * common
    assert numbers[:common] == first_numbers[:common]
    monkeypatch.setattr(Trainer, "_shares_head", lambda _self, _epoch: False)
    assert numbers == _run(second, _data(folder, alone), alone)[0]
    assert not (tmp_path / "alone" / "heads").exists()


@pytest.mark.parametrize(
    "other",
    [
        {"head_lr": 5e-3},
        {"dropout": 0.1},
        {"seed": 1},
        {"lr_schedule": "cosine"},
        {"flip": False},
        {"batch_size": 4},
        {"micro_batch": 4},
        {"weight_decay": 0.0},
        {"label_smoothing": 0.1},
    ],
)
def test_another_head_has_another_key(other: dict[str, Any]) -> None:
    """What changes the head before the backbone opens makes another stage; what does not, does not."""
    assert LATER.model_copy(update=other).head_settings() != LATER.head_settings()
    same = {"unfreezing": "progressive", "backbone_lr": 0.5, "family": "retrieval", "k": 3, "epochs": 9}
    assert LATER.model_copy(update=same).head_settings() == LATER.head_settings()


def test_schedules_that_look_ahead_share_only_among_trials_of_equal_length() -> None:
    """A cosine over four epochs is another in its first two; steps are not."""
    longer = {"epochs": 4}
    assert LATER.head_settings() == LATER.model_copy(update=longer).head_settings()
    cosine = LATER.model_copy(update={"lr_schedule": "cosine"})
    assert cosine.head_settings() != cosine.model_copy(update=longer).head_settings()


def test_what_is_never_opened_makes_no_heads(folder: Path, tmp_path: Path) -> None:
    """A frozen trial is a stage as a whole; so is one that would open after its end."""
    stages = StageStore(tmp_path)
    data = _data(folder, stages)
    for unfreezing in ("frozen", "3:all"):
        _run(CONFIG.model_copy(update={"unfreezing": unfreezing}), data, stages)
    assert not (tmp_path / "heads").exists()


def test_a_frozen_trial_builds_no_backbone_where_its_views_are_known(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first trial, others with the same views need neither network nor weights; they measure the same."""
    stages, alone = StageStore(tmp_path / "shared"), StageStore(tmp_path / "alone")
    data = _data(folder, stages)
    _run(CONFIG, data, stages)
    second = CONFIG.model_copy(update={"dropout": 0.5})
    built: list[str] = []
    build = classifiers.build_network
    monkeypatch.setattr(classifiers, "build_network", lambda config: built.append(config.backbone) or build(config))
    numbers, _ = _run(second, data, stages)
    assert built == []
    assert numbers == _run(second, _data(folder, alone), alone)[0]
    assert built == ["efficientnet_lite0"]


@pytest.mark.parametrize("unfreezing", ["frozen", "2:all"])
def test_who_waits_for_a_view_makes_the_next_ones(
    folder: Path, tmp_path: Path, unfreezing: str, run_while_held: Callable[..., Any]
) -> None:
    """Two trials that begin together make two views, and nothing of what they say depends on it."""
    config = CONFIG.model_copy(update={"unfreezing": unfreezing})
    alone, shared = StageStore(tmp_path / "alone"), StageStore(tmp_path / "shared")
    expected, _ = _run(config, _data(folder, alone), alone)
    first, *later = [shared.root / view for view in _views(alone)]
    data = _data(folder, shared)
    found, _ = run_while_held(lambda: _run(config, data, shared), first, later)
    assert found == expected


def _views(stages: StageStore) -> list[Path]:
    """Return the stages of augmented images, relative to the store, by epoch."""
    keys = {file.parent: json.loads(file.read_text()) for file in stages.root.glob("features/*/key.json")}
    views = {folder: key["view"]["epoch"] for folder, key in keys.items() if key["view"]}
    return [folder.relative_to(stages.root) for folder in sorted(views, key=views.__getitem__)]


@pytest.mark.parametrize(("unfreezing", "opens"), [("frozen", False), ("9:all", False), ("2:all", True)])
def test_who_never_opens_the_backbone_answers_in_its_frozen_format(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreezing: str, opens: bool
) -> None:
    """Views and answers of a trial are computed alike; what opens it trains and answers in the format of training."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    monkeypatch.setattr(
        measured, "_probe", lambda _config, _device, frozen: {"precision": "bf16" if frozen else "fp32"}
    )
    stages = StageStore(tmp_path)
    found = TrainedClassifier(
        CONFIG.model_copy(update={"unfreezing": unfreezing, "precision": "auto"}), _data(folder, stages), stages
    )
    assert found.precision == ("fp32" if opens else "bf16")
    assert found.frozen_precision == found.key["frozen_precision"] == "bf16"
