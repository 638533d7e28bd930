"""Which labels are probably wrong, by answers of a model that did not train on the images.

Labels are ranked by self-confidence, the probability of the label itself (Northcutt, Jiang and Chuang, "Confident
Learning", JAIR 70, 2021; Kuan and Mueller, "Model-agnostic label quality scoring", 2022). docs/decisions.md says what
it finds beside the confident joint.

Letters: n images, b images of a block, c classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SHOWN, SHARE_SHOWN = 50, 0.05
"""So many labels are named, or this share of all where that is more."""


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A label that may be wrong.

    Attributes:
        image: position among the images that were asked about.
        suggested: the likeliest class.
        given_probability, suggested_probability: of the label and of ``suggested``, in [0, 1].
    """

    image: int
    suggested: int
    given_probability: float
    suggested_probability: float


def suspicious_labels(
    labels: NDArray[np.int64], blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]
) -> tuple[list[LabelIssue], float, int]:
    """Return the least likely labels, the least likely first, the share of labels that are answered, and of how many.

    A label that is the answer is never among them. A label that is impossible, since no other image has it, is not
    asked about.

    Args:
        labels: int64 [n], in [0, c).
        blocks: positions int64 [b] of images, and the logarithms of their classes' probabilities float32 [b, c], which
            tell impossible labels apart; each image once.

    >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.45, 0.55], [0.05, 0.95]], np.float32)
    >>> issues, accuracy, _ = suspicious_labels(np.array([0, 0, 1, 0, 0]), [(np.arange(5), np.log(answers))])
    >>> [one.image for one in issues], accuracy
    ([4, 3], 0.6)
    """
    answered, given, sure = np.zeros(len(labels), np.int64), np.zeros(len(labels)), np.zeros(len(labels))
    for at, likely in blocks:
        answered[at] = likely.argmax(axis=1)
        given[at] = likely[np.arange(len(at)), labels[at]]
        sure[at] = likely.max(axis=1)
    asked = np.isfinite(given)
    wrong = np.flatnonzero(asked & (answered != labels))
    ranked = wrong[np.argsort(given[wrong], kind="stable")][: max(LEAST_SHOWN, round(SHARE_SHOWN * len(labels)))]
    given, sure = np.exp(given), np.exp(sure)
    issues = [LabelIssue(row, int(answered[row]), float(given[row]), float(sure[row])) for row in ranked.tolist()]
    count = int(asked.sum())
    return issues, 1 - len(wrong) / max(1, count), count
