"""What an exported model says to the test images.

Letters: n images, c classes, d embedding.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.data.dataset import Dataset
from carcls.disk import describe
from carcls.evaluation.calibration import expected_error
from carcls.evaluation.confidence import Confidence
from carcls.evaluation.metrics import answer_metrics, classification_metrics, neighbours_needed, retrieval_metrics
from carcls.export import WEIGHTS_NAME, Predictor, load_export
from carcls.families.retrieval import timing
from carcls.neighbours.gallery import Gallery
from carcls.stages import StageStore
from carcls.training.images import pick_device

KIND, VERSION = "test-embeddings", 5
_FILE = "embeddings.npy"
_AT_ONCE = 1024

Answers = tuple[NDArray[np.int64], NDArray[np.float32], dict[str, float]]


def answer_test(folder: Path, data: Dataset, stages: StageStore, fitted: Gallery | None) -> Answers:
    """Return the classes int64 [n], probabilities float32 [n, c] and measures of the test images.

    Args:
        folder: of the export.
        data: with a test split.
        stages: where the pixels are, and embeddings of the test images by the same network.
        fitted: the gallery that was exported; it knows how long it was fitted.
    """
    predictor = load_export(folder, pick_device())
    labels, confidence = data.labels[data.splits.test], predictor.confidence
    if predictor.gallery is None or fitted is None:
        logits = _computed(predictor, data, stages)
        predicted, shares = logits.argmax(axis=1), confidence.of_logits(logits)
        scaled = logits / np.float32(confidence.temperature)
        metrics = classification_metrics(scaled, labels, prefix="test_")
        return predicted, shares, metrics | _errors(Confidence().of_logits(logits), shares, predicted == labels)
    gallery = predictor.gallery
    key = {
        # Frozen backbones have the same weights at every image size.
        "network": {**describe(folder / WEIGHTS_NAME), "image_size": predictor.image_size},
        "pooling": gallery.config.pooling,
        "images": data.test_digest,
        "version": VERSION,
    }

    def embed(made: Path) -> None:
        np.save(made / _FILE, _computed(predictor, data, stages))

    queries = np.load(stages.get_or_make(KIND, key, embed) / _FILE, allow_pickle=False)
    start = time.perf_counter()
    _, predicted, votes = gallery.answer(queries, len(data.classes), pick_device())
    seconds = time.perf_counter() - start
    longer = gallery.find(queries, neighbours_needed(gallery.labels), gallery.config.distance, pick_device())
    metrics = {
        **answer_metrics(predicted, labels, len(data.classes), prefix="test_"),
        **retrieval_metrics(longer.indices, labels, gallery.labels, prefix="test_"),
        **timing(fitted.fit_seconds, seconds, len(labels), "test_"),
    }
    shares = confidence.of_votes(votes)
    return predicted, shares, metrics | _errors(votes, shares, predicted == labels)


def label_test(folder: Path, data: Dataset, stages: StageStore) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the classes int64 [n] of the test images by a model that may know other classes, which it names.

    Beside them the probabilities of these answers, float32 [n].

    -1 stands for a class that the data does not have; of what the data has and the model does not, it gets all wrong.

    Args:
        folder: of the export.
        data: with a test split.
        stages: where the pixels are.
    """
    predictor, places = load_export(folder, pick_device()), {name: place for place, name in enumerate(data.classes)}
    answers = predictor.explain(_computed(predictor, data, stages), top=1)
    labels = np.array([places.get(answer.label, -1) for answer in answers], np.int64)
    return labels, np.array([answer.probability for answer in answers], np.float32)


def _errors(raw: NDArray[np.float32], shares: NDArray[np.float32], hits: NDArray[np.bool_]) -> dict[str, float]:
    """Return the expected calibration errors of the raw answers and of those that are served."""
    names = {"test_raw_calibration_error": raw, "test_calibration_error": shares}
    return {name: expected_error(each.max(axis=1), hits) for name, each in names.items()}


def _computed(predictor: Predictor, data: Dataset, stages: StageStore) -> NDArray[np.float32]:
    """Return what the model's network makes of the test images."""
    pixels, rows = data.pixels(stages, predictor.image_size), data.splits.test
    parts = np.array_split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))
    return np.concatenate([predictor.engine(pixels[part]) for part in parts])
