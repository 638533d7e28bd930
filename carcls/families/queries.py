"""The validation images as queries: their neighbours in the gallery, and each k, distance and vote they answer."""

from __future__ import annotations

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
from carcls.evaluation.retrieval import relevant_of, retrieval_metrics
from carcls.evaluation.votes import votes_by_k
from carcls.families.voting import Answer, timing, vote_metrics
from carcls.outcome import Sibling
from carcls.stages import StageStore
from carcls.training.embeddings import read_embeddings
from carcls.training.ranking import MOST_K, Ranking, Rankings
from carcls.training.trained import PREDICTIONS, save_predictions

KIND = "votes"
VERSION = 1
_VOTES: tuple[Vote, ...] = get_args(Vote)


@dataclass(frozen=True, slots=True)
class Votes:
    """What the first 1, 2, … K neighbours say, int64 [K, q], and how long counting took."""

    predicted: NDArray[np.int64]
    seconds: float


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
        """What the answers depend on."""
        settings = self.config.canonical()
        asked = {name: settings[name] for name in NEIGHBOUR_SETTINGS}
        return {"embeddings": self.embeddings.name, **asked, "version": VERSION}

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the queries, int64 [q]."""
        return self.data.labels[self.data.splits.validation]

    @property
    def gallery_labels(self) -> NDArray[np.int64]:
        """Of the gallery, int64 [g]."""
        return self.data.labels[self.data.splits.train]

    @cached_property
    def rankings(self) -> dict[Distance, Ranking]:
        """By distance; found once for all trials with these embeddings, this normalisation and this whitening."""
        embeddings, count = read_embeddings(self.embeddings, self.config.pooling), len(self.gallery_labels)
        rankings = Rankings(self.stages, self.config, self.embeddings)
        return rankings.of(embeddings[:count], self.gallery_labels, embeddings[count:])

    @cached_property
    def votes(self) -> dict[tuple[Distance, Vote], Votes]:
        """The answers of every k, by distance and vote."""
        return {(distance, vote): self._vote(distance, vote) for distance in get_args(Distance) for vote in _VOTES}

    def _vote(self, distance: Distance, vote: Vote) -> Votes:
        start = time.perf_counter()
        predicted = votes_by_k(
            self.rankings[distance].neighbours,
            self.gallery_labels,
            len(self.data.classes),
            vote=vote,
            temperature=self.config.temperature,
        )
        return Votes(predicted, time.perf_counter() - start)

    def write_predictions(self, folder: Path) -> None:
        """Write the trial's per-image answers."""
        rows = self.data.splits.validation
        found = self.rankings[self.config.distance].neighbours
        answer = Answer.of(found, self.gallery_labels, self.config, len(self.data.classes))
        save_predictions(folder / PREDICTIONS, rows, self.labels, answer.predicted, answer.shares)

    def metrics(self, distance: Distance, vote: Vote, k: int) -> dict[str, float]:
        """Return all measures of one combination.

        Its times are of searching and counting as many neighbours as the measures and all k together need.
        """
        votes, ranking = self.votes[distance, vote], self.rankings[distance]
        return {
            **vote_metrics(votes.predicted[k - 1], self.labels, len(self.data.classes), "val_"),
            **self._ranked[distance],
            **timing(ranking.fit_seconds, ranking.search_seconds + votes.seconds, len(self.labels)),
        }

    @cached_property
    def _ranked(self) -> dict[Distance, dict[str, float]]:
        relevant = relevant_of(self.labels, self.gallery_labels)
        return {
            distance: retrieval_metrics(
                self.gallery_labels[ranking.neighbours.indices], self.labels, relevant, prefix="val_"
            )
            for distance, ranking in self.rankings.items()
        }

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
