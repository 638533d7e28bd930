"""The gallery that an exported model carries, and its file.

Letters: g gallery, d embedding as the extractor gives it, m as it is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from carcls.config import TrialConfig
from carcls.disk import replacing
from carcls.errors import InputError
from carcls.neighbours.whitening import Projection

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
        config: a trial's; its pooling, k, distance, vote and temperature count.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: tuple[str, ...]
    projection: Projection
    config: TrialConfig

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays, whole or not at all; return the rest, as JSON has it."""
        projection = self.projection
        arrays = {"embeddings": self.embeddings, "labels": self.labels}
        arrays |= {"mean": projection.mean, "matrix": projection.matrix}
        with replacing(folder / GALLERY_NAME) as temporary:
            save_file({n: np.ascontiguousarray(array) for n, array in arrays.items() if array is not None}, temporary)
        settings = {name: getattr(self.config, name) for name in _SETTINGS}
        return {**settings, "l2_normalize": projection.l2_normalize, "images": list(self.images)}

    @classmethod
    def load(cls, folder: Path, description: Any, *, embedding: int, classes: int) -> GalleryIndex:
        """Read what ``save`` wrote and returned.

        Args:
            embedding: d of the extractor.
            classes: of the model.

        Raises:
            InputError: the arrays are missing, damaged, or do not belong to the description.
        """
        try:
            arrays = load_file(folder / GALLERY_NAME)
            projection = Projection(arrays.get("mean"), arrays.get("matrix"), bool(description["l2_normalize"]))
            config = TrialConfig(family="retrieval", **{name: description[name] for name in _SETTINGS})
            index = cls(arrays["embeddings"], arrays["labels"], tuple(description["images"]), projection, config)
            index._require_whole(embedding, classes)
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{GALLERY_NAME} in {str(folder)!r} must hold the gallery that model.json describes. Export it again."
            ) from error
        return index

    def _require_whole(self, embedding: int, classes: int) -> None:
        """Raise ValueError unless all parts fit each other."""
        mean, matrix, count = self.projection.mean, self.projection.matrix, len(self.images)
        width = embedding if matrix is None else matrix.shape[1]
        fits = self.embeddings.shape == (count, width) and self.labels.shape == (count,)
        fits &= mean is None or mean.shape == (embedding,)
        fits &= matrix is None or matrix.shape == (embedding, width)
        if not (fits and self.labels.min() >= 0 and self.labels.max() < classes and self.config.k <= count):
            raise ValueError("parts that do not fit each other")
