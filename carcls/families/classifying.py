"""What families of classifiers share: a trial trains one, and its answer is the likeliest class."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.evaluation.classification import classification_metrics, softmax
from carcls.evaluation.significance import wilson_interval
from carcls.export import write_export
from carcls.families import TestScore
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore
from carcls.training.measured import costs_of
from carcls.training.trained import PREDICTIONS, TrainedClassifier, read_history, save_predictions


def run(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Train the trial's classifier, or find it trained."""
    start = time.perf_counter()
    trained = TrainedClassifier(config, data, stages)
    reused = stages.has("training", trained.key)
    folder = trained.get_or_train(report)
    history = read_history(folder)
    relative = folder.relative_to(stages.root)
    costs = costs_of(config, len(data.classes), stages)
    return Outcome(
        metrics={**history[-1], "predict_ms": costs.milliseconds, "parameters": float(costs.parameters)},
        epochs=len(history),
        seconds=time.perf_counter() - start,
        reused=reused,
        model=relative.as_posix(),
        predictions=(relative / PREDICTIONS).as_posix(),
        precision=trained.precision,
    )


def refit(config: TrialConfig, data: Dataset, stages: StageStore) -> str:
    """Train the trial's classifier on ``data``, which has nothing to validate on; return its folder in the store."""
    folder = TrainedClassifier(config, data, stages).get_or_train(lambda _: None)
    return folder.relative_to(stages.root).as_posix()


def evaluate_on_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, predictions: Path | None
) -> TestScore:
    """Answer every test image with the trained classifier."""
    rows = data.splits.test
    labels = data.labels[rows]
    logits = TrainedClassifier(config, data, stages).logits(model, rows)
    if predictions is not None:
        save_predictions(predictions, rows, labels, logits.argmax(axis=1), softmax(logits))
    metrics = classification_metrics(logits, labels, prefix="test_")
    hits = round(metrics["test_accuracy"] * len(rows))
    return TestScore(metrics, wilson_interval(hits, len(rows)), len(rows))


def export(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, folder: Path, details: Mapping[str, Any]
) -> None:
    """Write the trained classifier as a servable folder."""
    classifier = TrainedClassifier(config, data, stages).load(model)
    write_export(
        folder,
        classifier,
        classes=data.classes,
        image_size=config.image_size,
        backbone=config.backbone,
        margin=data.margin,
        architecture=config.architecture(),
        details=details,
    )
