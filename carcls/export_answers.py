"""What a loaded model says about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carcls.errors import InputError


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One image of the gallery.

    Attributes:
        image: its path, relative to the folder of the data set.
        label: its class.
        distance: from the image that was asked about.
    """

    image: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one image.

    Attributes:
        label: the likeliest class.
        probability: of ``label``, in [0, 1]; where neighbours vote, its share of the votes.
        top: the likeliest classes with their probabilities, best first; ``label`` is the first.
        neighbours: the images that voted, nearest first; none for a classifier.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...] = ()


def named_prediction(
    row: NDArray[np.float32], classes: Sequence[str], top: int, winner: int, neighbours: tuple[Neighbour, ...] = ()
) -> Prediction:
    """Name the ``top`` likeliest classes of probabilities float32 [c]; ``winner``, one of the best, comes first."""
    order = np.argsort(-row, kind="stable")
    best = [winner, *(index for index in order.tolist() if index != winner)][:top]
    ranked = tuple((classes[index], float(row[index])) for index in best)
    return Prediction(ranked[0][0], ranked[0][1], ranked, neighbours)


def require_top(top: int) -> None:
    """Check how many classes are to be named.

    Raises:
        InputError: fewer than one.
    """
    if top < 1:
        raise InputError(f"top must be at least 1, got {top!r}. Give how many classes to name.")
