"""Features of a frozen backbone as stages: each view of the images is computed once and shared by every trial.

Letters: n images, d embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.config import digest_of
from carcls.disk import reserve
from carcls.models.backbones import Backbone
from carcls.models.folding import folded
from carcls.stages import StageStore
from carcls.training.images import ImageSource, NumberFormat, View

KIND = "features"
FILE = "features.npy"
VERSION = 3


@dataclass(frozen=True)
class FrozenFeatures:
    """Looks features up in the store, and computes those that are not there.

    Attributes:
        stages: the store.
        build: gives the backbone with the weights that ``key`` names; asked when features are first computed, if ever.
        images: where images come from.
        precision: of the backbone's arithmetic.
        key: what the features depend on besides rows and view: data, image size, backbone, weights.
    """

    stages: StageStore
    build: Callable[[], Backbone]
    images: ImageSource
    precision: NumberFormat
    key: dict[str, Any]

    def of(self, rows: NDArray[np.int64], view: View | None, later: Iterable[View] = ()) -> NDArray[np.float32]:
        """Return the features of images in one view, float32 [n, d], as a read-only memory map.

        Args:
            rows: int64 [n], rows of the pack.
            view: the epoch's changes; None for the images as they are.
            later: views of the next epochs. While another process makes the one of this epoch, those are made.
        """
        key, make = self._stage(rows, view)
        for other_key, make_other in (self._stage(rows, other) for other in later):
            if self.stages.has(KIND, key) or self.stages.make_if_free(KIND, key, make):
                break
            if not self.stages.has(KIND, other_key):
                self.stages.make_if_free(KIND, other_key, make_other)
        folder = self.stages.get_or_make(KIND, key, make)
        features: NDArray[np.float32] = np.load(folder / FILE, mmap_mode="r")
        return features

    def _stage(self, rows: NDArray[np.int64], view: View | None) -> tuple[dict[str, Any], Callable[[Path], None]]:
        """Return the key of the features in a view, and what makes them."""
        changed = None if view is None else asdict(view)
        key = {**self.key, "precision": self.precision, "rows": _digest_of_rows(rows.tobytes()), "view": changed}
        return {**key, "version": VERSION}, lambda folder: self._make(folder, rows, view)

    def _make(self, folder: Path, rows: NDArray[np.int64], view: View | None) -> None:
        shape = (len(rows), self._folded.embedding)
        out = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=np.float32, shape=shape)
        reserve(folder / FILE)
        done = 0
        with closing(self.images.through(self._folded, rows, self.precision, view)) as found:
            for embeddings in found:  # [b, d]
                out[done : done + len(embeddings)] = embeddings.float().cpu().numpy()
                done += len(embeddings)
        out.flush()

    @cached_property
    def _folded(self) -> Backbone:
        return folded(self.build(), self.images.side)


@lru_cache(maxsize=8)
def _digest_of_rows(rows: bytes) -> str:
    return digest_of(np.frombuffer(rows, np.int64).tolist())
