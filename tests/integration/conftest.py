"""What several integration tests need, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.tracking.mirror import Mirror
from sweeps.tracking.store import Tracking, open_tracking
from sweeps.trial import TrialRecord


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


@pytest.fixture(scope="session")
def tracked_sweep() -> Callable[[Path, int], Tracking]:
    """Make a database in a folder that has the interrupted trials of a sweep ``s1``; its runs are closed."""

    def make(folder: Path, trials: int) -> Tracking:
        tracking = open_tracking(None, folder)
        mirror = Mirror(tracking, family="transfer", sweep_id="s1", name="s1", spec_yaml="", details={}, warn=print)
        for number in range(trials):
            mirror.trial_changed(TrialRecord(number, None, {}, {"dropout": 0.1}, "running", {}, 0, 0.0))
        assert mirror.close("complete")
        return tracking

    return make
