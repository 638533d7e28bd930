"""The gallery as a trial compares it, and the neighbours of queries in it.

Letters: q queries, g gallery, d embedding, k neighbours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance, TrialConfig
from carcls.neighbours.search import Neighbours, find_neighbours, require_finite
from carcls.neighbours.whitening import Projection, fit_projection
from carcls.training.device import pick_device


@dataclass(frozen=True, slots=True)
class Ranking:
    """The gallery as each query sees it.

    Attributes:
        neighbours: of all queries.
        fit_seconds: for fitting the projection and bringing the gallery into it.
        search_seconds: for projecting the queries and finding their neighbours.
    """

    neighbours: Neighbours
    fit_seconds: float
    search_seconds: float


@dataclass(frozen=True)
class Gallery:
    """A gallery that is ready to be asked.

    Attributes:
        embeddings: projected, float32 [g, d].
        labels: int64 [g].
        projection: to be applied to queries.
        fit_seconds: how long it took to get here.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    projection: Projection
    fit_seconds: float

    @classmethod
    def fitted(cls, config: TrialConfig, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Gallery:
        """Fit the trial's projection on the gallery's embeddings, float32 [g, d], and apply it.

        Raises:
            BrokenEmbedding: they are not finite.
        """
        require_finite(embeddings, "gallery")
        start = time.perf_counter()
        projection = fit_projection(
            embeddings, labels, whitening=config.whitening, dim=config.whitening_dim, l2_normalize=config.l2_normalize
        )
        return cls(projection.apply(embeddings), labels, projection, time.perf_counter() - start)

    def rank(self, queries: NDArray[np.float32], k: int, distance: Distance) -> Ranking:
        """Return the k nearest of the gallery for each query, float32 [q, d] as the extractor gave it."""
        start = time.perf_counter()
        found = find_neighbours(self.projection.apply(queries), self.embeddings, k, distance, device=pick_device())
        return Ranking(found, self.fit_seconds, time.perf_counter() - start)
