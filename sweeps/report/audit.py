"""What an audit of a data set found: in lines, as plain values, and in figures that its page shows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carcls.data.audit import SPLITS
from carcls.errors import printable
from sweeps.tables import Grid
from sweeps.text import DASH, percent, plural

if TYPE_CHECKING:
    from carcls.data.audit import SamePicture
    from carcls.data.dataset import Dataset
    from carcls.evaluation.labels import LabelIssue
    from carcls.families.labels import LabelAudit

QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1.0}
_SHOWN = 5


@dataclass(frozen=True)
class DataAudit:
    """What was found in a data set.

    Attributes:
        data: which.
        notes: what a run tells of it before its first trial, a sentence each; first how many images there are.
        counts: images of each class, int64 [c, 3]: to train, validate and test on.
        splits: of each image, [n]; empty where it cannot be read.
        sides: width and height in pixels of what is cut from each image, int32 [n, 2]; zeros where it cannot be read.
        same: images that are the same picture, those in two splits first.
        labels: None where nobody looked for wrong ones.
    """

    data: Dataset
    notes: Sequence[str]
    counts: NDArray[np.int64]
    splits: NDArray[np.str_]
    sides: NDArray[np.int32]
    same: Sequence[SamePicture]
    labels: LabelAudit | None

    @cached_property
    def totals(self) -> NDArray[np.int64]:
        """Readable images of each class, int64 [c]."""
        found: NDArray[np.int64] = self.counts.sum(axis=1)
        return found

    @property
    def imbalance(self) -> float | None:
        """How many times as many images as the smallest class the largest one has; None where that has none."""
        return float(self.totals.max() / self.totals.min()) if self.totals.min() else None

    @cached_property
    def quantiles(self) -> dict[str, dict[str, float]]:
        """Least, median, most, … of ``width`` and ``height`` in pixels and of ``ratio``, width / height."""
        width, height = self.sides[self.sides.min(axis=1) > 0].T
        values = {"width": width, "height": height, "ratio": width / height}
        return {
            name: {word: float(np.quantile(each, at, method="nearest")) for word, at in QUANTILES.items()}
            for name, each in values.items()
        }

    def path(self, row: int) -> str:
        """Return the path of an image below the data set's folder, as it can be printed."""
        return printable(self.data.manifest.images[row].path)

    def label(self, row: int) -> str:
        """Return the class of an image, by its label."""
        return self.data.classes[int(self.data.labels[row])]

    @property
    def classes_text(self) -> str:
        """How many images the classes have, in a sentence."""
        least, most = int(self.totals.argmin()), int(self.totals.argmax())
        if self.totals[least] == self.totals[most]:
            return f"Images of a class: {self.totals[least]:,} of each."
        ends = " to ".join(f"{self.totals[at]:,} ({self.data.classes[at]})" for at in (least, most))
        times = DASH if self.imbalance is None else f"{self.imbalance:.1f}"
        return f"Images of a class: {ends}; imbalance {times}."

    @property
    def sides_text(self) -> str:
        """How large the images are, in a sentence."""
        width, height, ratio = (self.quantiles[name] for name in ("width", "height", "ratio"))
        ends = f"{width['least']:.0f} to {width['most']:.0f} wide, {height['least']:.0f} to {height['most']:.0f} high"
        middle = f"{width['median']:.0f} × {height['median']:.0f}"
        return f"Pixels: {ends}, medians {middle}; width / height {ratio['least']:.2f} to {ratio['most']:.2f}."

    @property
    def same_text(self) -> str:
        """How many pictures are there twice, in a sentence."""
        if not self.same:
            return "No picture is there twice."
        leaks, wrong = sum(one.leaks for one in self.same), sum(one.across_classes for one in self.same)
        return (
            f"Same pictures: {plural(len(self.same), 'pair')}, {leaks} of them in two splits, {wrong} in two classes."
        )

    @property
    def labels_text(self) -> str:
        """How many labels are suspicious, in a sentence."""
        found = self.labels
        if found is None:
            return "Suspicious labels: not looked for, as --no-labels says."
        head = f"a linear head on {found.backbone} at {found.image_size} pixels"
        if not found.issues:
            gives = f"gives {percent(found.accuracy)} of all images their label"
            return f"No label is suspicious to {head} that did not train on the image and {gives}."
        return (
            f"Suspicious labels: the {len(found.issues):,} of {found.images:,} least likely ones, to {head} that did "
            f"not train on them and gives {percent(found.accuracy)} of all images their label."
        )

    def lines(self) -> Iterator[str | Grid]:
        """Yield the short form: sentences and a table of the most suspicious labels."""
        said = (*self.notes, self.classes_text, self.sides_text, self.same_text, self.labels_text)
        yield from map(printable, said)
        if self.labels and self.labels.issues:
            issues = self.labels.issues[:_SHOWN]
            rows = [[self.path(one.image), printable(self.data.classes[one.suggested])] for one in issues]
            yield Grid(["most suspicious", "suggested"], rows, ("most suspicious", "suggested"), ("most suspicious",))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        data, quarantined = self.data, self.data.quarantined
        classes = zip(data.classes, self.counts.tolist(), strict=True)
        return {
            "name": data.name,
            "path": str(data.manifest.root),
            "layout": data.manifest.layout,
            "digest": data.digest,
            "images": int(self.totals.sum()),
            "splits": data.counts,
            "classes": [{"name": name, **dict(zip(SPLITS, counts, strict=True))} for name, counts in classes],
            "smallest": data.classes[self.totals.argmin()],
            "largest": data.classes[self.totals.argmax()],
            "imbalance": self.imbalance,
            "sides": self.quantiles,
            "same_pictures": [
                {
                    "images": [data.manifest.images[row].path for row in (one.first, one.second)],
                    "splits": list(one.splits),
                    "kind": one.kind,
                    "classes": [self.label(row) for row in (one.first, one.second)],
                }
                for one in self.same
            ],
            "labels": None if self.labels is None else self._labels_json(self.labels),
            "unreadable": [{"image": path, "error": reason} for path, reason in quarantined],
            "notes": list(self.notes),
        }

    def _labels_json(self, found: LabelAudit) -> dict[str, Any]:
        return {
            "backbone": found.backbone,
            "image_size": found.image_size,
            "images": found.images,
            "accuracy": found.accuracy,
            "suspicious": [self._issue_json(one) for one in found.issues],
        }

    def _issue_json(self, one: LabelIssue) -> dict[str, Any]:
        return {
            "image": self.data.manifest.images[one.image].path,
            "split": str(self.splits[one.image]),
            "label": self.label(one.image),
            "probability": one.given_probability,
            "suggested": self.data.classes[one.suggested],
            "suggested_probability": one.suggested_probability,
        }
