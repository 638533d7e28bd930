"""Retrieval: embeddings of an extractor, the nearest training images of each image, and their vote.

The gallery is the training images. The extractor is trained as a classifier, in the stage that transfer trials use
too; its epochs report the classifier's own measures, by which trials are stopped early, and the last one reports those
of the vote.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.evaluation.retrieval import neighbours_needed, relevant_of, retrieval_metrics
from carcls.evaluation.significance import wilson_interval
from carcls.export import write_export
from carcls.export_gallery import GalleryIndex
from carcls.families import TestScore
from carcls.families.queries import VOTES, Queries, answers_of, timing, vote_metrics
from carcls.outcome import Measurement, Outcome, Report
from carcls.stages import StageStore
from carcls.training.embeddings import Extractor, Gallery, read_embeddings
from carcls.training.trained import PREDICTIONS, save_predictions


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
    reused = stages.has(VOTES, queries.votes_key)
    folder = stages.get_or_make(VOTES, queries.votes_key, queries.write_predictions)
    metrics = queries.metrics(config.distance, config.vote, config.k)
    trained: dict[str, float] = {}
    for measurement in last:
        trained = _of_training(measurement)
        metrics |= {**trained, "seconds": measurement.metrics["seconds"]}
        report(replace(measurement, metrics=metrics))
    return Outcome(
        metrics=metrics,
        epochs=config.epochs if last else 0,
        seconds=time.perf_counter() - start,
        reused=reused,
        model=embeddings.relative_to(stages.root).as_posix(),
        predictions=(folder.relative_to(stages.root) / PREDICTIONS).as_posix(),
        siblings=tuple(queries.siblings(trained)),
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
    queries = Queries(config, data, stages, stages.root / model)
    folder = stages.get_or_make(VOTES, queries.votes_key, queries.write_predictions)
    return (folder.relative_to(stages.root) / PREDICTIONS).as_posix()


def refit(config: TrialConfig, data: Dataset, stages: StageStore) -> str:
    """Train the extractor on ``data``, which has nothing to validate on, and embed it; return its folder in the store.

    All its images are the gallery.
    """
    folder = Extractor(config, data, stages).get_or_embed(lambda _: None)
    return folder.relative_to(stages.root).as_posix()


def _all_but_last(epochs: int, report: Report, last: list[Measurement]) -> Report:
    """Return what passes measurements on, and keeps the last epoch's: the vote is measured in its place."""

    def early(measurement: Measurement) -> None:
        if measurement.epoch < epochs:
            report(measurement)
        else:
            last[:] = [measurement]

    return early


def _of_training(measurement: Measurement) -> dict[str, float]:
    metrics = measurement.metrics
    return {"train_loss": metrics["train_loss"], "val_classifier_accuracy": metrics["val_accuracy"]}


def evaluate_on_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, predictions: Path | None
) -> TestScore:
    """Let the training images vote on every test image; the search that is timed is for the trial's k neighbours."""
    rows = data.splits.test
    labels, gallery = data.labels[rows], _gallery(config, data, stages, model)
    queries = read_embeddings(Extractor(config, data, stages).of_test(model), config.pooling)
    start = time.perf_counter()
    predicted, shares = answers_of(config, data, gallery.rank(queries, config.k, config.distance).neighbours)
    predict = time.perf_counter() - start
    longer = gallery.rank(queries, neighbours_needed(gallery.labels, len(gallery.labels)), config.distance)
    found = gallery.labels[longer.neighbours.indices]
    metrics = {
        **vote_metrics(predicted, labels, len(data.classes), "test_"),
        **retrieval_metrics(found, labels, relevant_of(labels, gallery.labels), prefix="test_"),
        **timing(gallery.fit_seconds, predict, len(rows), "test_"),
    }
    if predictions is not None:
        save_predictions(predictions, rows, labels, predicted, shares)
    hits = int((predicted == labels).sum())
    return TestScore(metrics, wilson_interval(hits, len(rows)), len(rows))


def _gallery(config: TrialConfig, data: Dataset, stages: StageStore, model: str) -> Gallery:
    rows = data.splits.train
    embeddings = read_embeddings(stages.root / model, config.pooling)[: len(rows)]
    return Gallery.fitted(config, embeddings, data.labels[rows])


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
