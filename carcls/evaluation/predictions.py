"""A classifier's stored answers to the images of a split: what two models are compared by, with no image read anew."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carcls.errors import InputError

_ARRAYS = ("rows", "labels", "predicted")


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """The answers to n images, in the order of the split.

    Attributes:
        rows: int64 [n], which images of the data set.
        labels: int64 [n], their classes.
        predicted: int64 [n], the classes answered.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]

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

    Raises:
        InputError: the file is none, or is damaged, or holds other arrays than whole numbers [n] with n at least 1.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in _ARRAYS]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise _wrong(path, f"{type(error).__name__}: {error}") from error
    sizes = {array.shape for array in arrays}
    whole = all(array.ndim == 1 and array.size and array.dtype.kind in "iu" for array in arrays)
    if not whole or len(sizes) != 1:
        told = ", ".join(f"{name} {a.dtype} {list(a.shape)}" for name, a in zip(_ARRAYS, arrays, strict=True))
        raise _wrong(path, told)
    rows, labels, predicted = (array.astype(np.int64) for array in arrays)
    return StoredPredictions(rows, labels, predicted)


def _wrong(path: Path, got: str) -> InputError:
    said = " ".join(got.split())
    return InputError(f"{path.name} must hold rows, labels and predicted as whole numbers [n], got {said[:200]}.")
