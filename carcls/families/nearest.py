"""The training images that a finished trial finds nearest to its mistakes: what it may have taken them for.

Letters: n images, d embedding, k neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import TrialFailure
from carcls.families.retrieval import RetrievalTrial
from carcls.neighbours.exact import Neighbours
from carcls.neighbours.search import find_neighbours
from carcls.stages import StageStore
from carcls.training.trained import TrainedClassifier

# What it takes to load a network, about.
LOADING_SECONDS = 1.0
# Row of the data set, its class, and the class that it was taken for.
Mistaken = tuple[int, int, int]
# By rows the k nearest training images: their rows and distances.
Near = dict[int, list[tuple[int, float]]]


def find_nearest(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    model: str,
    mistakes: Sequence[Mistaken],
    k: int,
    *,
    seconds: float,
    per_image: float,
) -> tuple[str, Near]:
    """Return a sentence on what was compared, and the training images that are nearest to each mistake.

    A retrieval trial's are those that voted. Of a classifier it is the cosine of the embeddings that its head sees,
    among all training images where those are in the store, as of a frozen backbone without augmentation; else among
    those of the two classes, for as many mistakes, from the first, as there is time for.

    Args:
        config: of a complete trial.
        data, stages: of its sweep.
        model: the outcome's ``model``.
        mistakes: validation images.
        k: at most so many for each.
        seconds: that loading the network and embedding may take.
        per_image: seconds that an image is expected to take; infinity where that is not known.

    Raises:
        TrialFailure: there is no time for one mistake, or what the model consists of is gone.
    """
    if not (stages.root / model / "key.json").is_file():
        raise TrialFailure("The network that answered is not kept any more.")
    train, places = data.splits.train, {int(row): place for place, row in enumerate(data.splits.validation)}
    asked = np.array([places[row] for row, _, _ in mistakes], np.int64)
    if config.has_neighbours:
        ranked = RetrievalTrial(config, data, stages).neighbours(stages.root / model)
        found = Neighbours(ranked.indices[asked, :k], ranked.distances[asked, :k])
        said = f"The nearest of all training images, which vote ({config.distance} distance)."
        return said, _by_rows(mistakes, train, found)
    trained = TrainedClassifier(config, data, stages)
    gallery, queries = (trained.known_features(rows) for rows in (train, data.splits.validation))
    if gallery is not None and queries is not None:
        found = find_neighbours(np.array(queries[asked]), np.array(gallery), min(k, len(gallery)), "cosine")
        said = "The nearest of all training images (cosine distance of what the head sees)."
        return said, _by_rows(mistakes, train, found)
    said = "The nearest training images of both classes, not of all (cosine distance of what the head sees)."
    return said, _among_both(trained, model, mistakes, k, seconds, per_image)


def _by_rows(mistakes: Sequence[Mistaken], gallery: NDArray[np.int64], found: Neighbours) -> Near:
    """Return what a search found for each mistake in a gallery, given by rows of the data set."""
    pairs = zip(mistakes, gallery[found.indices].tolist(), found.distances.tolist(), strict=True)
    return {row: list(zip(rows, far, strict=True)) for (row, _, _), rows, far in pairs}


def _among_both(
    trained: TrainedClassifier, model: str, mistakes: Sequence[Mistaken], k: int, seconds: float, per_image: float
) -> Near:
    """Return the nearest training images of both classes to the first mistakes; an image is embedded once.

    How long the next mistake takes is expected from what an image has taken so far, loading the network included.
    """
    data, train, start = trained.data, trained.data.splits.train, time.perf_counter()
    found, known, embed = Near(), dict[int, NDArray[np.float32]](), None
    for mistake in mistakes:
        gallery = train[np.isin(data.labels[train], mistake[1:])]
        unknown = [row for row in (mistake[0], *gallery.tolist()) if row not in known]
        took = time.perf_counter() - start
        more = len(unknown) * took / len(known) if known else len(unknown) * per_image + LOADING_SECONDS
        if took + more > seconds:
            if found:
                break
            raise TrialFailure(f"Embedding {len(unknown)} images would take {more:.0f} s, of {seconds:.1f} s at most.")
        embed = embed or trained.embedder(model)
        known |= zip(unknown, embed(np.array(unknown, np.int64)), strict=True) if unknown else ()
        query, own = (np.stack([known[row] for row in rows]) for rows in (mistake[:1], gallery.tolist()))  # [·, d]
        found |= _by_rows([mistake], gallery, find_neighbours(query, own, min(k, len(gallery)), "cosine"))
    return found
