"""The neighbours of all queries as a stage: one search answers every k, distance and vote.

Letters: q queries, g gallery, d embedding, k neighbours.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance, TrialConfig
from carcls.evaluation.neighbours import Neighbours, find_neighbours, require_finite
from carcls.evaluation.retrieval import neighbours_needed
from carcls.evaluation.whitening import Projection, fit_projection
from carcls.stages import StageStore, write_json
from carcls.training.device import pick_device

KIND = "neighbours"
TIMES = "times.json"
MOST_K = 50
VERSION = 2


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

    def rank(self, queries: NDArray[np.float32], k: int, distance: Distance) -> Ranking:
        """Return the k nearest of the gallery for each query, float32 [q, d] as the extractor gave it."""
        start = time.perf_counter()
        found = find_neighbours(self.projection.apply(queries), self.embeddings, k, distance, device=pick_device())
        return Ranking(found, self.fit_seconds, time.perf_counter() - start)


def make_gallery(config: TrialConfig, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Gallery:
    """Fit the trial's projection on the gallery's embeddings, float32 [g, d], and apply it.

    Raises:
        BrokenEmbedding: they are not finite.
    """
    require_finite(embeddings, "gallery")
    start = time.perf_counter()
    projection = fit_projection(
        embeddings, labels, whitening=config.whitening, dim=config.whitening_dim, l2_normalize=config.l2_normalize
    )
    return Gallery(projection.apply(embeddings), labels, projection, time.perf_counter() - start)


@dataclass(frozen=True)
class Rankings:
    """The rankings of validation queries by both distances.

    Attributes:
        stages: the store.
        config: the trial; of it count pooling, normalisation and whitening.
        embeddings: folder of the embeddings stage.
    """

    stages: StageStore
    config: TrialConfig
    embeddings: Path

    def of(
        self, gallery: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32]
    ) -> dict[Distance, Ranking]:
        """Return the ranking by each distance, long enough for every k up to 50, the trial's own, and the measures.

        Args:
            gallery, queries: embeddings as the extractor gave them, float32 [g, d] and [q, d].
            labels: of the gallery, int64 [g].
        """
        most = min(len(gallery), max(MOST_K, self.config.k, neighbours_needed(labels, len(gallery))))
        folder = self.stages.get_or_make(
            KIND,
            self.key(most),
            lambda folder: self._make(folder, make_gallery(self.config, gallery, labels), queries, most),
        )
        return {distance: _read(folder, distance) for distance in get_args(Distance)}

    def key(self, most: int) -> dict[str, Any]:
        """What the rankings depend on."""
        settings = self.config.canonical()
        names = ("pooling", "l2_normalize", "whitening", "whitening_dim")
        return {
            "embeddings": self.embeddings.name,
            **{name: settings[name] for name in names},
            "most": most,
            "version": VERSION,
        }

    def _make(self, folder: Path, gallery: Gallery, queries: NDArray[np.float32], most: int) -> None:
        times = {}
        for distance in get_args(Distance):
            ranking = gallery.rank(queries, most, distance)
            np.save(folder / f"{distance}-indices.npy", ranking.neighbours.indices)
            np.save(folder / f"{distance}-distances.npy", ranking.neighbours.distances)
            times[distance] = [ranking.fit_seconds, ranking.search_seconds]
        write_json(folder / TIMES, times)


def _read(folder: Path, distance: Distance) -> Ranking:
    indices, distances = (np.load(folder / f"{distance}-{name}.npy") for name in ("indices", "distances"))
    fit, search = json.loads((folder / TIMES).read_text(encoding="utf-8"))[distance]
    return Ranking(Neighbours(indices, distances), fit, search)
