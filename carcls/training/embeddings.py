"""Embeddings as stages: an extractor looks at each image once, whatever is done with its embeddings afterwards.

Letters: n images of a split, b batch, d embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carcls.config import Pooling
from carcls.errors import TrialFailure, WeightsError
from carcls.models.backbones import Backbone
from carcls.models.classifier import Classifier
from carcls.models.folding import folded
from carcls.outcome import Report
from carcls.stages import note_made, write_json
from carcls.training.trained import TrainedClassifier

KIND = "embeddings"
PART_KIND = "embedding-parts"
TEST_KIND = "test-embeddings"
SOURCE, SECONDS = "source.json", "seconds.txt"
# So many images are a part that another trial may embed meanwhile.
PART = 256
VERSION = 3
# The key of the embeddings of some images, and what makes them; a stage until all of them are put together.
PartStage = tuple[dict[str, Any], Callable[[Path], None]]


@dataclass(frozen=True)
class Extractor:
    """The embeddings that a trial's extractor gives: trained by the training stage, or not trained at all.

    A frozen extractor needs no training, since its embeddings do not depend on a head.

    Attributes:
        trained: the training stage, shared with every family; it knows the trial, its data and the store.
    """

    trained: TrainedClassifier

    def get_or_embed(self, report: Report) -> Path:
        """Return the stage with the embeddings of training and validation images; train the extractor if need be.

        Epochs of the training are reported as ``TrainedClassifier.get_or_train`` does; a frozen extractor has none.

        Raises:
            TrialFailure: training cannot go on.
        """
        trained, stages, training = self.trained, self.trained.stages, None
        if trained.training.unfreezing == "frozen":
            key = {**trained.frozen_key, "precision": trained.precision, "version": VERSION}
        else:
            training = trained.get_or_train(report).relative_to(stages.root).as_posix()
            key = {"training": trained.key, "version": VERSION}
        parts = self._parts(stages.folder(KIND, key).name, training)
        for part in parts:  # those that nobody else is at
            if stages.has(KIND, key):
                break
            stages.make_if_free(PART_KIND, *part)
        found = stages.get_or_make(KIND, key, lambda folder: self._join(folder, parts, training))
        for part_key, _ in parts:
            if stages.has(PART_KIND, part_key):
                stages.forget(PART_KIND, part_key)
        return found

    def _parts(self, whole: str, training: str | None) -> list[PartStage]:
        """Return the stages of parts of the images, which all trials that want them at once make together."""
        splits = self.trained.data.splits
        rows = np.concatenate([splits.train, splits.validation])  # the gallery, then the queries
        backbone = cache(lambda: self._folded(self._extractor(training)))

        def embed(first: int, folder: Path) -> None:
            start = time.perf_counter()
            self._embed(folder, backbone(), rows[first : first + PART])
            (folder / SECONDS).write_text(repr(time.perf_counter() - start), encoding="utf-8")
            note_made(folder, 0.0)  # what finding all of them is worth is told with the whole

        return [({"of": whole, "first": first}, partial(embed, first)) for first in range(0, len(rows), PART)]

    def _join(self, folder: Path, parts: Sequence[PartStage], training: str | None) -> None:
        """Put the embeddings of the parts together, by pooling, and note how long embedding all of them took."""
        folders = [self.trained.stages.get_or_make(PART_KIND, *part) for part in parts]
        for file in folders[0].glob("*.npy"):
            np.save(folder / file.name, np.concatenate([np.load(part / file.name) for part in folders]))
        write_json(folder / SOURCE, {"training": training, "weights": self.trained.key["weights"]})
        note_made(folder, sum(float((part / SECONDS).read_text()) for part in folders))

    def of_test(self, model: str) -> Path:
        """Return the stage with the embeddings of the test images.

        Args:
            model: folder of the embeddings stage, relative to the store; another machine may have made it.
        """
        data = self.trained.data
        key = {"of": Path(model).name, "images": data.test_digest, "version": VERSION}
        return self.trained.stages.get_or_make(
            TEST_KIND, key, lambda folder: self._embed(folder, self._folded(self.load(model)), data.splits.test)
        )

    def load(self, model: str) -> Classifier:
        """Return the extractor of an embeddings stage, in evaluation mode; ``model`` as in ``of_test``.

        Raises:
            WeightsError: it was never trained, and its weights are not those any more that it embedded with.
        """
        source = json.loads((self.trained.stages.root / model / SOURCE).read_text(encoding="utf-8"))
        if source["training"] is None and source["weights"] != self.trained.key["weights"]:
            backbone = self.trained.config.backbone
            raise WeightsError(
                f"weights must be those that the gallery was embedded with, got others for {backbone}. "
                "Put them back, or run the sweep again under another name."
            )
        return self._extractor(source["training"])

    def _extractor(self, training: str | None) -> Classifier:
        return self.trained.build().eval() if training is None else self.trained.load(training)

    def _folded(self, extractor: Classifier) -> Backbone:
        with self.trained.reproducibly():
            return folded(extractor.backbone, self.trained.config.image_size)

    def _embed(self, folder: Path, backbone: Backbone, rows: NDArray[np.int64]) -> None:
        with self.trained.reproducibly():
            images = self.trained.images(backbone)
            with closing(images.through(backbone.every_pooling, rows, self.trained.precision)) as parts:
                found = [{name: part.cpu().numpy() for name, part in poolings.items()} for poolings in parts]
        for name in found[0]:  # each part [b, d]
            np.save(folder / f"{name}.npy", np.concatenate([part[name] for part in found]))


def read_embeddings(folder: Path, pooling: Pooling) -> NDArray[np.float32]:
    """Return the embeddings of a stage, float32 [n, d], in the order of its rows.

    Raises:
        TrialFailure: the extractor cannot pool like that.
    """
    path = folder / f"{pooling}.npy"
    if not path.exists():
        raise TrialFailure(f"pooling must be average for this backbone, which has no feature maps, got {pooling!r}.")
    embeddings: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return embeddings
