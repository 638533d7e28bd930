"""Trials whose backbone several processes train, from pictures on the disk to a model in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from family_trials import SIZE, read, run, timeless

from carcls.config import TrialConfig
from carcls.families import refit_trial
from carcls.stages import StageStore
from carcls.training.loop import image_logits
from carcls.training.trained import TrainedClassifier

CONFIG = TrialConfig(
    backbone="efficientnet_lite0",
    weights="random",
    image_size=SIZE,
    epochs=3,
    batch_size=8,
    unfreezing="1:1",
    precision="fp32",
    processes=2,
)


def test_a_trial_in_two_processes_leaves_what_any_trial_does(tmp_path: Path, draw_tints: Callable[..., Path]) -> None:
    """Its head trains here on cached features, then two processes go on from the checkpoint; a refit does the same.

    All epochs are reported once, the model answers as it was measured, and the next one finds it in the store.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    stages = StageStore(tmp_path / "stages")
    data = read(draw_tints(tmp_path / "pictures", 12, 3), stages)
    reports, outcome = run(CONFIG, data, stages)
    assert [(report.epoch, report.trained) for report in reports] == [(1, True), (2, True), (3, True)]
    with np.load(stages.root / outcome.predictions) as kept:
        predicted = kept["predicted"]
    trained = TrainedClassifier(CONFIG, data, stages)
    classifier = trained.load(outcome.model)
    logits = image_logits(classifier, trained.images(classifier.backbone), data.splits.validation, trained.precision)
    assert logits.argmax(axis=1).tolist() == predicted.tolist()
    left = {path.name for path in (stages.root / outcome.model).iterdir()}
    assert left == {"model.safetensors", "history.json", "validation.npz", "files.json", "key.json", "made.json"}
    again, found = run(CONFIG, data, stages)
    assert (found.reused, found.model) == (True, outcome.model)
    assert [timeless(report.metrics) for report in again] == [timeless(report.metrics) for report in reports]
    alone = TrainedClassifier(CONFIG.model_copy(update={"processes": 1}), data, stages)
    assert trained.key["processes"] == 2
    assert {name: value for name, value in trained.key.items() if name != "processes"} == alone.key
    refitted = refit_trial(CONFIG, data.refitted(), stages)
    assert (stages.root / refitted / "model.safetensors").is_file()
    torch.set_num_threads(threads)
