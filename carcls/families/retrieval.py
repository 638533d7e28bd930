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
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import NEIGHBOUR_SETTINGS, Distance, TrialConfig, Vote
from carcls.data.dataset import Dataset
from carcls.evaluation.metrics import answer_metrics, neighbours_needed, retrieval_metrics
from carcls.models.classifier import Classifier
from carcls.neighbours.gallery import Gallery
from carcls.neighbours.search import Neighbours
from carcls.neighbours.votes import count_votes
from carcls.outcome import Measurement, Outcome, Report, Sibling
from carcls.stages import StageStore, write_json
from carcls.training.embeddings import Extractor, read_embeddings
from carcls.training.images import pick_device
from carcls.training.measured import costs_of
from carcls.training.trained import PREDICTIONS, save_predictions

VOTES, VOTES_VERSION = "votes", 1
NEIGHBOURS, NEIGHBOURS_VERSION = "neighbours", 2
TIMES = "times.json"
MOST_K = 50
HAS_HEAD = False
_DISTANCES: tuple[Distance, ...] = get_args(Distance)


def run(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Train the extractor, embed, find neighbours and let them vote; each only where it has not been done before.

    Raises:
        TrialFailure: training cannot go on, or the embeddings are not finite.
    """
    start = time.perf_counter()
    last: list[Measurement] = []

    def report_but_last(measurement: Measurement) -> None:
        if measurement.epoch < config.epochs:
            report(measurement)
        else:  # the vote is measured in its place
            last.append(measurement)

    extractor = Extractor(config, data, stages)
    queries = Queries(config, data, stages, extractor.get_or_embed(report_but_last))
    reused = stages.has(VOTES, queries.votes_key)
    predictions = queries.get_or_answer()
    known = last[-1].metrics if last else {}
    trained = {"train_loss": known["train_loss"], "val_classifier_accuracy": known["val_accuracy"]} if known else {}
    own = {"k": config.k, "distance": config.distance, "vote": config.vote}
    answered = list(queries.measured(trained))
    metrics = next(each.metrics for each in answered if each.settings == own)
    if last:
        metrics = {**metrics, "seconds": known["seconds"]}
        report(replace(last[-1], metrics=metrics))
    return Outcome(
        metrics=metrics,
        epochs=config.epochs if last else 0,
        seconds=time.perf_counter() - start,
        reused=reused,
        model=queries.embeddings.relative_to(stages.root).as_posix(),
        predictions=predictions,
        siblings=tuple(each for each in answered if each.settings != own),
        precision=extractor.trained.precision,
    )


def answer_sibling(config: TrialConfig, data: Dataset, stages: StageStore, model: str) -> str:
    """Write what a sibling answers to the validation images; return the file relative to the store.

    Args:
        config: of the sibling.
        data, stages: as in ``run``.
        model: the embeddings of the trial that answered it on its way; another machine may have made them.

    Raises:
        TrialFailure: the embeddings are gone.
    """
    return Queries(config, data, stages, stages.root / model).get_or_answer()


def train(config: TrialConfig, data: Dataset, stages: StageStore) -> Path:
    """Train the extractor on ``data``, which has nothing to validate on, and embed it: its images are the gallery."""
    return Extractor(config, data, stages).get_or_embed(lambda _: None)


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
    def _labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the queries, int64 [q], and of the gallery, int64 [g]."""
        return self.data.labels[self.data.splits.validation], self.data.labels[self.data.splits.train]

    @cached_property
    def _rankings(self) -> dict[Distance, tuple[Neighbours, float, float]]:
        """By distance: neighbours, enough for every k up to 50, the trial's own, and the measures; seconds of fitting
        the gallery, and of the search.

        Found once for all trials with these embeddings, this normalisation and this whitening.
        """
        _, gallery = self._labels
        most = min(len(gallery), max(MOST_K, self.config.k, neighbours_needed(gallery)))
        names = ("pooling", "l2_normalize", "whitening", "whitening_dim")
        key = self._key(names, most=most, version=NEIGHBOURS_VERSION)
        folder = self.stages.get_or_make(NEIGHBOURS, key, lambda folder: self._rank(folder, most))
        times = json.loads((folder / TIMES).read_text(encoding="utf-8"))
        return {distance: (_load(folder, distance), *times[distance]) for distance in _DISTANCES}

    def _rank(self, folder: Path, most: int) -> None:
        embeddings, times = read_embeddings(self.embeddings, self.config.pooling), {}
        gallery, fit_seconds = _gallery(self.config, self.data, embeddings)
        for distance in _DISTANCES:
            start = time.perf_counter()
            found = gallery.find(embeddings[len(gallery.labels) :], most, distance, pick_device())
            times[distance] = [fit_seconds, time.perf_counter() - start]
            np.save(folder / f"{distance}-indices.npy", found.indices)
            np.save(folder / f"{distance}-distances.npy", found.distances)
        write_json(folder / TIMES, times)

    def get_or_answer(self) -> str:
        """Return the file with the trial's answers to each image, relative to the store."""
        folder = self.stages.get_or_make(VOTES, self.votes_key, self._write_predictions)
        return (folder.relative_to(self.stages.root) / PREDICTIONS).as_posix()

    def _write_predictions(self, folder: Path) -> None:
        (found, *_), k = self._rankings[self.config.distance], self.config.k
        said, shares = self._votes(Neighbours(found.indices[:, :k], found.distances[:, :k]), self.config.vote)
        save_predictions(folder / PREDICTIONS, self.data.splits.validation, self._labels[0], said[-1], shares)

    def _votes(self, found: Neighbours, vote: Vote) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        labels, classes = self._labels[1], len(self.data.classes)
        return count_votes(found, labels, classes, vote=vote, temperature=self.config.temperature)

    def measured(self, trained: Mapping[str, float]) -> Iterator[Sibling]:
        """Yield every k up to 50 or of the trial, distance and vote, at the trial's temperature, with all measures.

        What an answer costs is to embed an image, search and vote; its times are of searching and counting as many
        neighbours as the measures and all k together need.

        Args:
            trained: measures of the training that all of them share.
        """
        (labels, gallery), classes = self._labels, len(self.data.classes)
        costs = costs_of(self.config, 0, self.stages)
        for distance, (found, fit_seconds, search_seconds) in self._rankings.items():
            ranked = retrieval_metrics(found.indices, labels, gallery, prefix="val_")
            for vote in get_args(Vote):
                start = time.perf_counter()
                said, _ = self._votes(found, vote)
                times = _timing(fit_seconds, search_seconds + time.perf_counter() - start, len(labels))
                cost = {**costs, "predict_ms": costs["predict_ms"] + times["ms_per_query"]}
                for k in sorted({*range(1, min(MOST_K, len(gallery)) + 1), self.config.k}):
                    measures = answer_metrics(said[k - 1], labels, classes, prefix="val_")
                    settings = {"k": k, "distance": distance, "vote": vote}
                    yield Sibling(settings, {**measures, **ranked, **times, **cost, **trained})


def _load(folder: Path, distance: Distance) -> Neighbours:
    return Neighbours(*(np.load(folder / f"{distance}-{name}.npy") for name in ("indices", "distances")))


def _timing(fit: float, predict: float, queries: int, prefix: str = "") -> dict[str, float]:
    """Return the times as the documentation reports them, embedding not included, and milliseconds a query."""
    names = {"fit_seconds": fit, "predict_seconds": predict, "ms_per_query": predict / max(1, queries) * 1000}
    return {prefix + name: value for name, value in names.items()}


def answer_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, float]]:
    """Let the training images vote on every test image; the search that is timed is for the trial's k neighbours."""
    labels, classes = data.labels[data.splits.test], len(data.classes)
    gallery, fit_seconds = _gallery(config, data, read_embeddings(stages.root / model, config.pooling))
    queries = read_embeddings(Extractor(config, data, stages).of_test(model), config.pooling)
    start = time.perf_counter()
    _, predicted, shares = gallery.answer(queries, classes, pick_device())
    seconds = time.perf_counter() - start
    longer = gallery.find(queries, neighbours_needed(gallery.labels), config.distance, pick_device())
    metrics = {
        **answer_metrics(predicted, labels, classes, prefix="test_"),
        **retrieval_metrics(longer.indices, labels, gallery.labels, prefix="test_"),
        **_timing(fit_seconds, seconds, len(labels), "test_"),
    }
    return predicted, shares, metrics


def _gallery(config: TrialConfig, data: Dataset, embeddings: NDArray[np.float32]) -> tuple[Gallery, float]:
    """Return the training images, whose embeddings [n, d] come first, as they are compared; and the seconds it took."""
    start, rows = time.perf_counter(), data.splits.train
    gallery = Gallery.fitted(config, embeddings[: len(rows)], data.labels[rows])
    return gallery, time.perf_counter() - start


def exported(config: TrialConfig, data: Dataset, stages: StageStore, model: str) -> tuple[Classifier, Gallery | None]:
    """Return the extractor and its gallery."""
    gallery, _ = _gallery(config, data, read_embeddings(stages.root / model, config.pooling))
    images = tuple(data.manifest.images[row].path for row in data.splits.train.tolist())
    return Extractor(config, data, stages).load(model), replace(gallery, images=images)
