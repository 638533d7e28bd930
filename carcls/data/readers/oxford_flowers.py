"""Oxford Flowers 102: ``jpg/``, with labels and splits as MATLAB files of image numbers."""

from __future__ import annotations

import numpy as np

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.matlab import load_numbers
from carcls.data.readers.text import require_parts
from carcls.errors import DataError

_LABELS, _SPLITS = "imagelabels.mat", "setid.mat"
_SETS: dict[str, Split] = {"trnid": "train", "valid": "validation", "tstid": "test"}


def _read(folder: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where the folder holds neither MATLAB file."""
    if not (folder.has(_LABELS) or folder.has(_SPLITS)):
        return None
    require_parts(folder, "Oxford Flowers 102", "its page, and 102flowers.tgz", _LABELS, _SPLITS, "jpg/")
    labels = load_numbers(folder.path / _LABELS, "labels")
    sets = {split: load_numbers(folder.path / _SPLITS, name) for name, split in _SETS.items()}
    numbers = np.concatenate(list(sets.values()))
    if not 1 <= numbers.min(initial=1) <= numbers.max(initial=1) <= len(labels):
        raise DataError(
            f"{_SPLITS} must number the {len(labels):,} images of {_LABELS}, got {numbers.max()}. "
            "Take both files from the data set's page."
        )
    return manifest_of(
        folder,
        (
            Annotation(f"jpg/image_{number:05d}.jpg", f"{labels[number - 1]:03d}", split)
            for split, found in sets.items()
            for number in found.tolist()
        ),
        layout="Oxford Flowers 102",
        companions=[_LABELS, _SPLITS],
        notes=[
            f"Its official split trains on {len(sets['train']):,} images and tests on {len(sets['test']):,}.",
            "Its classes have numbers and no names.",
        ],
    )


READER = Reader("Oxford Flowers 102", _read)
