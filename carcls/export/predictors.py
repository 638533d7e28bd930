"""Loaded models: image in, classes with probabilities out, and the nearest training images where neighbours vote.

Letters: b images, c classes, d embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.export.images import Images, Preprocessing
from carcls.models.classifier import Classifier
from carcls.neighbours.gallery import Gallery

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
class GalleryPredictor:
    """A loaded extractor with its gallery.

    Attributes:
        extractor: in evaluation mode. Its head is not used.
        classes: names in the order of the labels.
        preprocessing: what the extractor was trained with.
        gallery: the images that it compares with.
    """

    extractor: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    gallery: Gallery

    def predict(self, images: Images) -> list[Prediction]:
        """Return one prediction an image, in order, with the images of the gallery that voted, nearest first.

        Images and errors as ``Predictor.predict``.
        """
        gallery, names = self.gallery, self.classes
        found, winners, shares = gallery.answer(self.embed(images), len(names))
        voted = [
            tuple(
                Neighbour(gallery.images[place], names[gallery.labels[place]], float(distance))
                for place, distance in zip(places, distances, strict=True)
            )
            for places, distances in zip(found.indices, found.distances, strict=True)
        ]
        return [_named(row, int(win), names, near) for row, win, near in zip(shares, winners, voted, strict=True)]

    @torch.inference_mode()
    def embed(self, images: Images) -> NDArray[np.float32]:
        """Return the extractor's embeddings, float32 [b, d]."""
        backbone, pooling = self.extractor.backbone, self.gallery.config.pooling
        rows = [backbone.every_pooling(batch)[pooling].numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, backbone.embedding), np.float32), *rows])


def _named(
    row: NDArray[np.float32], winner: int, classes: Sequence[str], neighbours: tuple[Neighbour, ...] = ()
) -> Prediction:
    """Name the likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    best = sorted(range(len(row)), key=lambda place: (place != winner, -row[place]))[:TOP]
    top = tuple((classes[place], float(row[place])) for place in best)
    return Prediction(*top[0], top, neighbours)
