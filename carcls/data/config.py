"""Which images a sweep is about, and how many they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DEMO_NAME = "demo-cars"
"""What the demo cars are called."""


_NEWER = ("depth", "level", "validation")


class DataConfig(BaseModel):
    """Which images, how they are cut and how they are split. One for a whole sweep.

    Attributes:
        path: folder of the data set, or a table of images; None means the embedded demo cars.
        name: what tables call the data set; None means the folder's name.
        depth: how many folders deep a class is: 1 is <class>/…, 2 is <make>/<model>/…; None tells it from the folders.
        level: of FGVC-Aircraft's labels.
        validation: own keeps the data set's own validation images where it has some; cut cuts others from what trains.
        margin: added around the bounding box, as a fraction of its width and height; the same on every split.
        validation_fraction: share of the training images that validate.
        test_fraction: share cut off as test where the data set has no test split.
        split_seed: seed of the cut.
        max_loss: share of a split that may be unreadable before the sweep refuses to start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    path: str | None = None
    name: str | None = None
    depth: Annotated[int, Field(ge=1, le=8, strict=True)] | None = None
    level: Literal["variant", "family", "manufacturer"] = "variant"
    validation: Literal["own", "cut"] = "own"
    margin: Annotated[float, Field(ge=0.0, le=1.0, strict=True)] = 0.0
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.9, strict=True)] = 0.15
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.9, strict=True)] = 0.15
    split_seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    max_loss: Annotated[float, Field(ge=0.0, le=1.0, strict=True)] = 0.05

    def canonical(self) -> dict[str, Any]:
        """Return the settings as plain values; those that older versions had no word for only where they are set."""
        newer = {name for name in _NEWER if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=newer)


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The numbers of a data set: about right before its images are read, exact after that.

    Attributes:
        name: what tables call it.
        digest: of what trials see; the same digest means the same images, crops and splits. Empty before they are read.
        images: readable images in all splits together.
        classes: how many.
        splits: images of ``train``, ``validation`` and ``test``.
        layout: in which they were found, in words; empty where that is not known.
    """

    name: str
    digest: str
    images: int
    classes: int
    splits: Mapping[str, int]
    layout: str = ""

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
