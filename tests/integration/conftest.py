"""What several integration tests need, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a classifier of seven classes with random weights; its folder."""
    from carcls.config import TrialConfig
    from carcls.export import write_export
    from carcls.models.backbones import build_backbone
    from carcls.models.classifier import Classifier

    folder = tmp_path_factory.mktemp("export") / "model"
    classes = [f"Make Model {year}" for year in range(2007, 2014)]
    classifier = Classifier(build_backbone("efficientnet_lite0"), 0.0, len(classes)).eval()
    config = TrialConfig(backbone="efficientnet_lite0", image_size=64)
    write_export(folder, classifier, config, classes=classes, margin=0.0)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose gallery has the pictures of four classes, beside the sweep ``mine`` that knows where they are."""
    from helpers import draw_pictures, export_with_gallery

    from carcls.data.config import DataConfig
    from carcls.data.dataset import prepare_dataset
    from carcls.stages import StageStore

    pictures = draw_pictures(tmp_path / "pictures")
    data = prepare_dataset(DataConfig(path=str(pictures)), StageStore(tmp_path / "runs" / "stages"), 64)
    (tmp_path / "runs" / "mine").mkdir()
    data.save(tmp_path / "runs" / "mine" / "dataset.json")
    return export_with_gallery(tmp_path / "model", pictures)
