"""The images of a comparison, laid out for both sides: class folders for carsweep, its split of them for the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.data.demo import write_demo
from carcls.data.layouts import read_layout
from carcls.data.manifest import ImageRecord
from carcls.stages import StageStore

_SIDE = 64


@dataclass(frozen=True, slots=True)
class Cars:
    """Images for both sides.

    Attributes:
        name: of the data set.
        folder: ``train/<class>`` and ``test/<class>``, as a user of carsweep has them.
        split: ``train/<class>`` and ``val/<class>``: links to the images that carsweep trains and validates on.
        classes, train, validation: how many.
    """

    name: str
    folder: Path
    split: Path
    classes: int
    train: int
    validation: int

    def __str__(self) -> str:
        return f"{self.name}: {self.classes} classes, {self.train} training and {self.validation} validation images"


def lay_out(source: Path | None, classes: int | None, place: Path) -> Cars:
    """Lay out the first ``classes`` classes, evenly spaced, of a data set under ``place``.

    Images without a box are linked, so that neither side pays for cutting; those with one are cut to it and saved.
    The cut of the validation images is carsweep's own, at its defaults.

    Args:
        source: in any layout that carsweep reads; None draws the demo cars.
        classes: how many; None takes all.
        place: an empty folder.
    """
    manifest = read_layout(source or write_demo(place / "demo"))
    step = max(1, len(manifest.classes) // (classes or len(manifest.classes)))
    kept = dict.fromkeys(range(0, step * (classes or len(manifest.classes)), step))
    folder = place / (source.name if source else "demo-cars")
    for row, image in enumerate(manifest.images):
        if image.label in kept:
            target = folder / image.split / manifest.classes[image.label] / f"{row:05d}{Path(image.path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(manifest.root / image.path, image, target)
    data = prepare_dataset(DataConfig(path=str(folder)), StageStore(place / "splitting"), _SIDE)
    split = _link_split(data, place / "split")
    return Cars(folder.name, folder, split, len(data.classes), data.counts["train"], data.counts["validation"])


def _put(original: Path, image: ImageRecord, target: Path) -> None:
    if image.box is None:
        target.symlink_to(original.resolve())
    else:
        with Image.open(original) as opened:
            opened.convert("RGB").crop(image.box).save(target.with_suffix(".jpg"), quality=95)


def _link_split(data: Dataset, split: Path) -> Path:
    for part, rows in (("train", data.splits.train), ("val", data.splits.validation)):
        for name in data.classes:  # of which some may have no validation image
            (split / part / name).mkdir(parents=True)
        for row in rows.tolist():
            image = data.manifest.images[row]
            original = data.manifest.root / image.path
            (split / part / data.classes[image.label] / original.name).symlink_to(original.resolve())
    return split
