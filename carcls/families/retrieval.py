"""Retrieval: embeddings of an extractor, the nearest training images of each image, and their vote.

The gallery is the training images. The extractor is trained as a classifier, in the stage that transfer trials use
too; its epochs report the classifier's own measures, by which trials are stopped early, and the last one reports those
of the vote.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from carcls.config import Distance, TrialConfig, Vote
from carcls.data.dataset import Dataset
from carcls.errors import InputError
from carcls.evaluation.classification import averaged_measures
from carcls.evaluation.neighbours import Neighbours
from carcls.evaluation.retrieval import neighbours_needed, relevant_of, retrieval_metrics
from carcls.evaluation.significance import wilson_interval
from carcls.evaluation.votes import vote_shares, votes_by_k
from carcls.export import write_export
from carcls.export_gallery import GalleryIndex
from carcls.families import TestScore
from carcls.models.classifier import build_classifier
from carcls.models.pooling import require_pooling
from carcls.models.weights import resolve_weights
from carcls.outcome import Measurement, Outcome, Report, Sibling
from carcls.stages import StageStore
from carcls.training.embeddings import Extractor, read_embeddings
from carcls.training.ranking import MOST_K, Gallery, Ranking, Rankings, make_gallery
from carcls.training.trained import PREDICTIONS, save_predictions

KIND = "votes"
VERSION = 1


def preflight(configs: Iterable[TrialConfig]) -> list[str]:
    """Build every extractor once with its weights; return what the user should know.

    Raises:
        InputError: a backbone cannot pool as the trial asks.
    """
    notes = []
    for config in configs:
        require_pooling(config, build_classifier(config, classes=1).backbone)
        if resolve_weights(config.backbone, config.weights).kind == "random":
            notes.append(f"{config.backbone} starts from random weights: nothing is transferred.")
    return notes


def check_data(configs: Iterable[TrialConfig], data: Dataset) -> None:
    """Check that the gallery holds as many images as are to vote.

    Raises:
        InputError: it does not.
    """
    held = len(data.splits.train)
    for config in configs:
        if config.k > held:
            raise InputError(
                f"k must be at most {held}, the training images, which are the gallery, got {config.k!r}. Lower k."
            )


def run(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Train the extractor, embed, find neighbours and let them vote; each only where it has not been done before.

    Raises:
        TrialFailure: training cannot go on, or the embeddings are not finite.
    """
    start = time.perf_counter()
    extractor = Extractor(config, data, stages)
    last: list[Measurement] = []
    embeddings = extractor.get_or_embed(_all_but_last(config.epochs, report, last))
    queries = Queries(config, data, stages, embeddings)
    reused = stages.has(KIND, queries.votes_key)
    folder = stages.get_or_make(KIND, queries.votes_key, queries.write_predictions)
    metrics = queries.metrics(config.distance, config.vote, config.k)
    epochs = len(last) and last[0].epoch
    if last:
        before = last[0].metrics
        metrics |= {"val_classifier_accuracy": before["val_accuracy"]}
        metrics |= {name: before[name] for name in ("train_loss", "seconds")}
        report(Measurement(epochs, metrics))
    return Outcome(
        metrics=metrics,
        epochs=epochs,
        seconds=time.perf_counter() - start,
        reused=reused,
        model=embeddings.relative_to(stages.root).as_posix(),
        predictions=(folder.relative_to(stages.root) / PREDICTIONS).as_posix(),
        siblings=tuple(queries.siblings()),
    )


def _all_but_last(epochs: int, report: Report, last: list[Measurement]) -> Report:
    """Return what passes measurements on, and keeps the last epoch's: the vote is measured in its place."""

    def early(measurement: Measurement) -> None:
        if measurement.epoch < epochs:
            report(measurement)
        else:
            last[:] = [measurement]

    return early


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
        names = ("pooling", "l2_normalize", "whitening", "whitening_dim", "k", "distance", "vote", "temperature")
        return {"embeddings": self.embeddings.name, **{name: settings[name] for name in names}, "version": VERSION}

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

    def answers(self, distance: Distance, vote: Vote) -> NDArray[np.int64]:
        """Return the predicted labels for every k, int64 [K, q]."""
        return votes_by_k(
            self.rankings[distance].neighbours,
            self.gallery_labels,
            len(self.data.classes),
            vote=vote,
            temperature=self.config.temperature,
        )

    def write_predictions(self, folder: Path) -> None:
        """Write the trial's per-image answers."""
        rows = self.data.splits.validation
        answer = Answer.of(self.rankings[self.config.distance].neighbours, self.gallery_labels, self.config, self.data)
        save_predictions(folder / PREDICTIONS, rows, self.labels, answer.predicted, answer.shares)

    def metrics(self, distance: Distance, vote: Vote, k: int) -> dict[str, float]:
        """Return all measures of one combination; times are of a search for as many neighbours as any k needs."""
        start = time.perf_counter()
        predicted = self.answers(distance, vote)[k - 1]
        voting = time.perf_counter() - start
        ranking = self.rankings[distance]
        times = timing(ranking.fit_seconds, ranking.search_seconds + voting, len(predicted))
        return {**self._of_vote(predicted), **self._of_ranking(distance), **times}

    def siblings(self) -> Iterator[Sibling]:
        """Yield every other k up to 50, distance and vote, at the trial's temperature."""
        own = (self.config.distance, self.config.vote, self.config.k)
        for distance in get_args(Distance):
            ranked = self._of_ranking(distance)
            ranking = self.rankings[distance]
            times = timing(ranking.fit_seconds, ranking.search_seconds, len(self.labels))
            for vote in get_args(Vote):
                for k, predicted in enumerate(self.answers(distance, vote)[:MOST_K], start=1):
                    if (distance, vote, k) != own:
                        settings = {"k": k, "distance": distance, "vote": vote}
                        yield Sibling(settings, {**self._of_vote(predicted), **ranked, **times})

    def _of_vote(self, predicted: NDArray[np.int64]) -> dict[str, float]:
        return vote_metrics(predicted, self.labels, len(self.data.classes), "val_")

    def _of_ranking(self, distance: Distance) -> dict[str, float]:
        found = self.gallery_labels[self.rankings[distance].neighbours.indices]
        relevant = relevant_of(self.labels, self.gallery_labels)
        return retrieval_metrics(found, self.labels, relevant, prefix="val_")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the neighbours say: predicted int64 [q], and shares of the votes float32 [q, c]."""

    predicted: NDArray[np.int64]
    shares: NDArray[np.float32]

    @classmethod
    def of(cls, found: Neighbours, gallery_labels: NDArray[np.int64], config: TrialConfig, data: Dataset) -> Answer:
        """Let the first k neighbours vote as the trial says."""
        classes = len(data.classes)
        first = Neighbours(found.indices[:, : config.k], found.distances[:, : config.k])
        votes = votes_by_k(first, gallery_labels, classes, vote=config.vote, temperature=config.temperature)
        shares = vote_shares(
            first, gallery_labels, classes, k=config.k, vote=config.vote, temperature=config.temperature
        )
        return cls(votes[config.k - 1], shares)


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


def evaluate_on_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, predictions: Path | None
) -> TestScore:
    """Let the training images vote on every test image; the search that is timed is for the trial's k neighbours."""
    rows = data.splits.test
    labels, gallery_labels = data.labels[rows], data.labels[data.splits.train]
    gallery = _gallery(config, data, stages, model)
    queries = read_embeddings(Extractor(config, data, stages).of_test(model), config.pooling)
    start = time.perf_counter()
    ranking = gallery.rank(queries, config.k, config.distance)
    answer = Answer.of(ranking.neighbours, gallery_labels, config, data)
    predict = time.perf_counter() - start
    longer = gallery.rank(queries, neighbours_needed(gallery_labels, len(gallery_labels)), config.distance)
    found = gallery_labels[longer.neighbours.indices]
    metrics = {
        **vote_metrics(answer.predicted, labels, len(data.classes), "test_"),
        **retrieval_metrics(found, labels, relevant_of(labels, gallery_labels), prefix="test_"),
        **timing(gallery.fit_seconds, predict, len(rows), "test_"),
    }
    if predictions is not None:
        save_predictions(predictions, rows, labels, answer.predicted, answer.shares)
    hits = int((answer.predicted == labels).sum())
    return TestScore(metrics, wilson_interval(hits, len(rows)), len(rows))


def _gallery(config: TrialConfig, data: Dataset, stages: StageStore, model: str) -> Gallery:
    rows = data.splits.train
    embeddings = read_embeddings(stages.root / model, config.pooling)[: len(rows)]
    return make_gallery(config, embeddings, data.labels[rows])


def export(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, folder: Path, details: Mapping[str, Any]
) -> None:
    """Write extractor and gallery as a servable folder."""
    gallery = _gallery(config, data, stages, model)
    index = GalleryIndex(
        embeddings=gallery.embeddings,
        labels=gallery.labels,
        images=tuple(data.manifest.images[row].path for row in data.splits.train.tolist()),
        projection=gallery.projection,
        pooling=config.pooling,
        k=config.k,
        distance=config.distance,
        vote=config.vote,
        temperature=config.temperature,
    )
    extractor = Extractor(config, data, stages).load(model)
    write_export(
        folder,
        extractor,
        classes=data.classes,
        image_size=config.image_size,
        backbone=config.backbone,
        margin=data.margin,
        details=details,
        architecture=config.architecture(),
        index=index,
    )
