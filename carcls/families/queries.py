"""The validation images as queries: their neighbours in the gallery, and each k, distance and vote they answer.

Letters: q queries, g gallery, c classes, k neighbours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import NEIGHBOUR_SETTINGS, Distance, TrialConfig, Vote
from carcls.data.dataset import Dataset
from carcls.evaluation.classification import averaged_measures
from carcls.evaluation.neighbours import Neighbours
from carcls.evaluation.retrieval import neighbours_needed, relevant_of, retrieval_metrics
from carcls.evaluation.votes import answers, votes_by_k
from carcls.outcome import Sibling
from carcls.stages import StageStore, write_json
from carcls.training.embeddings import Gallery, Ranking, read_embeddings
from carcls.training.measured import Costs, costs_of
from carcls.training.trained import PREDICTIONS, save_predictions

VOTES, VOTES_VERSION = "votes", 1
NEIGHBOURS, NEIGHBOURS_VERSION = "neighbours", 2
TIMES = "times.json"
MOST_K = 50
_DISTANCES: tuple[Distance, ...] = get_args(Distance)
_VOTES: tuple[Vote, ...] = get_args(Vote)


@dataclass(frozen=True)
class Queries:
    """The validation images, ranked against the gallery by both distances.

    Attributes:
        config: the trial.
        data: images, labels and splits.
        stages: the store.
        embeddings: folder of the embeddings stage.
    """

    config: TrialConfig
    data: Dataset
    stages: StageStore
    embeddings: Path

    @property
    def votes_key(self) -> dict[str, Any]:
        """What the trial's answers depend on."""
        return self._key(NEIGHBOUR_SETTINGS, version=VOTES_VERSION)

    def _key(self, names: tuple[str, ...], **others: Any) -> dict[str, Any]:
        settings = self.config.canonical()
        return {"embeddings": self.embeddings.name, **{name: settings[name] for name in names}, **others}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Of the queries, int64 [q]."""
        return self.data.labels[self.data.splits.validation]

    @cached_property
    def gallery_labels(self) -> NDArray[np.int64]:
        """Of the gallery, int64 [g]."""
        return self.data.labels[self.data.splits.train]

    @cached_property
    def rankings(self) -> dict[Distance, Ranking]:
        """By distance, long enough for every k up to 50, the trial's own, and the measures.

        Found once for all trials with these embeddings, this normalisation and this whitening.
        """
        count = len(self.gallery_labels)
        most = min(count, max(MOST_K, self.config.k, neighbours_needed(self.gallery_labels, count)))
        names = ("pooling", "l2_normalize", "whitening", "whitening_dim")
        key = self._key(names, most=most, version=NEIGHBOURS_VERSION)
        folder = self.stages.get_or_make(NEIGHBOURS, key, lambda folder: self._rank(folder, most))
        times = json.loads((folder / TIMES).read_text(encoding="utf-8"))
        return {distance: Ranking(_load(folder, distance), *times[distance]) for distance in _DISTANCES}

    def _rank(self, folder: Path, most: int) -> None:
        embeddings, count = read_embeddings(self.embeddings, self.config.pooling), len(self.gallery_labels)
        gallery, times = Gallery.fitted(self.config, embeddings[:count], self.gallery_labels), {}
        for distance in _DISTANCES:
            ranking = gallery.rank(embeddings[count:], most, distance)
            np.save(folder / f"{distance}-indices.npy", ranking.neighbours.indices)
            np.save(folder / f"{distance}-distances.npy", ranking.neighbours.distances)
            times[distance] = [ranking.fit_seconds, ranking.search_seconds]
        write_json(folder / TIMES, times)

    @cached_property
    def costs(self) -> Costs:
        """What embedding an image costs."""
        return costs_of(self.config, 0, self.stages)

    @cached_property
    def votes(self) -> dict[tuple[Distance, Vote], tuple[NDArray[np.int64], float]]:
        """What the first 1, 2, … K neighbours say, int64 [K, q], and the seconds of counting, by distance and vote."""
        return {(distance, vote): self._vote(distance, vote) for distance in _DISTANCES for vote in _VOTES}

    def _vote(self, distance: Distance, vote: Vote) -> tuple[NDArray[np.int64], float]:
        start, found, classes = time.perf_counter(), self.rankings[distance].neighbours, len(self.data.classes)
        said = votes_by_k(found, self.gallery_labels, classes, vote=vote, temperature=self.config.temperature)
        return said, time.perf_counter() - start

    def write_predictions(self, folder: Path) -> None:
        """Write the trial's per-image answers."""
        rows = self.data.splits.validation
        found = self.rankings[self.config.distance].neighbours.first(self.config.k)
        save_predictions(folder / PREDICTIONS, rows, self.labels, *answers_of(self.config, self.data, found))

    def metrics(self, distance: Distance, vote: Vote, k: int) -> dict[str, float]:
        """Return all measures of one combination, and what an answer costs: to embed an image, search and vote.

        Its times are of searching and counting as many neighbours as the measures and all k together need.
        """
        (predicted, seconds), ranking = self.votes[distance, vote], self.rankings[distance]
        times = timing(ranking.fit_seconds, ranking.search_seconds + seconds, len(self.labels))
        milliseconds = self.costs.milliseconds + times["ms_per_query"]
        costs = {"predict_ms": milliseconds, "parameters": float(self.costs.parameters)}
        measures = vote_metrics(predicted[k - 1], self.labels, len(self.data.classes), "val_")
        return {**measures, **self._ranked[distance], **times, **costs}

    @cached_property
    def _ranked(self) -> dict[Distance, dict[str, float]]:
        relevant, of_gallery = relevant_of(self.labels, self.gallery_labels), self.gallery_labels
        named = {distance: of_gallery[ranking.neighbours.indices] for distance, ranking in self.rankings.items()}
        return {each: retrieval_metrics(named[each], self.labels, relevant, prefix="val_") for each in named}

    def siblings(self, trained: Mapping[str, float]) -> Iterator[Sibling]:
        """Yield every other k up to 50 or of the trial, distance and vote, at the trial's temperature.

        Args:
            trained: measures of the training that all of them share.
        """
        own = (self.config.distance, self.config.vote, self.config.k)
        most = min(MOST_K, len(self.gallery_labels))
        for distance, vote in self.votes:
            for k in sorted({*range(1, most + 1), self.config.k}):
                if (distance, vote, k) != own:
                    settings = {"k": k, "distance": distance, "vote": vote}
                    yield Sibling(settings, {**self.metrics(distance, vote, k), **trained})


def _load(folder: Path, distance: Distance) -> Neighbours:
    indices, distances = (np.load(folder / f"{distance}-{name}.npy") for name in ("indices", "distances"))
    return Neighbours(indices, distances)


def answers_of(config: TrialConfig, data: Dataset, found: Neighbours) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what the neighbours in the training images say, int64 [q], and shares of the votes, float32 [q, c]."""
    labels, classes = data.labels[data.splits.train], len(data.classes)
    return answers(found, labels, classes, vote=config.vote, temperature=config.temperature)


def vote_metrics(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, prefix: str
) -> dict[str, float]:
    """Return accuracy, and precision, recall and f1, weighted by support and macro, of predictions int64 [q]."""
    measures = {"accuracy": float((predicted == labels).mean()), **averaged_measures(predicted, labels, classes)}
    return {prefix + name: value for name, value in measures.items()}


def timing(fit: float, predict: float, queries: int, prefix: str = "") -> dict[str, float]:
    """Return the times as the documentation reports them, embedding not included, and milliseconds a query."""
    names = {"fit_seconds": fit, "predict_seconds": predict, "ms_per_query": predict / max(1, queries) * 1000}
    return {prefix + name: value for name, value in names.items()}
