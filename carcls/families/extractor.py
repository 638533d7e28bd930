"""The network of a retrieval trial: it sees each image once, whatever is done with its embeddings afterwards.

Letters: n images of a split, d embedding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.config import Pooling
from carcls.errors import TrialFailure, WeightsError
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier
from carcls.outcome import Report
from carcls.stages import write_json
from carcls.training.embeddings import Embedder, part_of
from carcls.training.trained import TrainedClassifier

KIND, VERSION = "embeddings", 3
SOURCE = "source.json"


@dataclass(frozen=True)
class Extractor:
    """The embeddings that a trial's extractor gives: trained by the training stage, or not trained at all.

    A frozen extractor needs no training, since its embeddings do not depend on a head.

    Attributes:
        trained: the training stage, shared with every family; it knows the trial, its data and the store.
    """

    trained: TrainedClassifier

    def get_or_embed(self, report: Report) -> Path:
        """Return the stage with the embeddings of training and validation images; train the extractor if need be.

        Epochs of the training are reported as ``TrainedClassifier.get_or_train`` does; a frozen extractor has none.

        Raises:
            TrialFailure: training cannot go on.
        """
        trained, training = self.trained, None
        if trained.training.unfreezing == "frozen":
            key = {**trained.frozen_key, "precision": trained.precision, "version": VERSION}
        else:
            training = trained.get_or_train(report).relative_to(trained.stages.root).as_posix()
            key = {"training": trained.key, "version": VERSION}
        source = {"training": training, "weights": trained.key["weights"]}
        rows = np.concatenate([trained.data.splits.train, trained.data.splits.validation])  # the gallery, then queries
        with trained.reproducibly():
            return self._embedder(training).get_or_embed(
                KIND, key, rows, Backbone.every_pooling, finish=lambda folder: write_json(folder / SOURCE, source)
            )

    def load(self, model: str) -> Classifier:
        """Return the extractor of an embeddings stage, in evaluation mode.

        Args:
            model: the stage's folder relative to the store; another machine may have made it.

        Raises:
            WeightsError: it was never trained, and its weights are not those any more that it embedded with.
        """
        return self._extractor(self._source(model))

    def _source(self, model: str) -> str | None:
        """Return the training stage that made the extractor of an embeddings stage; None for one that is frozen."""
        source = json.loads((self.trained.stages.root / model / SOURCE).read_text(encoding="utf-8"))
        training: str | None = source["training"]
        if training is None and source["weights"] != self.trained.key["weights"]:
            backbone = self.trained.config.backbone
            raise WeightsError(
                f"weights must be those that the gallery was embedded with, got others for {backbone}. "
                "Put them back, or run the sweep again under another name."
            )
        return training

    def _extractor(self, training: str | None) -> Classifier:
        return self.trained.build().eval() if training is None else self.trained.load(training)

    def _embedder(self, training: str | None) -> Embedder:
        trained = self.trained
        found = Embedder(trained.stages, lambda: self._extractor(training).backbone, trained.images, trained.precision)
        if trained.device.type == "cpu":
            return found
        return replace(found, part=part_of(trained.device, trained.config.image_size))


def read_embeddings(folder: Path, pooling: Pooling) -> NDArray[np.float32]:
    """Return the embeddings of a stage, float32 [n, d], in the order of its rows.

    Raises:
        TrialFailure: the extractor cannot pool like that.
    """
    path = folder / f"{pooling}.npy"
    if not path.exists():
        raise TrialFailure(f"pooling must be average for this backbone, which has no feature maps, got {pooling!r}.")
    embeddings: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return embeddings
