"""A model that carries its gallery: image in, its nearest training images and their vote out.

Letters: g gallery, d embedding as the extractor gives it, m as it is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from carcls.config import Distance, Pooling, Vote
from carcls.disk import replacing
from carcls.errors import InputError
from carcls.evaluation.neighbours import Neighbours, find_neighbours
from carcls.evaluation.votes import answers
from carcls.evaluation.whitening import Projection
from carcls.export_answers import Neighbour, Prediction, named_prediction, require_top
from carcls.export_images import Images, Preprocessing
from carcls.models.classifier import Classifier

GALLERY_NAME = "gallery.safetensors"
_SETTINGS = ("pooling", "k", "distance", "vote", "temperature")


@dataclass(frozen=True)
class GalleryIndex:
    """The gallery and how it is asked.

    Attributes:
        embeddings: projected, float32 [g, m].
        labels: int64 [g], positions in the model's classes.
        images: paths relative to the folder of the data set, [g].
        projection: from the extractor's embeddings [d] to those that are compared.
        pooling, k, distance, vote, temperature: as in a trial.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: tuple[str, ...]
    projection: Projection
    pooling: Pooling
    k: int
    distance: Distance
    vote: Vote
    temperature: float

    def description(self) -> dict[str, Any]:
        """Return all but the arrays, as JSON has it."""
        return {
            **{name: getattr(self, name) for name in _SETTINGS},
            "l2_normalize": self.projection.l2_normalize,
            "images": list(self.images),
        }

    def save(self, folder: Path) -> None:
        """Write the arrays, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {"embeddings": self.embeddings, "labels": self.labels}
        parts = {"mean": self.projection.mean, "matrix": self.projection.matrix}
        arrays |= {name: np.ascontiguousarray(part) for name, part in parts.items() if part is not None}
        with replacing(folder / GALLERY_NAME) as temporary:
            save_file(arrays, temporary)

    @classmethod
    def load(cls, folder: Path, description: Any, *, embedding: int, classes: int) -> GalleryIndex:
        """Read what ``save`` and ``description`` gave.

        Args:
            embedding: d of the extractor.
            classes: of the model.

        Raises:
            InputError: the arrays are missing, damaged, or do not belong to the description.
        """
        try:
            arrays = load_file(folder / GALLERY_NAME)
            projection = Projection(arrays.get("mean"), arrays.get("matrix"), bool(description["l2_normalize"]))
            settings = {name: description[name] for name in _SETTINGS}
            index = cls(arrays["embeddings"], arrays["labels"], tuple(description["images"]), projection, **settings)
            index._require_whole(embedding, classes)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{GALLERY_NAME} in {str(folder)!r} must hold the gallery that model.json describes. Export it again."
            ) from error
        return index

    def _require_whole(self, embedding: int, classes: int) -> None:
        """Raise ValueError unless all parts fit each other."""
        projection, count = self.projection, len(self.images)
        width = embedding if projection.matrix is None else projection.matrix.shape[1]
        shapes: tuple[tuple[NDArray[Any] | None, tuple[int, ...]], ...] = (
            (self.embeddings, (count, width)),
            (self.labels, (count,)),
            (projection.mean, (embedding,)),
            (projection.matrix, (embedding, width)),
        )
        if any(array is not None and array.shape != shape for array, shape in shapes):
            raise ValueError("arrays of other shapes")
        if not (self.labels.min() >= 0 and self.labels.max() < classes and 1 <= self.k <= count):
            raise ValueError("labels or k out of range")
        chosen = ((self.pooling, Pooling), (self.distance, Distance), (self.vote, Vote))
        if any(value not in get_args(known) for value, known in chosen) or not self.temperature > 0:
            raise ValueError("unknown settings")


class GalleryPredictor:
    """A loaded extractor with its gallery.

    Args:
        extractor: in any mode; it is put into evaluation mode. Its head is not used.
        classes: names in the order of the labels.
        preprocessing: what the extractor was trained with.
        index: the gallery.
        description: all of ``model.json``.
    """

    def __init__(
        self,
        extractor: Classifier,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        index: GalleryIndex,
        description: Mapping[str, Any],
    ) -> None:
        self.classes = classes
        self.index = index
        self.description = description
        self.image_size = preprocessing.image_size
        self._extractor = extractor.eval()
        self._preprocessing = preprocessing

    def predict(self, images: Images, *, top: int = 5, batch_size: int = 64) -> list[Prediction]:
        """Return one prediction an image, in order; arguments and errors as ``carcls.export.Predictor.predict``."""
        return self.neighbours(images, top=top, batch_size=batch_size)

    def neighbours(
        self, images: Images, k: int | None = None, *, top: int = 5, batch_size: int = 64
    ) -> list[Prediction]:
        """Return one prediction an image, in order, with the k images of the gallery that voted, nearest first.

        Args:
            images, top, batch_size: as ``carcls.export.Predictor.predict`` takes them.
            k: how many neighbours vote; None means as many as in the trial.

        Raises:
            InputError: an image cannot be read, or the gallery has no k images.
        """
        require_top(top)
        index = self.index if k is None else replace(self.index, k=k)
        found = find_neighbours(self.embed(images, batch_size=batch_size), index.embeddings, index.k, index.distance)
        count = len(self.classes)
        winners, shares = answers(found, index.labels, count, vote=index.vote, temperature=index.temperature)
        return [
            named_prediction(row, self.classes, top, int(winner), self._named(found, position))
            for position, (row, winner) in enumerate(zip(shares, winners, strict=True))
        ]

    @torch.inference_mode()
    def embed(self, images: Images, *, batch_size: int = 64) -> NDArray[np.float32]:
        """Return embeddings as they are compared, float32 [b, m]."""
        rows = [
            self._extractor.backbone.every_pooling(batch)[self.index.pooling].numpy()
            for batch in self._preprocessing.batches(images, batch_size)
        ]
        if not rows:
            return np.zeros((0, self.index.embeddings.shape[1]), np.float32)
        return self.index.projection.apply(np.concatenate(rows))

    def _named(self, found: Neighbours, query: int) -> tuple[Neighbour, ...]:
        places: Sequence[int] = found.indices[query].tolist()
        labels: Sequence[int] = self.index.labels[places].tolist()
        distances: Sequence[float] = found.distances[query].tolist()
        return tuple(
            Neighbour(self.index.images[place], self.classes[label], distance)
            for place, label, distance in zip(places, labels, distances, strict=True)
        )
