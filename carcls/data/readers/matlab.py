"""MATLAB's files of annotations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.manifest import require_file
from carcls.errors import DataError

_COMPRESSED = 15
"""The type of a file's first element, after the 128 bytes of its head."""


def load_matlab(file: Path, name: str) -> Any:
    """Return a variable of a MATLAB file.

    Raises:
        DataError: it is no such file, or of version 7.3, or lacks the variable.
    """
    # Here because scipy.io takes a tenth of a second to import and most data sets are class folders.
    from scipy.io import loadmat

    try:
        require_file(file)
        _require_harmless(file)
        content: dict[str, Any] = loadmat(file, squeeze_me=True, chars_as_strings=True)
    except NotImplementedError:  # scipy's, of HDF5
        raise DataError(f"{file} must not be of MATLAB's version 7.3 (HDF5). Save it with -v7.") from None
    except Exception as error:  # scipy raises whatever a broken file makes it trip over
        raise DataError(f"{file} must be a MATLAB file, but it cannot be read ({error}). Fetch it again.") from error
    if name not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise DataError(f"{file} must hold {name}, got {found}. Take the file from the data set.")
    return content[name]


def _require_harmless(file: Path) -> None:
    """Check that reading a file ends no process, in one of its own.

    Damage in a file that is not compressed makes SciPy's reader die by a signal, 1 in 22 of those tried.
    Compressed ones, as MATLAB writes them, have a checksum.

    Raises:
        ValueError: it would.
    """
    with file.open("rb") as opened:
        kind = opened.read(132)[128:]
    if _COMPRESSED in (int.from_bytes(kind, "little"), int.from_bytes(kind, "big")):
        return
    reading = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], squeeze_me=True, chars_as_strings=True)"
    # -P: what lies in the current folder is not imported.
    done = subprocess.run([sys.executable, "-P", "-c", reading, str(file)], capture_output=True, check=False)  # noqa: S603 - our own words
    if done.returncode < 0:
        raise ValueError("its parts do not fit together")


def load_numbers(file: Path, name: str) -> NDArray[np.int64]:
    """Return a variable of whole numbers, int64 [n].

    Raises:
        DataError: as ``load_matlab``, or it holds anything else.
    """
    try:
        return np.atleast_1d(load_matlab(file, name)).astype(np.int64)
    except (TypeError, ValueError):
        raise DataError(f"{name} in {file} must be whole numbers. Take the file from the data set.") from None
