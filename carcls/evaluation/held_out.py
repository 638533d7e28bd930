"""What linear heads say of images that they were not fitted on: each image is answered by the head of the other folds.

A head is the linear discriminant of features of length 1 (classes that are normal with one covariance), that covariance
shrunk towards a multiple of the identity. It follows from sums over images, so that a fold is left out by subtracting
its sums: all folds are fitted in one pass over the features, and memory does not grow with the images.

Letters: n images, b images of a block, c classes, d embedding, f folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FOLDS, SHRINKAGE = 5, 0.8
"""So strong a shrinkage costs some accuracy, and ranks wrong labels best (docs/decisions.md)."""
BLOCK, SAMPLE = 2048, 4096
"""Images of a block, and those that the temperature is fitted on."""
Head = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weights [d, c] and biases [c]."""


@dataclass(frozen=True, eq=False)
class HeldOutHeads:
    """Heads with the images that they were fitted on.

    Attributes:
        features: float32 [·, d], arrays or memory maps that together have n rows.
        folds: of each image, int64 [n].
        heads: of each fold, fitted on the others.
        temperature: that their answers are divided by, so that probabilities are about right.
    """

    features: Sequence[NDArray[np.float32]]
    folds: NDArray[np.int64]
    heads: Sequence[Head]
    temperature: float = 1.0

    @classmethod
    def fitted(
        cls,
        features: Sequence[NDArray[np.float32]],
        labels: NDArray[np.int64],
        classes: int,
        groups: NDArray[np.int64] | None = None,
    ) -> HeldOutHeads:
        """Fit a head for each fold.

        Args:
            features: as the attribute.
            labels: int64 [n], in [0, c).
            classes: c.
            groups: int64 [n]; images of one group are in one fold, so that a copy does not vouch for its label. None
                means that each image is a group.
        """
        alike = np.arange(len(labels)) if groups is None else groups
        _, first, group = np.unique(alike, return_index=True, return_inverse=True)
        order = np.lexsort((np.random.default_rng(0).random(len(first)), labels[first]))
        fold = np.empty(len(first), np.int64)
        fold[order] = np.arange(len(first)) % FOLDS  # a class is spread over all of them
        folds = fold[group]
        raw = cls(features, folds, _heads(features, labels, folds, classes))
        return replace(raw, temperature=raw._fitted_temperature(labels))

    def answers(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield positions int64 [b] of all images in blocks, with logarithms of probabilities float32 [b, c]."""
        from scipy.special import log_softmax

        for at, block in _blocks_of(self.features):
            yield at, log_softmax(self._logits(at, block) / self.temperature, axis=1)

    def _logits(self, at: NDArray[np.int64], block: NDArray[np.float32]) -> NDArray[np.float32]:
        said, folds = np.empty((len(block), len(self.heads[0][1])), np.float32), self.folds[at]
        for fold, (weights, biases) in enumerate(self.heads):
            said[folds == fold] = block[folds == fold] @ weights + biases
        return said

    def _fitted_temperature(self, labels: NDArray[np.int64]) -> float:
        """Return the temperature that makes the labels of some images likeliest (Guo et al. 2017)."""
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax

        chosen = np.zeros(len(labels), bool)
        chosen[np.linspace(0, len(labels) - 1, SAMPLE).astype(np.int64)] = True
        parts = [self._logits(at[chosen[at]], block[chosen[at]]) for at, block in _blocks_of(self.features)]
        logits, own = np.concatenate(parts), labels[chosen]

        def loss(log: float) -> float:
            likely = log_softmax(logits * np.exp(-log), axis=1)[np.arange(len(own)), own]
            return -float(np.maximum(likely, -1e3).mean())  # a class that only the image's own fold has is impossible

        return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 6.0), method="bounded").x))


def _blocks_of(features: Sequence[NDArray[np.float32]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield positions int64 [b] of images in blocks, with their features float32 [b, d], of length 1."""
    first = 0
    for part in features:
        for begin in range(0, len(part), BLOCK):
            block = np.array(part[begin : begin + BLOCK])
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
            yield np.arange(first, first + len(block)), block
            first += len(block)


def _heads(
    features: Sequence[NDArray[np.float32]], labels: NDArray[np.int64], folds: NDArray[np.int64], classes: int
) -> list[Head]:
    width = features[0].shape[1]
    products, sums = np.zeros((FOLDS, width, width)), np.zeros((FOLDS, classes, width))
    counts = np.zeros((FOLDS, classes))
    np.add.at(counts, (folds, labels), 1)
    for at, block in _blocks_of(features):
        np.add.at(sums, (folds[at], labels[at]), block)
        for fold in range(FOLDS):
            own = block[folds[at] == fold]
            products[fold] += own.T @ own
    known = (products, sums, counts)
    wholes = [each.sum(axis=0) for each in known]
    return [_head(*(whole - each[fold] for whole, each in zip(wholes, known, strict=True))) for fold in range(FOLDS)]


def _head(products: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Head:
    """Return the discriminant by the sums of x xᵀ [d, d], of x by class [c, d] and of 1 by class [c].

    A class without images is never named. All classes are taken for equally likely.
    """
    means = sums / np.maximum(counts, 1)[:, None]
    within = (products - means.T @ sums) / max(1.0, counts.sum() - np.count_nonzero(counts))  # [d, d]
    spread = max(float(np.trace(within)) / len(within), 1e-12)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * spread * np.eye(len(within))
    weights = np.linalg.solve(within, means.T)  # [d, c]
    biases = np.where(counts > 0, -0.5 * (means.T * weights).sum(axis=0), -np.inf)
    return weights.astype(np.float32), biases.astype(np.float32)
