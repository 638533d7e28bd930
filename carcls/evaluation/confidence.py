"""From what a model says to probabilities that are right as often as they say: fitted on validation answers.

A classifier's logits are divided by a temperature (Guo et al. 2017, ICML). Shares of neighbours' votes first get the
same mass for every class, so that one without a vote is not impossible (additive smoothing), then the temperature:
measured in docs/decisions.md. Neither changes which class comes first, nor the order of the others.

Letters: n images, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.evaluation.calibration import expected_error

LEAST = 1e-12
"""A probability that is taken for 0: its logarithm is finite."""
# Natural logarithms of temperature and smoothing: between which they are looked for, and from where.
_LEAST_LOGS, _MOST_LOGS = (-3.0, -14.0), (3.0, 2.0)
_USUAL = 0.5
"""Standard deviation of the logarithm of temperatures, before any answer is seen."""
_STARTS = ((0.0, -4.0), (-0.7, -7.0), (0.0, -7.0))
_STEP = 0.002
"""Precisions in a curve differ by at least this."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How a model's answers become probabilities, and how sure it has to be.

    Attributes:
        temperature: that logits are divided by, or the logarithms of smoothed shares of votes.
        smoothing: that is added to every class's share of the votes.
        images: validation images that it was fitted on; 0 where nothing was fitted.
        error_before, error_after: expected calibration error on those images, in [0, 1].
        curve: (confidence, precision): of the validation answers with at least this confidence, the share that is
            right. Both ascend.
    """

    temperature: float = 1.0
    smoothing: float = 0.0
    images: int = 0
    error_before: float = 0.0
    error_after: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()

    def of_logits(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities float32 [n, c] of a classifier's logits."""
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        found: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return found

    def of_votes(self, shares: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities float32 [n, c] of shares of neighbours' votes."""
        powers = (shares.astype(np.float64) + self.smoothing) ** (1 / self.temperature)
        found: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return found

    def threshold(self, precision: float) -> float | None:
        """Return the least confidence at which that share of the validation answers was right; None if none had it."""
        return next((sure for sure, right in self.curve if right >= precision), None)

    @property
    def reached(self) -> float:
        """The highest precision that ``threshold`` knows, in [0, 1]."""
        return self.curve[-1][1] if self.curve else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; ``confidence_from`` reads them back."""
        return asdict(self)


def confidence_from(values: Mapping[str, Any] | None) -> Confidence:
    """Read what ``as_dict`` returned; a model from before it has raw answers.

    Raises:
        TypeError, ValueError: they are others.
    """
    if values is None:
        return Confidence()
    found = Confidence(**{**values, "curve": tuple((float(sure), float(right)) for sure, right in values["curve"])})
    if not (found.temperature > 0 and found.smoothing >= 0):
        raise ValueError("confidence")
    return found


def fit_confidence(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], hits: NDArray[np.bool_], *, votes: bool
) -> Confidence:
    """Fit the temperature, and for votes the smoothing, that make the labels likeliest; few answers change little.

    Args:
        probabilities: float32 [n, c] as stored: softmax of logits, or shares of votes; n at least 1.
        labels: int64 [n], in [0, c).
        hits: whether the answers are right, bool [n].
        votes: whether they are shares of votes.
    """
    from scipy.optimize import minimize  # which a served model does without

    rows = np.arange(len(labels))
    logits = np.log(np.clip(probabilities, LEAST, 1)).astype(np.float32)

    def made(logs: NDArray[np.float64]) -> Confidence:
        temperature, smoothing = np.exp(logs.clip(_LEAST_LOGS, _MOST_LOGS))
        return Confidence(float(temperature), float(smoothing) if votes else 0.0)

    def shares(confidence: Confidence) -> NDArray[np.float32]:
        return confidence.of_votes(probabilities) if votes else confidence.of_logits(logits)

    def loss(logs: NDArray[np.float64]) -> float:
        likely = shares(made(logs))[rows, labels].astype(np.float64)
        prior = (logs[0] / _USUAL) ** 2 / 2  # a handful of answers says little of a temperature
        return float(-np.log(np.clip(likely, LEAST, 1)).mean() + prior / len(labels))

    tried = [minimize(loss, start, method="Nelder-Mead") for start in _STARTS[: None if votes else 1]]
    best = made(min(tried, key=lambda found: float(found.fun)).x)
    before, after = probabilities.max(axis=1), shares(best).max(axis=1)
    return replace(
        best,
        images=len(labels),
        error_before=expected_error(before, hits),
        error_after=expected_error(after, hits),
        curve=_curve(after, hits),
    )


def _curve(sure: NDArray[np.float32], hits: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return (confidence, precision), ascending: each precision where most answers are still given."""
    order = np.argsort(-sure, kind="stable")
    ordered, right = sure[order], np.cumsum(hits[order]) / np.arange(1, len(sure) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # of equal confidences all are answered, or none
    found: list[tuple[float, float]] = []
    for confidence, precision in zip(ordered[last][::-1].tolist(), right[last][::-1].tolist(), strict=True):
        if not found or precision >= found[-1][1] + _STEP:
            found.append((confidence, precision))
    return tuple(found)
