"""A classifier's stored answers to the images of a split: what two models are compared by, with no image read anew."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.errors import InputError

PREDICTIONS = "validation.npz"
"""The file of a stage that holds the answers to the validation images."""


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """The answers to n images, in the order of the split.

    Attributes:
        rows: int64 [n], which images of the data set.
        labels: int64 [n], their classes.
        predicted: int64 [n], the classes answered.
        sure: float32 [n], in [0, 1], the probabilities of these answers; None where they are not known.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    sure: NDArray[np.float32] | None = None

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which answers are right, bool [n]."""
        return np.equal(self.predicted, self.labels)

    @property
    def accuracy(self) -> float:
        """The share of right answers, in [0, 1]."""
        return float(self.hits.mean())

    def same_images(self, other: StoredPredictions) -> bool:
        """Tell whether both answer the same rows with the same labels; which data set they are of is not known here."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.labels, other.labels)


def read_predictions(path: Path) -> StoredPredictions:
    """Read ``rows``, ``labels`` and ``predicted`` of a .npz file, which may come from a server: no pickle is opened.

    Where it has ``sure`` or ``probabilities``, those of the answers are read, too.

    Raises:
        InputError: the file is none, or is damaged, or holds other arrays than whole numbers [n] with n at least 1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in ("rows", "labels", "predicted")]
            shares = next((file[name] for name in ("sure", "probabilities") if name in file.files), None)
        fits = len({array.shape for array in arrays}) == 1 and arrays[0].ndim == 1 and arrays[0].size
        if not fits or any(array.dtype.kind not in "iu" for array in arrays):
            raise ValueError(", ".join(f"{array.dtype} {list(array.shape)}" for array in arrays))
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{path.name} must hold rows, labels and predicted as whole numbers [n], got {said}."
        ) from error
    rows, labels, predicted = (array.astype(np.int64) for array in arrays)
    return StoredPredictions(rows, labels, predicted, _of_answers(shares, predicted))


def _of_answers(shares: NDArray[np.float32] | None, predicted: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Return the probabilities of the answers from those, [n], or from those of all classes, [n, c]."""
    if shares is not None and shares.ndim == 2 and len(shares) == len(predicted):
        known = bool(((predicted >= 0) & (predicted < shares.shape[1])).all())
        shares = shares[np.arange(len(shares)), predicted] if known else None
    if shares is None or shares.shape != predicted.shape or shares.dtype.kind != "f":
        return None
    return shares.astype(np.float32).clip(0, 1) if ((shares >= 0) & (shares <= 1.0001)).all() else None


def read_probabilities(path: Path, classes: int) -> NDArray[np.float32] | None:
    """Return ``probabilities`` of a file that ``read_predictions`` reads, float32 [n, c], each row in its order.

    None where it has none, as old files, or where they are no shares in [0, 1] of n images and c ``classes``.
    """
    with np.load(path, allow_pickle=False) as file:
        shape = (len(file["rows"]), classes)
        found = file["probabilities"] if "probabilities" in file.files else np.zeros(0)
    fits = found.shape == shape and found.dtype.kind == "f" and bool(((found >= 0) & (found <= 1.0001)).all())
    return found.astype(np.float32).clip(0, 1) if fits else None
