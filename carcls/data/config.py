"""Which images a sweep is about, and how many they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DEMO_NAME = "demo-cars"
"""What the demo cars are called."""


_HUB = re.compile(r"(?:hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)datasets/([\w.-]+(?:/[\w.-]+)?)")
_NEWER = ("depth", "level", "validation", "images", "label", "leaks")


class DataConfig(BaseModel):
    """Which images, how they are cut and how they are split. One for a whole sweep.

    Attributes:
        path: folder of the data set, or a table of images; None means the embedded demo cars.
        images: folder that the paths of a table begin in; None means the table's own.
        label: column of a table that has the labels; None goes by the usual names.
        name: what tables call the data set; None means the folder's name.
        depth: how many folders deep a class is: 1 is <class>/…, 2 is <make>/<model>/…; None tells it from the folders.
        level: of FGVC-Aircraft's labels.
        validation: own keeps the data set's own validation images where it has some; cut cuts others from what trains.
        leaks: report only tells of test images that are copies of training images, mirrored and cropped ones too;
            drop-from-train takes their copies out of training and validation.
        margin: added around the bounding box, as a fraction of its width and height; the same on every split.
        validation_fraction: share of the training images that validate.
        test_fraction: share cut off as test where the data set has no test split.
        split_seed: seed of the cut.
        max_loss: share of a split that may be unreadable before the sweep refuses to start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    path: str | None = None
    images: str | None = None
    label: str | None = None
    name: str | None = None
    depth: Annotated[int, Field(ge=1, le=8, strict=True)] | None = None
    level: Literal["variant", "family", "manufacturer"] = "variant"
    validation: Literal["own", "cut"] = "own"
    leaks: Literal["report", "drop-from-train"] = "report"
    margin: Annotated[float, Field(ge=0.0, le=1.0, strict=True)] = 0.0
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.9, strict=True)] = 0.15
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.9, strict=True)] = 0.15
    split_seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    max_loss: Annotated[float, Field(ge=0.0, le=1.0, strict=True)] = 0.05

    @field_validator("path")
    @classmethod
    def _on_this_machine(cls, path: str | None) -> str | None:
        if path and (remedy := how_to_fetch(path)):
            raise ValueError(f"must be a folder or file of this machine, got {path!r}. {remedy}")
        return path

    @model_validator(mode="after")
    def _of_somebody(self) -> DataConfig:
        if self.path is None and self.images is not None:
            raise ValueError(f"images must come with a table, got {self.images!r}. Give it with --data.")
        return self

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


def how_to_fetch(address: str) -> str:
    """Return in one sentence how to have what lies at an address; empty for a path of this machine.

    >>> how_to_fetch("s3://bucket/cars/")
    'Fetch it first: aws s3 sync s3://bucket/cars/ cars, then --data cars.'
    >>> how_to_fetch("hf://datasets/me/cars")
    'Fetch it first: hf download me/cars --repo-type dataset --local-dir cars, then --data cars.'
    >>> how_to_fetch("cars.csv")
    ''
    """
    scheme = address.partition("://")[0].lower() if "://" in address else "git" if address.startswith("git@") else ""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return ""
    if scheme == "file":
        return "Leave file:// out."
    name = PurePosixPath(re.sub(r"[?#].*", "", address)).name or "cars"
    is_file = bool(re.search(r"\.(zip|tar|t?gz|tgz|csv|tsv|jsonl|parquet)$", name.lower()))
    where, given = shlex.quote(name), shlex.quote(address)
    if hub := _HUB.match(address):
        where = hub[1].rpartition("/")[2]
        command = f"hf download {hub[1]} --repo-type dataset --local-dir {where}"
    elif scheme == "s3":
        command = f"aws s3 cp {given} {where}" if is_file else f"aws s3 sync {given} {where}"
    elif scheme == "gs":
        command = f"gcloud storage cp {given} {where}" if is_file else f"gcloud storage rsync -r {given} {where}"
    elif scheme.startswith("git") or scheme == "ssh" or name.endswith(".git"):
        where = shlex.quote(re.split(r"[/:]", name)[-1].removesuffix(".git"))
        command = f"git clone {given} {where}"
    elif scheme in ("http", "https", "ftp", "ftps"):
        command = f"curl -L -o {where} {given}"
    else:
        return "Fetch it first, then give its folder."
    return f"Fetch it first: {command}, then --data {where}."
