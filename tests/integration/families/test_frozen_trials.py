"""Trials on a frozen backbone: views are shared, and who finds them builds no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from family_trials import SIZE, numbers, one_thread, read

from carcls.config import TrialConfig
from carcls.models import classifier as classifiers
from carcls.stages import StageStore, seconds_of
from carcls.training import embeddings, images, measured
from carcls.training.trained import TrainedClassifier

CONFIG = TrialConfig(
    backbone="efficientnet_lite0", precision="fp32", image_size=SIZE, epochs=3, batch_size=8, crop="random", dropout=0.2
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 10 training images and one test image of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 10, 1)


def test_a_frozen_trial_builds_no_backbone_where_its_views_are_known(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first trial, others with the same views need neither network nor weights; they measure the same."""
    stages, alone = StageStore(tmp_path / "shared"), StageStore(tmp_path / "alone")
    data = read(folder, stages)
    numbers(CONFIG, data, stages)
    second = CONFIG.model_copy(update={"dropout": 0.5})
    built: list[str] = []
    build = classifiers.build_network
    monkeypatch.setattr(classifiers, "build_network", lambda config: built.append(config.backbone) or build(config))
    found = numbers(second, data, stages)
    assert built == []
    assert found == numbers(second, read(folder, alone), alone)
    assert built == ["efficientnet_lite0"]


@pytest.mark.parametrize("unfreezing", ["frozen", "2:all"])
def test_who_waits_for_a_view_embeds_a_part_of_it(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unfreezing: str,
    run_while_held: Callable[..., Any],
) -> None:
    """Two trials that begin together share the images of a view, and nothing of what they say depends on it."""
    config = CONFIG.model_copy(update={"unfreezing": unfreezing})
    alone, shared = StageStore(tmp_path / "alone"), StageStore(tmp_path / "shared")
    for module in (images, embeddings):
        monkeypatch.setattr(module, "answering_batch", lambda *_: 4)
    expected = numbers(config, read(folder, alone), alone)
    monkeypatch.setattr(embeddings, "PART", 7)
    (view,) = (view for view, epoch in _views(alone).items() if epoch == 0)
    data = read(folder, shared)
    parts = [{"of": view, "first": first, "size": 8} for first in range(0, len(data.splits.train), 8)]
    mine, *others = [shared.folder(embeddings.PART_KIND, part) for part in parts]
    assert run_while_held(lambda: numbers(config, data, shared), mine, others) == expected
    assert not [part for part in (mine, *others) if part.exists()]
    assert seconds_of(shared.root / "features" / view) > 0


def _views(stages: StageStore) -> dict[str, int]:
    """Return the epoch of each view of augmented images, by the name of its stage."""
    keys = {file.parent.name: json.loads(file.read_text()) for file in stages.root.glob("features/*/key.json")}
    return {name: key["view"]["epoch"] for name, key in keys.items() if key["view"]}


@pytest.mark.parametrize(("unfreezing", "unfreezes"), [("frozen", False), ("9:all", False), ("2:all", True)])
def test_who_never_unfreezes_the_backbone_answers_in_its_frozen_format(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfreezing: str, unfreezes: bool
) -> None:
    """Views and answers of a trial are computed alike; what unfreezes it trains and answers in training's format."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    probe = lambda _config, _device, frozen: {"precision": "bf16" if frozen else "fp32"}  # noqa: E731
    monkeypatch.setattr(measured, "_probe", probe)
    stages = StageStore(tmp_path)
    config = CONFIG.model_copy(update={"unfreezing": unfreezing, "precision": "auto"})
    found = TrainedClassifier(config, read(folder, stages), stages)
    assert found.precision == ("fp32" if unfreezes else "bf16")
    assert found.frozen_precision == found.key["frozen_precision"] == "bf16"
