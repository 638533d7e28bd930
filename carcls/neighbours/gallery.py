"""The gallery of a trial: embeddings as they are compared, with their labels, and what they answer.

Letters: q queries, g gallery, d embedding as the extractor gives it, m as it is compared, c classes, k neighbours.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance, TrialConfig
from carcls.neighbours.exact import Neighbours, find_plainly, lengths_of, require_finite
from carcls.neighbours.votes import count_votes
from carcls.neighbours.whitening import Projection, fit_projection

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Gallery:
    """A gallery that is ready to be asked.

    Attributes:
        embeddings: projected, float32 [g, m].
        labels: int64 [g], positions in the classes.
        projection: from the extractor's embeddings [d] to those that are compared.
        config: a trial's; its pooling, k, distance, vote and temperature count.
        images: paths relative to the folder of the data set, [g]; none where nobody asks for them.
        fit_seconds: that fitting took; 0 for one that was loaded.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    projection: Projection
    config: TrialConfig
    images: tuple[str, ...] = ()
    fit_seconds: float = 0.0

    @classmethod
    def fitted(cls, config: TrialConfig, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Gallery:
        """Fit the trial's projection on the gallery's embeddings, float32 [g, d], and apply it.

        Raises:
            BrokenEmbedding: they are not finite.
        """
        require_finite(embeddings, "gallery")
        start, projection = time.perf_counter(), fit_projection(config, embeddings, labels)
        compared = projection.apply(embeddings)
        return cls(compared, labels, projection, config, fit_seconds=time.perf_counter() - start)

    def find(
        self, queries: NDArray[np.float32], k: int, distance: Distance, device: torch.device | None = None
    ) -> Neighbours:
        """Return the k nearest for each query, float32 [q, d] as the extractor gave it; otherwise as the search."""
        compared = self.projection.apply(queries)
        # Both are exact. PyTorch is faster with many queries, but not worth its import, and may not be installed.
        if "torch" not in sys.modules:
            return find_plainly(compared, self.embeddings, self._lengths, k, distance)
        from carcls.neighbours.search import find_neighbours

        return find_neighbours(compared, self.embeddings, k, distance, device=device)

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        """Of the embeddings, float64 [g]."""
        return lengths_of(self.embeddings)

    def answer(
        self, queries: NDArray[np.float32], classes: int, device: torch.device | None = None
    ) -> tuple[Neighbours, NDArray[np.int64], NDArray[np.float32]]:
        """Return the trial's k nearest for each query, what they say, int64 [q], and vote shares, float32 [q, c]."""
        config = self.config
        found = self.find(queries, config.k, config.distance, device)
        said, shares = count_votes(found, self.labels, classes, vote=config.vote, temperature=config.temperature)
        return found, said[-1], shares

    def require_whole(self, embedding: int, classes: int) -> None:
        """Raise ValueError unless all parts fit each other, embeddings [d] and so many classes."""
        mean, matrix, count = self.projection.mean, self.projection.matrix, len(self.images)
        width = embedding if matrix is None else matrix.shape[1]
        fits = self.embeddings.shape == (count, width) and self.labels.shape == (count,)
        fits &= mean is None or mean.shape == (embedding,)
        fits &= matrix is None or matrix.shape == (embedding, width)
        if not (fits and self.labels.min() >= 0 and self.labels.max() < classes and self.config.k <= count):
            raise ValueError("parts that do not fit each other")
