"""Loaded models: image in, classes with probabilities out, and the nearest training images where neighbours vote.

Letters: b images, c classes, g gallery, d embedding as the extractor gives it, m as it is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.export.images import Images, Preprocessing
from carcls.models.classifier import Classifier
from carcls.models.pooling import pooled_embeddings
from carcls.neighbours.search import find_neighbours
from carcls.neighbours.votes import answers
from carcls.neighbours.whitening import Projection

TOP = 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One image of the gallery.

    Attributes:
        image: its path, relative to the folder of the data set.
        label: its class.
        distance: from the image that was asked about.
    """

    image: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        label: the likeliest class.
        probability: of ``label``, in [0, 1]; where neighbours vote, its share of the votes.
        top: the five likeliest classes with their probabilities, best first; ``label`` is the first.
        neighbours: the images that voted, nearest first; none for a classifier.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Predictor:
    """A loaded classifier.

    Attributes:
        classifier: in evaluation mode.
        classes: names in the order of the logits.
        preprocessing: what it was trained with.
    """

    classifier: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def predict(self, images: Images) -> list[Prediction]:
        """Return one prediction an image, in order.

        Args:
            images: paths, PIL images or arrays, or one of them. An array is RGB [h, w, 3] or gray [h, w], uint8 in
                0..255 or floating in 0..1; one array [b, h, w, 3] is b images. Nothing is cropped: give what training
                saw, which is the car's box where the data set had boxes.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        return [_named(row, int(row.argmax()), self.classes) for row in self.probabilities(images)]

    @torch.inference_mode()
    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return probabilities float32 [b, c] of the classes in their order; images and errors as ``predict``."""
        rows = [self.classifier(batch).float().softmax(dim=1).numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows])


@dataclass(frozen=True)
class GalleryIndex:
    """The gallery and how it is asked.

    Attributes:
        embeddings: projected, float32 [g, m].
        labels: int64 [g], positions in the model's classes.
        images: paths relative to the folder of the data set, [g].
        projection: from the extractor's embeddings [d] to those that are compared.
        config: a trial's; its pooling, k, distance, vote and temperature count.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: tuple[str, ...]
    projection: Projection
    config: TrialConfig

    def require_whole(self, embedding: int, classes: int) -> None:
        """Raise ValueError unless all parts fit each other, embeddings [d] and so many classes."""
        mean, matrix, count = self.projection.mean, self.projection.matrix, len(self.images)
        width = embedding if matrix is None else matrix.shape[1]
        fits = self.embeddings.shape == (count, width) and self.labels.shape == (count,)
        fits &= mean is None or mean.shape == (embedding,)
        fits &= matrix is None or matrix.shape == (embedding, width)
        if not (fits and self.labels.min() >= 0 and self.labels.max() < classes and self.config.k <= count):
            raise ValueError("parts that do not fit each other")


@dataclass(frozen=True)
class GalleryPredictor:
    """A loaded extractor with its gallery.

    Attributes:
        extractor: in evaluation mode. Its head is not used.
        classes: names in the order of the labels.
        preprocessing: what the extractor was trained with.
        index: the gallery.
    """

    extractor: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    index: GalleryIndex

    def predict(self, images: Images) -> list[Prediction]:
        """Return one prediction an image, in order, with the images of the gallery that voted, nearest first.

        Images and errors as ``Predictor.predict``.
        """
        index, config, names = self.index, self.index.config, self.classes
        found = find_neighbours(self.embed(images), index.embeddings, config.k, config.distance)
        winners, shares = answers(found, index.labels, len(names), vote=config.vote, temperature=config.temperature)
        voted = [
            tuple(
                Neighbour(index.images[place], names[index.labels[place]], float(distance))
                for place, distance in zip(places, distances, strict=True)
            )
            for places, distances in zip(found.indices, found.distances, strict=True)
        ]
        return [_named(row, int(win), names, near) for row, win, near in zip(shares, winners, voted, strict=True)]

    @torch.inference_mode()
    def embed(self, images: Images) -> NDArray[np.float32]:
        """Return embeddings as they are compared, float32 [b, m]."""
        backbone, pooling = self.extractor.backbone, self.index.config.pooling
        rows = [pooled_embeddings(backbone, batch)[pooling].numpy() for batch in self.preprocessing.batches(images)]
        return self.index.projection.apply(np.concatenate([np.zeros((0, backbone.embedding), np.float32), *rows]))


def _named(
    row: NDArray[np.float32], winner: int, classes: Sequence[str], neighbours: tuple[Neighbour, ...] = ()
) -> Prediction:
    """Name the likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    best = sorted(range(len(row)), key=lambda place: (place != winner, -row[place]))[:TOP]
    top = tuple((classes[place], float(row[place])) for place in best)
    return Prediction(*top[0], top, neighbours)
