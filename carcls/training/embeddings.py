"""Embeddings of images as cached stages: each is computed once and shared by every trial.

Images are embedded in parts, each a stage until all are put together: trials that want the same at once share the work.

Letters: b batch, n images, d embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carcls.config import digest_of
from carcls.models.backbones import Backbone
from carcls.models.folding import folded
from carcls.stages import StageStore, note_made
from carcls.training.images import ImageSource, NumberFormat, View, answering_batch, fetched

FEATURES, FEATURES_VERSION = "features", 3
PART_KIND = "embedding-parts"
PART, GPU_PART = 256, 2048
"""Images of a part, about. A GPU embeds them in the time that locking, checksums and writing of a small part take."""
_SECONDS = "seconds.txt"
# What a backbone makes of normalised images [b, 3, s, s]: embeddings [b, d] by the names of the files they go to.
Embed = Callable[[Backbone, Tensor], Mapping[Any, Tensor]]


@dataclass(frozen=True)
class Embedder:
    """Looks embeddings up in the store, and computes those that are not there.

    Attributes:
        stages: the store.
        build: gives the backbone; asked when images are first embedded, if ever.
        images: where its images come from.
        precision: of the backbone's arithmetic.
        part: images of a part.
        embedded: called with how many more images are embedded.
    """

    stages: StageStore
    build: Callable[[], Backbone]
    images: Callable[[Backbone], ImageSource]
    precision: NumberFormat
    part: int = PART
    embedded: Callable[[int], None] = lambda _: None

    def get_or_embed(
        self,
        kind: str,
        key: Mapping[str, Any],
        rows: NDArray[np.int64],
        embed: Embed,
        view: View | None = None,
        finish: Callable[[Path], None] = lambda _: None,
    ) -> Path:
        """Return the folder of a stage with embeddings of images, as .npy files float32 [n, d].

        Args:
            kind, key: of the stage.
            rows: int64 [n], of the pack.
            embed: what the files hold.
            view: an epoch's changes of the images; None for the images as they are.
            finish: writes into the folder what else the stage holds.
        """
        stages, whole, size = self.stages, self.stages.folder(kind, key).name, self.part
        parts = [
            ({"of": whole, "first": first, "size": size}, partial(self._embed, rows[first : first + size], embed, view))
            for first in range(0, len(rows), size)
        ]

        def join(folder: Path) -> None:
            folders = [stages.get_or_make(PART_KIND, *part) for part in parts]
            for file in folders[0].glob("*.npy"):
                np.save(folder / file.name, np.concatenate([np.load(part / file.name) for part in folders]))
            finish(folder)
            note_made(folder, sum(float((part / _SECONDS).read_text()) for part in folders))

        for part in parts:  # those that nobody else is at
            if stages.has(kind, key):
                break
            stages.make_if_free(PART_KIND, *part)
        found = stages.get_or_make(kind, key, join)
        for part_key, _ in parts:
            stages.forget(PART_KIND, part_key)
        return found

    def _embed(self, rows: NDArray[np.int64], embed: Embed, view: View | None, folder: Path) -> None:
        start, network = time.perf_counter(), partial(embed, self._folded)
        with closing(self._source.through(network, rows, self.precision, view)) as batches:
            found = fetched(batches)
        for name, embeddings in found.items():
            np.save(folder / f"{name}.npy", embeddings)
        (folder / _SECONDS).write_text(repr(time.perf_counter() - start), encoding="utf-8")
        self.embedded(len(rows))
        note_made(folder, 0.0)  # what finding all of them is worth is told with the whole

    @cached_property
    def _folded(self) -> Backbone:
        return folded(backbone := self.build(), self.images(backbone).side)

    @cached_property
    def _source(self) -> ImageSource:
        return self.images(self._folded)


def part_of(device: torch.device, side: int) -> int:
    """Return the images of a part: of whole batches, as if there were no parts, so that numbers stay."""
    batch = answering_batch(device, side)
    return -(-(PART if device.type == "cpu" else GPU_PART) // batch) * batch


def frozen_features(
    embedder: Embedder, key: Mapping[str, Any], rows: NDArray[np.int64], view: View | None
) -> NDArray[np.float32]:
    """Return the embeddings of images in one view, float32 [n, d], as a read-only memory map.

    Args:
        embedder: computes them, by a backbone that is not trained.
        key: what they depend on besides rows and view: data, image size, backbone, weights.
        rows: int64 [n], rows of the pack.
        view: the epoch's changes; None for the images as they are.
    """
    key = features_key(key, embedder.precision, rows, view)
    return read_features(embedder.get_or_embed(FEATURES, key, rows, _features, view))


def features_key(
    key: Mapping[str, Any], precision: NumberFormat, rows: NDArray[np.int64], view: View | None
) -> dict[str, Any]:
    """Return the key of the stage with ``frozen_features``; arguments as there."""
    changed, seen = None if view is None else asdict(view), _digest_of_rows(rows.tobytes())
    return {**key, "precision": precision, "rows": seen, "view": changed, "version": FEATURES_VERSION}


def read_features(folder: Path) -> NDArray[np.float32]:
    """Return the ``frozen_features`` in the folder of their stage."""
    features: NDArray[np.float32] = np.load(folder / f"{FEATURES}.npy", mmap_mode="r")
    return features


def _features(backbone: Backbone, images: Tensor) -> Mapping[str, Tensor]:
    return {FEATURES: backbone(images)}


@lru_cache(maxsize=8)
def _digest_of_rows(rows: bytes) -> str:
    return digest_of(np.frombuffer(rows, np.int64).tolist())
