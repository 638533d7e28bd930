"""What the neighbours of images say, and how good that is.

Letters: q queries, g gallery, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.config import TrialConfig
from carcls.evaluation.classification import averaged_measures
from carcls.evaluation.neighbours import Neighbours
from carcls.evaluation.votes import vote_shares, votes_by_k
from carcls.training.costs import Costs


@dataclass(frozen=True, slots=True)
class Answer:
    """What the neighbours say: predicted int64 [q], and shares of the votes float32 [q, c]."""

    predicted: NDArray[np.int64]
    shares: NDArray[np.float32]

    @classmethod
    def of(cls, found: Neighbours, gallery_labels: NDArray[np.int64], config: TrialConfig, classes: int) -> Answer:
        """Let the first k neighbours vote as the trial says."""
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


def with_costs(metrics: Mapping[str, float], embedding: Costs) -> dict[str, float]:
    """Return the measures and what an answer costs: to embed an image, then to search and to vote."""
    milliseconds = embedding.milliseconds + metrics["ms_per_query"]
    return {**metrics, "predict_ms": milliseconds, "parameters": float(embedding.parameters)}
