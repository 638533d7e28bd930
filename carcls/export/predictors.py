"""Loaded models: image in, classes with probabilities out, and the nearest training images where neighbours vote.

Letters: b images, c classes, d embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carcls.config import Pooling
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
    """A loaded model.

    Attributes:
        network: in evaluation mode. Its head is not used where there is a gallery.
        classes: names in the order of the logits and labels.
        preprocessing: what the network was trained with.
        gallery: the images whose votes answer; None for a classifier.
    """

    network: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    gallery: Gallery | None = None

    def predict(self, images: Images) -> list[Prediction]:
        """Return one prediction an image, in order; with a gallery, with the images of it that voted, nearest first.

        Args:
            images: paths, PIL images or arrays, or one of them. An array is RGB [h, w, 3] or gray [h, w], uint8 in
                0..255 or floating in 0..1; one array [b, h, w, 3] is b images. Nothing is cropped: give what training
                saw, which is the car's box where the data set had boxes.

        Raises:
            InputError: an image cannot be read, or an array is of another kind; names which.
        """
        gallery, names = self.gallery, self.classes
        if gallery is None:
            return [_named(row, int(row.argmax()), names) for row in self.probabilities(images)]
        found, winners, shares = gallery.answer(self.embed(images, gallery.config.pooling), len(names))
        voted = [
            tuple(
                Neighbour(gallery.images[place], names[gallery.labels[place]], float(distance))
                for place, distance in zip(places, distances, strict=True)
            )
            for places, distances in zip(found.indices, found.distances, strict=True)
        ]
        return [_named(row, int(win), names, near) for row, win, near in zip(shares, winners, voted, strict=True)]

    @torch.inference_mode()
    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """Return a classifier's probabilities float32 [b, c] of the classes; images and errors as ``predict``."""
        rows = [self.network(batch).float().softmax(dim=1).numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows])

    @torch.inference_mode()
    def embed(self, images: Images, pooling: Pooling) -> NDArray[np.float32]:
        """Return embeddings float32 [b, d]; images and errors as ``predict``."""
        backbone = self.network.backbone
        rows = [backbone.every_pooling(batch)[pooling].numpy() for batch in self.preprocessing.batches(images)]
        return np.concatenate([np.zeros((0, backbone.embedding), np.float32), *rows])


def _named(
    row: NDArray[np.float32], winner: int, classes: Sequence[str], neighbours: tuple[Neighbour, ...] = ()
) -> Prediction:
    """Name the likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    best = sorted(range(len(row)), key=lambda place: (place != winner, -row[place]))[:TOP]
    top = tuple((classes[place], float(row[place])) for place in best)
    return Prediction(*top[0], top, neighbours)
