"""Retrieval: embeddings of an extractor, the nearest training images of each image, and their vote.

The gallery is the training images, the queries are the validation images. The extractor is trained as a classifier, in
the stage that transfer trials use too; its epochs report the classifier's own measures, by which trials are stopped
early, and the last one reports those of the vote. One search answers every k, distance and vote.

Letters: q queries, g gallery, c classes, k neighbours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance, TrialConfig, Vote
from carcls.data.dataset import Dataset
from carcls.evaluation.metrics import answer_metrics, neighbours_needed, retrieval_metrics
from carcls.evaluation.predictions import PREDICTIONS
from carcls.families.extractor import Extractor, read_embeddings
from carcls.families.votes import VOTES, votes_key
from carcls.models.classifier import Classifier
from carcls.neighbours.exact import Neighbours
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.votes import count_votes
from carcls.outcome import DerivedTrial, Measurement, Outcome, Report
from carcls.stages import StageStore, write_json
from carcls.training.images import pick_device
from carcls.training.measured import costs_of
from carcls.training.trained import TrainedClassifier, save_predictions

NEIGHBOURS, NEIGHBOURS_VERSION = "neighbours", 2
TIMES = "times.json"
MOST_K = 50
_DISTANCES: tuple[Distance, ...] = get_args(Distance)


@dataclass(frozen=True)
class RetrievalTrial:
    """A trial of retrieval, with the data and the store that it uses."""

    config: TrialConfig
    data: Dataset
    stages: StageStore

    @cached_property
    def _extractor(self) -> Extractor:
        return Extractor(TrainedClassifier(self.config, self.data, self.stages))

    def run(self, report: Report) -> Outcome:
        """Train the extractor, embed, find neighbours and let them vote; each only where it has not been done before.

        Raises:
            TrialFailure: training cannot go on, or the embeddings are not finite.
        """
        start = time.perf_counter()
        last: list[Measurement] = []

        def report_but_last(measurement: Measurement) -> None:
            if measurement.epoch < self.config.epochs:
                report(measurement)
            else:  # the vote is measured in its place
                last.append(measurement)

        embeddings = self._extractor.get_or_embed(report_but_last)
        reused = self.stages.has(VOTES, votes_key(self.config, embeddings))
        predictions = self.answer_validation(embeddings)
        known = last[-1].metrics if last else {}
        trained = {"train_loss": known["train_loss"], "val_classifier_accuracy": known["val_accuracy"]} if known else {}
        own = {name: getattr(self.config, name) for name in ("k", "distance", "vote")}
        answered = list(self._measured(embeddings, trained))
        metrics = next(each.metrics for each in answered if each.settings == own)
        if last:
            metrics = {**metrics, "seconds": known["seconds"]}
            report(replace(last[-1], metrics=metrics))
        return Outcome(
            metrics=metrics,
            epochs=self.config.epochs if last else 0,
            seconds=time.perf_counter() - start,
            reused=reused,
            model=embeddings.relative_to(self.stages.root).as_posix(),
            predictions=predictions,
            derived=tuple(each for each in answered if each.settings != own),
            precision=self._extractor.trained.precision,
        )

    def train(self) -> Path:
        """Train the extractor on data that has nothing to validate on, and embed it: its images are the gallery."""
        return self._extractor.get_or_embed(lambda _: None)

    def answer_validation(self, embeddings: Path) -> str:
        """Return the file with the trial's answers to the validation images, relative to the store.

        Args:
            embeddings: folder of their stage; another machine may have made them.

        Raises:
            TrialFailure: the embeddings are gone.
        """

        def answer(folder: Path) -> None:
            (found, *_), k = self._rankings(embeddings)[self.config.distance], self.config.k
            said, shares = self._votes(Neighbours(found.indices[:, :k], found.distances[:, :k]), self.config.vote)
            rows = self.data.splits.validation
            save_predictions(folder / PREDICTIONS, rows, self.data.labels[rows], said[-1], shares)

        folder = self.stages.get_or_make(VOTES, votes_key(self.config, embeddings), answer)
        return (folder.relative_to(self.stages.root) / PREDICTIONS).as_posix()

    def neighbours(self, embeddings: Path) -> Neighbours:
        """Return at least k neighbours of each validation image, by the trial's own distance; as ``answer_validation``.

        They are positions in the rows of the training split.
        """
        return self._rankings(embeddings)[self.config.distance][0]

    def _votes(self, found: Neighbours, vote: Vote) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        labels, classes = self.data.labels[self.data.splits.train], len(self.data.classes)
        return count_votes(found, labels, classes, vote=vote, temperature=self.config.temperature)

    def _rankings(self, embeddings: Path) -> dict[Distance, tuple[Neighbours, float, float]]:
        """Return by distance enough neighbours for every k up to 50, the trial's own, and the measures.

        With them the seconds of fitting the gallery, and of the search. Found once for all trials with these
        embeddings, this normalisation and this whitening.
        """
        gallery = self.data.labels[self.data.splits.train]
        most = min(len(gallery), max(MOST_K, self.config.k, neighbours_needed(gallery)))
        settings, names = self.config.canonical(), ("pooling", "l2_normalize", "whitening", "whitening_dim")
        own = {name: settings[name] for name in names}
        key = {"embeddings": embeddings.name, **own, "most": most, "version": NEIGHBOURS_VERSION}
        folder = self.stages.get_or_make(NEIGHBOURS, key, lambda folder: self._rank(folder, embeddings, most))
        times = json.loads((folder / TIMES).read_text(encoding="utf-8"))
        return {distance: (_load(folder, distance), *times[distance]) for distance in _DISTANCES}

    def _rank(self, folder: Path, embedded: Path, most: int) -> None:
        embeddings, times = read_embeddings(embedded, self.config.pooling), {}
        gallery = self._gallery(embeddings)
        for distance in _DISTANCES:
            start = time.perf_counter()
            found = gallery.find(embeddings[len(gallery.labels) :], most, distance, pick_device())
            times[distance] = [gallery.fit_seconds, time.perf_counter() - start]
            np.save(folder / f"{distance}-indices.npy", found.indices)
            np.save(folder / f"{distance}-distances.npy", found.distances)
        write_json(folder / TIMES, times)

    def _measured(self, embeddings: Path, trained: Mapping[str, float]) -> Iterator[DerivedTrial]:
        """Yield every k up to 50 or of the trial, distance and vote, at the trial's temperature, with all measures.

        What an answer costs is to embed an image, search and vote; its times are of searching and counting as many
        neighbours as the measures and all k together need.

        Args:
            embeddings: folder of their stage.
            trained: measures of the training that all of them share.
        """
        splits, classes = self.data.splits, len(self.data.classes)
        labels, gallery = self.data.labels[splits.validation], self.data.labels[splits.train]
        costs = costs_of(self.config, 0, self.stages)
        for distance, (found, fit_seconds, search_seconds) in self._rankings(embeddings).items():
            ranked = retrieval_metrics(found.indices, labels, gallery, prefix="val_")
            for vote in get_args(Vote):
                start = time.perf_counter()
                said, _ = self._votes(found, vote)
                times = timing(fit_seconds, search_seconds + time.perf_counter() - start, len(labels))
                cost = {**costs, "predict_ms": costs["predict_ms"] + times["ms_per_query"]}
                for k in sorted({*range(1, min(MOST_K, len(gallery)) + 1), self.config.k}):
                    measures = answer_metrics(said[k - 1], labels, classes, prefix="val_")
                    settings = {"k": k, "distance": distance, "vote": vote}
                    yield DerivedTrial(settings, {**measures, **ranked, **times, **cost, **trained})

    def _gallery(self, embeddings: NDArray[np.float32]) -> Gallery:
        """Return the training images, whose embeddings come first, as they are compared."""
        rows = self.data.splits.train
        return Gallery.fitted(self.config, embeddings[: len(rows)], self.data.labels[rows])

    def exported(self, model: str) -> tuple[Classifier, Gallery | None]:
        """Return the extractor and its gallery."""
        gallery = self._gallery(read_embeddings(self.stages.root / model, self.config.pooling))
        images = tuple(self.data.manifest.images[row].path for row in self.data.splits.train.tolist())
        return self._extractor.load(model), replace(gallery, images=images)


def _load(folder: Path, distance: Distance) -> Neighbours:
    return Neighbours(*(np.load(folder / f"{distance}-{name}.npy") for name in ("indices", "distances")))


def timing(fit: float, predict: float, queries: int, prefix: str = "") -> dict[str, float]:
    """Return the times as the documentation reports them, embedding not included, and milliseconds a query."""
    names = {"fit_seconds": fit, "predict_seconds": predict, "ms_per_query": predict / max(1, queries) * 1000}
    return {prefix + name: value for name, value in names.items()}
