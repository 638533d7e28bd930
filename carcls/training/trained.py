"""A trained classifier as a stage: keyed by what training depends on, made once, resumable, shared by all families."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.disk import replacing
from carcls.errors import BadData, DamagedCheckpoint
from carcls.evaluation.metrics import softmax
from carcls.evaluation.predictions import PREDICTIONS
from carcls.machine import keep_freed_memory
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier, build_classifier, stand_in
from carcls.models.folding import folded
from carcls.models.weights import resolve_weights
from carcls.outcome import Measurement, Report
from carcls.seeding import make_deterministic
from carcls.stages import StageStore, write_json
from carcls.training.checkpoint import CHECKPOINT, load_model
from carcls.training.embeddings import (
    FEATURES,
    Embedder,
    features_key,
    frozen_features,
    part_of,
    read_features,
)
from carcls.training.images import ImageSource, NumberFormat, View, fetched, pick_device
from carcls.training.launcher import Launcher
from carcls.training.loop import Trainer
from carcls.training.measured import resolve_precision
from carcls.training.memory import memory_errors_named
from carcls.unfreezing import first_unfrozen, unfrozen_stages

KIND = "training"
HISTORY = "history.json"
VERSION = 4


@dataclass(frozen=True)
class TrainedClassifier:
    """The training stage of one trial: its key, how it is made, and what is read from it.

    Attributes:
        config: the trial.
        data: images, labels and splits.
        stages: the store.
    """

    config: TrialConfig
    data: Dataset
    stages: StageStore

    @cached_property
    def training(self) -> TrialConfig:
        """The trial as training sees it."""
        return self.config.training()

    @cached_property
    def device(self) -> torch.device:
        """Where it trains and answers."""
        return pick_device()

    @cached_property
    def precision(self) -> NumberFormat:
        """The format of the backbone's arithmetic on this device, once it trains if it ever does."""
        return resolve_precision(self.config, self.device, self.stages)

    @cached_property
    def frozen_precision(self) -> NumberFormat:
        """The format of the arithmetic of a frozen backbone, which may gain where it would lose training."""
        return resolve_precision(self.config, self.device, self.stages, frozen=True)

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that the trained model depends on; the family is not part of it."""
        key = {**self.config.training_settings(), **self._inputs, "precision": self.precision, "version": VERSION}
        begins_frozen = unfrozen_stages(self.training.unfreezing, 0, self.training.epochs, 1) == 0
        return {**key, "frozen_precision": self.frozen_precision} if begins_frozen else key

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        weights = resolve_weights(self.config.backbone, self.config.weights).digest
        return {"data": self.data.digest, "weights": weights}

    def get_or_train(self, report: Report) -> Path:
        """Return the stage's folder; train when it is not there. Either way every epoch is reported.

        Raises:
            TrialFailure: training cannot go on.
        """
        made_here = False

        def train(work: Path) -> None:
            nonlocal made_here
            made_here = True
            self._train(work, report)

        folder = self.stages.get_or_make(KIND, self.key, train, keep=True)
        # Found in the store, or made by another trial while this one waited.
        if not made_here:
            for epoch, metrics in enumerate(read_history(folder)):
                report(Measurement(epoch + 1, metrics, trained=False))
        return folder

    def load(self, model: str) -> Classifier:
        """Return the trained classifier on this device, in evaluation mode.

        Args:
            model: the stage's folder relative to the store. It may have been made on a device of another precision,
                under a key that this process would not compute. One that is damaged is trained again if it has the
                key of this process.

        Raises:
            BadData: the model is damaged, and another device trained it.
        """
        folder = self.stages.root / model
        if damage := self.stages.find_damage(model):
            if self.stages.folder(KIND, self.key) != folder:
                raise BadData(f"{str(folder)!r} is damaged: {damage}. Run the sweep under another name.")
            self.get_or_train(lambda _: None)
        classifier = self.build()
        load_model(folder, classifier)
        return classifier.eval()

    def embedder(self, model: str) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        """Return what embeds rows of the pack as the head sees them, float32 [n, d]; ``model`` as in ``load``."""
        backbone = self.load(model).backbone
        images = self.images(backbone)
        quick = folded(backbone, images.side)

        def embed(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            with self.reproducibly(), closing(images.through(quick, rows, self.precision)) as found:
                return fetched({"embeddings": each} for each in found)["embeddings"]

        return embed

    def known_features(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Return the same of a backbone that never trains, if the store has it, else None; no network is needed."""
        if self.training.unfreezing != "frozen":
            return None
        key = features_key(self.frozen_key, self.frozen_precision, rows, None)
        return read_features(self.stages.folder(FEATURES, key)) if self.stages.has(FEATURES, key) else None

    def build(self, backbone: Backbone | None = None) -> Classifier:
        """Return the classifier on its device with the weights that training begins with; the backbone may be given."""
        classifier = build_classifier(self.training, len(self.data.classes), backbone)
        return classifier.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def images(self, backbone: Backbone) -> ImageSource:
        """Return the data set's pixels as the backbone wants them."""
        pixels = self.data.pixels(self.stages, self.config.image_size)
        return ImageSource(pixels, backbone.mean, backbone.std, self.device)

    def _train(self, folder: Path, report: Report) -> None:
        """Train from the checkpoint in ``folder``; from the beginning where there is none, or a damaged one."""
        history: dict[int, dict[str, float]] = {}

        def note(measurement: Measurement) -> None:
            if measurement.trained or measurement.epoch not in history:
                history[measurement.epoch] = dict(measurement.metrics)
                report(measurement)

        with self.reproducibly():
            try:
                logits = self._fit(folder, note)
            except DamagedCheckpoint as damage:  # nothing of it was taken over
                (folder / CHECKPOINT).unlink()
                self.stages.note_damage(KIND, self.key, f"{damage}; training begins anew")
                history.clear()
                logits = self._fit(folder, note)
        write_json(folder / HISTORY, list(history.values()))
        rows = self.data.splits.validation
        save_predictions(folder / PREDICTIONS, rows, self.data.labels[rows], logits.argmax(axis=1), softmax(logits))
        (folder / CHECKPOINT).unlink(missing_ok=True)

    def _fit(self, folder: Path, report: Report) -> NDArray[np.float32]:
        """Train here; in several processes the epochs in which the backbone trains, if the trial says so."""
        config, splits = self.training, self.data.splits
        alone = config.epochs if config.processes == 1 else first_unfrozen(config.unfreezing, config.epochs)
        if alone == config.epochs:
            return self._trainer().fit(folder, report)
        if alone:
            self._trainer().train_until(alone, folder, report)
        if self.device.type == "cuda":
            gc.collect()  # the first build in a process, which imports timm, leaves a cycle that holds the trainer
            torch.cuda.empty_cache()  # the others need it
        return Launcher(
            config=config,
            classes=len(self.data.classes),
            pixels=self.data.pixels_file(self.stages, config.image_size),
            labels=self.data.labels,
            train=splits.train,
            validation=splits.validation,
            precision=self.precision,
            device=self.device,
        ).fit(folder, report)

    def _trainer(self) -> Trainer:
        # Where all features are in the store, neither a network nor its weights are needed.
        bare = stand_in(self.config.backbone) if self.training.unfreezing == "frozen" else None
        classifier = self.build(bare)
        images = self.images(classifier.backbone)
        return Trainer(
            config=self.training,
            classifier=classifier,
            images=images,
            labels=self.data.labels,
            train=self.data.splits.train,
            validation=self.data.splits.validation,
            precision=self.precision,
            features=self._features(images),
        )

    def frozen_features(
        self, rows: NDArray[np.int64], embedded: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float32]:
        """Return what the head of a backbone that never trains sees of the images as they are, float32 [n, d].

        A memory map of the stage that trials share; embedded where it is not there.

        Args:
            rows: int64 [n], of the pack.
            embedded: called with how many more images are, of those that had to be.
        """
        with self.reproducibly():
            images = self.images(self.build(stand_in(self.config.backbone)).backbone)
            return self._features(images, embedded)(rows, None)

    def _features(
        self, images: ImageSource, embedded: Callable[[int], None] = lambda _: None
    ) -> Callable[[NDArray[np.int64], View | None], NDArray[np.float32]]:
        build, part = (lambda: self.build().backbone), part_of(self.device, images.side)
        embedder = Embedder(self.stages, build, lambda _: images, self.frozen_precision, part, embedded)
        return partial(frozen_features, embedder, self.frozen_key)

    @property
    def frozen_key(self) -> dict[str, Any]:
        """What the embeddings of the untrained backbone depend on, besides the rows and the view."""
        key = {**self._inputs, "backbone": self.config.backbone, "image_size": self.config.image_size}
        # Random weights are a function of the seed; pretrained ones are not.
        return {**key, "seed": self.config.seed} if self._inputs["weights"] == "random" else key

    @contextmanager
    def reproducibly(self) -> Iterator[None]:
        """Compute deterministically, in memory that is kept, and name the device's memory errors."""
        keep_freed_memory()
        make_deterministic()
        with memory_errors_named(self.config):
            yield


def read_history(folder: Path) -> list[dict[str, float]]:
    """Return one metrics mapping per epoch of a training stage."""
    history: list[dict[str, float]] = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    return history


def save_predictions(
    path: Path,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> None:
    """Write per-image predictions as .npz: rows, labels, predicted int64 [n]; probabilities float32 [n, c]."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, rows=rows, labels=labels, predicted=predicted, probabilities=probabilities)
