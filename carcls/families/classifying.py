"""What families of classifiers share: a trial trains one, and its answer is the likeliest class."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.evaluation.metrics import classification_metrics, softmax
from carcls.models.classifier import Classifier
from carcls.neighbours.gallery import Gallery
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore
from carcls.training.measured import costs_of
from carcls.training.trained import PREDICTIONS, TrainedClassifier, read_history

HAS_HEAD = True


def run(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Train the trial's classifier, or find it trained."""
    start = time.perf_counter()
    trained = TrainedClassifier(config, data, stages)
    reused = stages.has("training", trained.key)
    folder = trained.get_or_train(report)
    history = read_history(folder)
    relative = folder.relative_to(stages.root)
    return Outcome(
        metrics={**history[-1], **costs_of(config, len(data.classes), stages)},
        epochs=len(history),
        seconds=time.perf_counter() - start,
        reused=reused,
        model=relative.as_posix(),
        predictions=(relative / PREDICTIONS).as_posix(),
        precision=trained.precision,
    )


def train(config: TrialConfig, data: Dataset, stages: StageStore) -> Path:
    """Train the trial's classifier on ``data``, which has nothing to validate on."""
    return TrainedClassifier(config, data, stages).get_or_train(lambda _: None)


def answer_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, float]]:
    """Answer every test image with the trained classifier."""
    logits = TrainedClassifier(config, data, stages).logits(model, data.splits.test)
    metrics = classification_metrics(logits, data.labels[data.splits.test], prefix="test_")
    return logits.argmax(axis=1), softmax(logits), metrics


def exported(config: TrialConfig, data: Dataset, stages: StageStore, model: str) -> tuple[Classifier, Gallery | None]:
    """Return the trained classifier, which has no gallery."""
    return TrainedClassifier(config, data, stages).load(model), None
