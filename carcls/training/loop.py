"""The training loop: one trial, epoch by epoch, resumable to the same numbers.

Letters: b batch, c classes, d embedding, n images of a split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from carcls.config import TrialConfig
from carcls.data.augment import augmentation_of
from carcls.errors import InputError, NonFiniteLoss
from carcls.evaluation.metrics import classification_metrics
from carcls.models.classifier import Classifier
from carcls.models.folding import folded
from carcls.outcome import Measurement, Report
from carcls.seeding import generator, seed_epoch
from carcls.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint, save_model
from carcls.training.images import ImageSource, NumberFormat, View, autocast, batches, fetched, grouped
from carcls.training.optim import build_optimizer, lr_factor, set_learning_rates, training_loss
from carcls.training.parallel import ALONE, Parallel
from carcls.unfreezing import unfrozen_stages

WORTH_FOLDING = 200
"""Images, of which a network answers fewer on a CPU sooner than a copy of it is folded; on a GPU it would be thousands,
since folding is work of the host: 53 copies, hooks and small operations for ResNet-50."""
STEPS_BETWEEN_CHECKS = 20
SENT_BYTES = 2**28
"""Of cached features, that are copied to a GPU at a time."""
SECONDS_BETWEEN_HEADS = 2.0
"""A head on cached features trains faster than its checkpoint is brought to the disk; so much of it may be lost."""


@dataclass
class Trainer:
    """Trains one classifier. The state that changes is the classifier's, the optimizer's and ``progress``.

    Without validation images, as in a refit, an epoch measures the training loss only.

    Attributes:
        config: the trial.
        classifier: on its device.
        images: where batches come from.
        labels: of all rows of the pack, int64 [total].
        train, validation: rows of the splits, int64 [n].
        precision: of the backbone's arithmetic; the head always computes in fp32.
        features: looks up embeddings float32 [n, d] of rows in a view, for epochs in which the backbone is frozen; None
            computes them as they are needed.
        parallel: the processes that train it together, and which of them this is.
    """

    config: TrialConfig
    classifier: Classifier
    images: ImageSource
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    precision: NumberFormat
    features: Callable[[NDArray[np.int64], View | None], NDArray[np.float32]] | None
    parallel: Parallel = ALONE
    optimizer: Optimizer = field(init=False)
    progress: TrainingProgress = field(init=False)
    _connected: tuple[int, nn.Module] | None = field(init=False, default=None)
    """What makes logits of images, for so many unfrozen stages."""
    _validated: Tensor | None = field(init=False, default=None)
    """Embeddings of the validation images on the device, as long as the backbone is frozen."""

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.classifier, self.config)
        self.progress = TrainingProgress()

    def fit(self, folder: Path, report: Report) -> NDArray[np.float32]:
        """Train to the last epoch, from the checkpoint in ``folder`` if there is one, and write the model there.

        Every epoch is reported, those before the checkpoint too. Returns the validation logits, float32 [n, c].

        Raises:
            InputError: a batch, or a part of one, has one image, and the network cannot train on it.
            NonFiniteLoss: a loss became NaN or infinite.
        """
        logits = self.train_until(self.config.epochs, folder, report)
        save_model(folder, self.classifier, self.progress.unfrozen)
        return self.validation_logits(self.config.epochs - 1) if logits is None else logits

    def train_until(self, epochs: int, folder: Path, report: Report) -> NDArray[np.float32] | None:
        """As ``fit``, but only so many of the trial's epochs, from which others can go on; writes no model.

        A checkpoint follows every epoch of an unfrozen backbone; of a frozen one, at least every other second.

        Returns:
            The validation logits; None where the checkpoint had all epochs.
        """
        self.progress = load_checkpoint(folder, self.classifier, self.optimizer)
        for epoch, metrics in enumerate(self.progress.history):
            report(Measurement(epoch + 1, metrics, trained=False))
        logits: NDArray[np.float32] | None = None
        saved = time.perf_counter()
        for epoch in range(len(self.progress.history), epochs):
            logits = self.run_epoch(epoch)
            is_left = epoch + 1 == epochs < self.config.epochs
            if is_left or not self._frozen(epoch) or time.perf_counter() - saved >= SECONDS_BETWEEN_HEADS:
                save_checkpoint(folder, self.classifier, self.optimizer, self.progress)
                saved = time.perf_counter()
            report(Measurement(epoch + 1, self.progress.history[-1]))
        return logits

    def follow(self, folder: Path) -> None:
        """Take part in the epochs that another process trains by ``fit``, which alone measures, reports and writes."""
        self.progress = load_checkpoint(folder, self.classifier, self.optimizer)
        for epoch in range(len(self.progress.history), self.config.epochs):
            self.classifier.unfreeze(self._unfrozen(epoch))
            self._train_epoch(epoch)

    def run_epoch(self, epoch: int) -> NDArray[np.float32]:
        """Train for one epoch, from 0, and note its measures; return the validation logits, float32 [n, c].

        Raises:
            NonFiniteLoss: a loss became NaN or infinite.
        """
        start = time.perf_counter()
        unfrozen = self._unfrozen(epoch)
        self.classifier.unfreeze(unfrozen)
        train_loss = self._train_epoch(epoch)
        logits = self.validation_logits(epoch)
        labels = self.labels[self.validation]
        metrics = classification_metrics(logits, labels, prefix="val_") if len(logits) else {}
        if metrics and not math.isfinite(metrics["val_loss"]):
            raise NonFiniteLoss(f"the validation loss became {metrics['val_loss']} in epoch {epoch + 1}.")
        metrics = {"train_loss": train_loss, **metrics, "seconds": time.perf_counter() - start}
        self.progress = TrainingProgress(max(unfrozen, self.progress.unfrozen), (*self.progress.history, metrics))
        return logits

    def _frozen(self, epoch: int) -> bool:
        """Whether the backbone has not trained up to and including this epoch."""
        return self._unfrozen(epoch) == 0 and self.progress.unfrozen == 0

    def _unfrozen(self, epoch: int) -> int:
        stages = len(self.classifier.backbone.stage_paths)
        return unfrozen_stages(self.config.unfreezing, epoch, self.config.epochs, stages)

    def _train_epoch(self, epoch: int) -> float:
        """Run one epoch of optimizer steps; return the mean training loss in nats."""
        count, size = len(self.train), self.config.batch_size
        order = torch.randperm(count, generator=generator(self.config.seed, "order", epoch))
        all_batches = list(batches(count, size, order))
        seed_epoch(self.config.seed, epoch, self.parallel.rank)
        total = torch.zeros((), device=self.images.device)
        all_parts = [self.parallel.parts(self.config, batch) for batch in all_batches]
        in_order = [part.positions for parts in all_parts for part in parts]
        labelled, network = iter(self._labels(in_order)), self._network(epoch)
        with closing(self._inputs(epoch, in_order)) as inputs, self._one_image_refused():
            for index, parts in enumerate(all_parts):
                step = epoch * len(all_batches) + index
                set_learning_rates(self.optimizer, lr_factor(self.config, step, len(all_batches)))
                taken = zip(parts, inputs, labelled, strict=False)  # no more than the batch's parts
                weighted = ((found, labels, part.weight) for part, found, labels in taken)
                total += self._step(network, weighted, len(parts))
                if (index + 1) % STEPS_BETWEEN_CHECKS == 0 or index + 1 == len(all_batches):
                    mean = self.parallel.average(total)
                    self._check(mean, epoch, index)
        return float(mean / len(all_batches))

    def _step(self, network: nn.Module, parts: Iterable[tuple[Tensor, Tensor, float]], count: int) -> Tensor:
        """Take one step of the optimizer; return the loss of the batch in nats, the mean over all processes being it.

        Args:
            network: gives logits [p, c] of what ``parts`` have.
            parts: inputs and labels [p] of the batch, all of it or one micro-batch after another, and the weight of
                their mean loss (``Piece``).
            count: of parts.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.images.device)
        for number, (inputs, labels, weight) in enumerate(parts, 1):
            with self.parallel.averaging(network, now=number == count):
                loss = training_loss(network(inputs), labels, self.config) * weight
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self.config.clip_norm > 0:
            clip_grad_norm_([p for p in self.classifier.parameters() if p.grad is not None], self.config.clip_norm)
        self.optimizer.step()
        return total

    def _check(self, total: Tensor, epoch: int, index: int) -> None:
        if not bool(torch.isfinite(total)):
            raise NonFiniteLoss(
                f"the training loss became {float(total)} in epoch {epoch + 1}, by step {index + 1}; "
                "lower the learning rates or set clip_norm."
            )

    def _labels(self, parts: list[NDArray[np.int64]]) -> tuple[Tensor, ...]:
        """Return the labels of each part, int64 [p]; a GPU, which each copy waits for, gets all of them at once."""
        labels = torch.from_numpy(self.labels[self.train[np.concatenate(parts)]]).to(self.images.device)
        return torch.split(labels, [len(part) for part in parts])

    def _inputs(self, epoch: int, parts: list[NDArray[np.int64]]) -> Generator[Tensor]:
        """Yield what the network of this epoch takes for each part: images [p, 3, s, s], or embeddings [p, d]."""
        if self._frozen(epoch) and self.features is not None:
            cached = self.features(self.train, self._view(epoch))
            most = 1 if self.images.device.type == "cpu" else SENT_BYTES // cached[:1].nbytes
            for group in grouped(parts, most):
                found = torch.from_numpy(cached[np.concatenate(group)]).to(self.images.device)
                yield from torch.split(found, [len(part) for part in group])
            return
        rows = [self.train[positions] for positions in parts]
        with closing(self.images.stream(rows, self._view(epoch))) as stream:
            yield from stream

    def _network(self, epoch: int) -> nn.Module:
        """Return what makes logits of what ``_inputs`` yields: one module as long as the same parameters train."""
        unfrozen = self._unfrozen(epoch)
        if self._frozen(epoch):
            return Forward(self.classifier, self.precision, "known" if self.features is not None else "frozen")
        if self._connected is None or self._connected[0] != unfrozen:
            self._connected = None  # lets go of the one before
            self._connected = unfrozen, self.parallel.connect(Forward(self.classifier, self.precision, "trains"))
        return self._connected[1]

    @contextmanager
    def _one_image_refused(self) -> Iterator[None]:
        """Say what to change where BatchNorm cannot take the variance of one value, as PyTorch finds."""
        try:
            yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"batches must hold at least 2 images for {self.config.backbone} at {self.images.side} pixels, got 1: "
                "where its maps have shrunk to one place, BatchNorm cannot take the variance of one value. Raise "
                "batch_size, micro_batch or image_size."
            ) from error

    def _view(self, epoch: int) -> View | None:
        augmentation = augmentation_of(self.config)
        return View(augmentation, self.config.seed, epoch) if augmentation else None

    def validation_logits(self, epoch: int) -> NDArray[np.float32]:
        """Return the logits of the validation images as they stand after ``epoch``, float32 [n, c]."""
        if not len(self.validation):
            return np.zeros((0, self.classifier.head.out_features), np.float32)
        if self._frozen(epoch) and self.features is not None:
            if self._validated is None:
                embeddings = np.array(self.features(self.validation, None))  # [n, d]
                self._validated = torch.from_numpy(embeddings).to(self.images.device)
            return self.classifier.answer(self._validated).cpu().numpy()
        self._validated = None
        return image_logits(self.classifier, self.images, self.validation, self.precision)


class Forward(nn.Module):
    """A classifier as one step of training takes it: the backbone in its number format, the head in fp32.

    Args:
        classifier: whose mode and parameters stay as they are.
        precision: of the backbone's arithmetic.
        backbone: whether it ``trains``, is ``frozen``, or is not used since the embeddings are ``known``.
    """

    def __init__(
        self, classifier: Classifier, precision: NumberFormat, backbone: Literal["trains", "frozen", "known"]
    ) -> None:
        super().__init__()
        self.classifier, self.precision, self.of_backbone = classifier, precision, backbone

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [p, c] of images [p, 3, s, s], or of embeddings [p, d] that are known."""
        if self.of_backbone != "known":
            with torch.set_grad_enabled(self.of_backbone == "trains"), autocast(inputs.device, self.precision):
                inputs = self.classifier.embed(inputs)
            inputs = inputs.float() if self.precision == "bf16" else inputs
        return self.classifier.classify(inputs)


def image_logits(
    classifier: Classifier, images: ImageSource, rows: NDArray[np.int64], precision: NumberFormat
) -> NDArray[np.float32]:
    """Return the classifier's answers in evaluation mode for unchanged images, float32 [n, c]."""
    classifier.eval()
    worth_it = images.device.type == "cpu" and len(rows) >= WORTH_FOLDING
    backbone = folded(classifier.backbone, images.side) if worth_it else classifier.backbone
    with closing(images.through(backbone, rows, precision)) as found:
        return fetched({"logits": classifier.answer(embeddings.float())} for embeddings in found)["logits"]
