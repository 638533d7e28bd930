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
from carcls.training.device import NumberFormat
from carcls.training.images import ImageSource, View

KIND = "features"
FILE = "features.npy"
VERSION = 3


@dataclass(frozen=True)
class FrozenFeatures:
    """Looks features up in the store, and computes those that are not there.

    Attributes:
        stages: the store.
        backbone: must hold the weights that ``key`` names when features are first computed.
        images: where images come from.
        precision: of the backbone's arithmetic.
        key: what the features depend on besides rows and view: data, image size, backbone, weights.
    """

    stages: StageStore
    backbone: Backbone
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

        def stage(wanted: View | None) -> tuple[dict[str, Any], Callable[[Path], None]]:
            return self._key(rows, wanted), lambda folder: self._make(folder, rows, wanted)

        for other in later:
            if self.has(rows, view) or self.stages.make_if_free(KIND, *stage(view)):
                break
            if not self.has(rows, other):
                self.stages.make_if_free(KIND, *stage(other))
        folder = self.stages.get_or_make(KIND, *stage(view))
        features: NDArray[np.float32] = np.load(folder / FILE, mmap_mode="r")
        return features

    def has(self, rows: NDArray[np.int64], view: View | None) -> bool:
        """Tell whether ``of`` would only read."""
        return self.stages.has(KIND, self._key(rows, view))

    def _key(self, rows: NDArray[np.int64], view: View | None) -> dict[str, Any]:
        changed = None
        if view is not None:
            changed = {"augmentation": asdict(view.augmentation), "seed": view.seed, "epoch": view.epoch}
        whole = {**self.key, "precision": self.precision, "rows": _digest_of_rows(rows.tobytes()), "view": changed}
        return {**whole, "version": VERSION}

    def _make(self, folder: Path, rows: NDArray[np.int64], view: View | None) -> None:
        embedding = self.backbone.embedding
        out = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=np.float32, shape=(len(rows), embedding))
        reserve(folder / FILE)
        done = 0
        with closing(self.images.through(self._folded, rows, self.precision, view)) as found:
            for embeddings in found:  # [b, d]
                out[done : done + len(embeddings)] = embeddings.float().cpu().numpy()
                done += len(embeddings)
        out.flush()

    @cached_property
    def _folded(self) -> Backbone:
        return folded(self.backbone, self.images.side)


@lru_cache(maxsize=8)
def _digest_of_rows(rows: bytes) -> str:
    return digest_of(np.frombuffer(rows, np.int64).tolist())
