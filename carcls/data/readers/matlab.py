"""MATLAB's files of annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.manifest import require_file
from carcls.errors import DataError


def load_matlab(file: Path, name: str) -> Any:
    """Return a variable of a MATLAB file.

    Raises:
        DataError: it is no such file, or of version 7.3, or lacks the variable.
    """
    # Here because scipy.io takes a tenth of a second to import and most data sets are class folders.
    from scipy.io import loadmat

    try:
        require_file(file)
        content: dict[str, Any] = loadmat(file, squeeze_me=True, chars_as_strings=True)
    except NotImplementedError:  # scipy's, of HDF5
        raise DataError(f"{file} must not be of MATLAB's version 7.3 (HDF5). Save it with -v7.") from None
    except Exception as error:  # scipy raises whatever a broken file makes it trip over
        raise DataError(f"{file} must be a MATLAB file, but it cannot be read ({error}). Fetch it again.") from error
    if name not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise DataError(f"{file} must hold {name}, got {found}. Take the file from the data set.")
    return content[name]


def load_numbers(file: Path, name: str) -> NDArray[np.int64]:
    """Return a variable of whole numbers, int64 [n].

    Raises:
        DataError: as ``load_matlab``, or it holds anything else.
    """
    try:
        return np.atleast_1d(load_matlab(file, name)).astype(np.int64)
    except (TypeError, ValueError):
        raise DataError(f"{name} in {file} must be whole numbers. Take the file from the data set.") from None
