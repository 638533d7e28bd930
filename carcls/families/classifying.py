"""What families of classifiers share: a trial trains one, and its answer is the likeliest class."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.evaluation.predictions import PREDICTIONS
from carcls.models.classifier import Classifier
from carcls.neighbours.gallery import Gallery
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore
from carcls.training.measured import costs_of
from carcls.training.trained import TrainedClassifier, read_history


@dataclass(frozen=True)
class ClassifyingTrial:
    """A trial of transfer or scratch, with the data and the store that it uses."""

    config: TrialConfig
    data: Dataset
    stages: StageStore

    @cached_property
    def _trained(self) -> TrainedClassifier:
        return TrainedClassifier(self.config, self.data, self.stages)

    def run(self, report: Report) -> Outcome:
        """Train the trial's classifier, or find it trained."""
        start = time.perf_counter()
        reused = self.stages.has("training", self._trained.key)
        folder = self._trained.get_or_train(report)
        history = read_history(folder)
        relative = folder.relative_to(self.stages.root)
        return Outcome(
            metrics={**history[-1], **costs_of(self.config, len(self.data.classes), self.stages)},
            epochs=len(history),
            seconds=time.perf_counter() - start,
            reused=reused,
            model=relative.as_posix(),
            predictions=(relative / PREDICTIONS).as_posix(),
            precision=self._trained.precision,
        )

    def train(self) -> Path:
        """Train the trial's classifier on data that has nothing to validate on."""
        return self._trained.get_or_train(lambda _: None)

    def exported(self, model: str) -> tuple[Classifier, Gallery | None]:
        """Return the trained classifier, which has no gallery."""
        return self._trained.load(model), None
