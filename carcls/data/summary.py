"""A data set in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The numbers of a data set: about right before its images are read, exact after that.

    Attributes:
        name: what tables call it.
        digest: of what trials see; the same digest means the same images, crops and splits. Empty before they are read.
        images: readable images in all splits together.
        classes: how many.
        splits: images of ``train``, ``validation`` and ``test``.
    """

    name: str
    digest: str
    images: int
    classes: int
    splits: Mapping[str, int]

    @classmethod
    def of(cls, dataset: Dataset) -> DataSummary:
        """Return the numbers of a data set whose images are read."""
        counts = dataset.counts
        return cls(dataset.name, dataset.digest, sum(counts.values()), len(dataset.classes), counts)

    @property
    def train(self) -> int:
        """Images to train on."""
        return self.splits["train"]

    @property
    def validation(self) -> int:
        """Images to validate on."""
        return self.splits["validation"]

    @property
    def test(self) -> int:
        """Images to test the winner on."""
        return self.splits["test"]
