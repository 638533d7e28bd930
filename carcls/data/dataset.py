"""The data of a sweep: manifest, splits and what was found wrong, prepared once, handed to all trials as one file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from carcls.config import digest_of
from carcls.data.config import DataConfig, DataSummary
from carcls.data.decode import read_square
from carcls.data.index import Index
from carcls.data.layouts import read_layout
from carcls.data.manifest import ImagesNotRead, Manifest
from carcls.data.pack import PIXELS, Progress, find_index, find_pack, get_index, get_pack
from carcls.data.splits import (
    Splits,
    drop_leaks,
    duplicates_of,
    listing_notes,
    notes_of,
    own_splits,
    quota,
    require_few_losses,
    require_images,
    split_images,
)
from carcls.errors import DataError
from carcls.stages import StageStore, write_json

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, split for a sweep.

    Attributes:
        name: what tables call it.
        manifest: all images.
        margin: around the boxes, as a fraction of their sides; the same on every split.
        splits: rows of ``manifest.images``.
        quarantined: path and reason of every unreadable image; in no split.
        duplicates: test path and the path of the training or validation image that it is a copy of; still in test.
        notes: one sentence each about what the user may want to know.
    """

    name: str
    manifest: Manifest
    margin: float
    splits: Splits
    quarantined: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in them."""
        return self.manifest.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of all images, int64 [n], in 0..classes-1."""
        return self.manifest.labels

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the images, the margin and the rows that train and validate; not of test's."""
        splits = [self.splits.train.tolist(), self.splits.validation.tolist()]
        return digest_of({"manifest": self.manifest.digest, "margin": self.margin, "splits": splits})

    @cached_property
    def test_digest(self) -> str:
        """16 hexadecimal digits of the test images: equal where two models were tested on the same ones."""
        return self._digest_of(self.splits.test)

    @cached_property
    def validation_digest(self) -> str:
        """The same of the validation images."""
        return self._digest_of(self.splits.validation)

    def _digest_of(self, rows: NDArray[np.int64]) -> str:
        images, contents = self.manifest.images, self.manifest.contents
        seen = [
            (images[row].path, self.classes[images[row].label], images[row].box, contents[row] if contents else "")
            for row in rows.tolist()
        ]
        return digest_of({"images": seen, "margin": self.margin})

    @property
    def counts(self) -> dict[str, int]:
        """Images per split: ``train``, ``validation``, ``test``."""
        return {name: len(getattr(self.splits, name)) for name in ("train", "validation", "test")}

    def refitted(self) -> Dataset:
        """Return the data set as a refit sees it: the validation images train too, and none are left to validate."""
        train = np.sort(np.concatenate([self.splits.train, self.splits.validation]))
        return replace(self, splits=Splits(train, np.zeros(0, np.int64), self.splits.test))

    @property
    def summary(self) -> DataSummary:
        """The data set in numbers."""
        return DataSummary(
            self.name, self.digest, sum(self.counts.values()), len(self.classes), self.counts, self.manifest.layout
        )

    def pixels(self, stages: StageStore, size: int) -> NDArray[np.uint8]:
        """Return all images, uint8 [n, size, size, 3] RGB in 0..255, decoding them if no process has done so before.

        A read-only memory map; row i is ``manifest.images[i]``, zeros where that cannot be read.

        Raises:
            OutputError: the disk has no room for them.
        """
        pixels: NDArray[np.uint8] = np.load(self.pixels_file(stages, size), mmap_mode="r")
        return pixels

    def pixels_file(self, stages: StageStore, size: int) -> Path:
        """Return the .npy file of ``pixels``, with the same errors."""
        return get_pack(self.manifest, self.margin, size, stages) / PIXELS

    def square(self, stages: StageStore, row: int, size: int) -> NDArray[np.uint8]:
        """Return one image as the network sees it, uint8 [size, size, 3] RGB, from its pack or its file.

        Raises:
            UnreadableImage: there is no such pack, and the file cannot be read.
        """
        pack, image = find_pack(self.manifest, self.margin, size, stages), self.manifest.images[row]
        if pack is None:
            return read_square(self.manifest.root / image.path, size, image.box, self.margin)
        pixels: NDArray[np.uint8] = np.load(pack / PIXELS, mmap_mode="r")[row]
        return pixels

    def save(self, path: Path) -> None:
        """Write everything but pixels as JSON; ``path`` is whole or absent, whenever the machine stops."""
        write_json(path, {"format": _FORMAT, **TypeAdapter(Dataset).dump_python(self, mode="json")})

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read what ``save`` wrote.

        Raises:
            DataError: the file is missing or not of this version.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT:
                raise ValueError("another format")
            return TypeAdapter(Dataset).validate_python(stored)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"data file must be one that carsweep wrote, got {str(path)!r}. Start a new sweep."
            ) from error


def prepare_dataset(
    config: DataConfig,
    stages: StageStore,
    size: int,
    *,
    also: Sequence[int] = (),
    listed: Manifest | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    begun: Dataset | None = None,
) -> Dataset:
    """Read a data set, decode it at ``size`` if that was not done before, and split it.

    Args:
        config: where it is and how it is cut; ``path`` must be set.
        stages: keeps the pack, the copies that were found and the digests of the files.
        size: side in pixels of the first pack; the splits do not depend on it.
        also: other sizes that will be wanted, decoded in the same pass.
        listed: what listing ``config.path`` gave; None lists it.
        progress: called with images done and images in all while decoding.
        workers: decoding threads; None means one per usable core.
        begun: what a sweep has begun on, whose splits stay what they are while its images are the same.

    Raises:
        DataError: it cannot be read, or a split loses more than ``config.max_loss`` of its images.
        OutputError: the disk has no room for the pack.
    """
    root = _path(config)
    contents = _contents_file(root, stages)
    manifest = (listed or read_layout(root, config)).with_contents(contents)
    kept = _as_begun(begun, manifest)
    manifest = kept.manifest if kept else manifest
    pack = get_pack(
        manifest, config.margin, size, stages, also=also, contents=contents, progress=progress, workers=workers
    )
    return kept or _put_together(config, manifest, get_index(manifest, config.margin, pack, stages))


def find_dataset(
    config: DataConfig, listed: Manifest, stages: StageStore, begun: Dataset | None = None
) -> Dataset | None:
    """Return what ``prepare_dataset`` would, of images that were read before; None where one must be read. Reads none.

    Args:
        config: as there.
        listed: the images of ``config.path``.
        stages, begun: as there.

    Raises:
        DataError: as there.
    """
    try:
        manifest = listed.with_contents(_contents_file(_path(config), stages), read=False)
        if kept := _as_begun(begun, manifest):
            return kept
        return _put_together(config, manifest, find_index(manifest, config.margin, stages))
    except ImagesNotRead:
        return None


def _as_begun(begun: Dataset | None, manifest: Manifest) -> Dataset | None:
    """Return what a sweep has begun on, where it lies now; None where its images are no longer the same."""
    if begun is not None and begun.manifest.digest == manifest.digest:
        return replace(begun, manifest=manifest)
    if begun is None or begun.manifest.layout:
        return None
    # An older version, which named no layout, perhaps read this one otherwise, under other names: its images count.
    before = begun.manifest
    there = {f"{manifest.root}/{image.path}": row for row, image in enumerate(manifest.images)}
    for root in (manifest.root, before.root):
        rows = [there.get(f"{root}/{image.path}", -1) for image in before.images]
        if -1 not in rows and before.contents == tuple(manifest.contents[row] for row in rows):
            now = [manifest.images[row] for row in rows]
            renamed = {(old.label, new.label) for old, new in zip(before.images, now, strict=True)}
            boxed = [(old.box, new.box) for old, new in zip(before.images, now, strict=True) if old.box is not None]
            if len(renamed) == len(dict(renamed)) and all(old == new for old, new in boxed):
                return replace(begun, manifest=replace(before, root=root))
    return None


def _contents_file(root: Path, stages: StageStore) -> Path:
    return stages.root / "contents" / f"{digest_of(str(root.expanduser().resolve()))}.json"


def _put_together(config: DataConfig, manifest: Manifest, index: Index) -> Dataset:
    require_few_losses(manifest, index, config.max_loss)
    splits = split_images(manifest, index, config)
    dropped: list[str] = []
    if config.leaks == "drop-from-train":
        splits, dropped = drop_leaks(manifest, index, splits)
    seen = np.sort(np.concatenate([splits.train, splits.validation]))
    dataset = Dataset(
        name=_name(config, manifest),
        manifest=manifest,
        margin=config.margin,
        splits=splits,
        quarantined=tuple((manifest.images[row].path, reason) for row, reason in index.broken),
        duplicates=duplicates_of(manifest, index, splits.test, seen),
        notes=(*listing_notes(manifest, config), *dropped, *notes_of(manifest, index, splits)),
    )
    require_images(dataset.counts, manifest)
    return dataset


def summarize(config: DataConfig, listed: Manifest) -> DataSummary:
    """Count a data set from its listing alone; near-duplicates and unreadable images may shift the splits a little.

    Raises:
        DataError: a split is empty.
    """
    own = own_splits(listed, config).tolist()
    held = Counter(image.label for image, split in zip(listed.images, own, strict=True) if split == "train")
    counts = Counter(own)
    for split, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if not counts[split]:
            cut_off = {label: quota(count, fraction) for label, count in held.items()}
            counts[split], held = (
                sum(cut_off.values()),
                Counter({label: held[label] - cut_off[label] for label in held}),
            )
    train = sum(held.values())
    splits = {"train": train, "validation": counts["validation"], "test": counts["test"]}
    require_images(splits, listed)
    return DataSummary(_name(config, listed), "", len(listed.images), len(listed.classes), splits, listed.layout)


def _name(config: DataConfig, listed: Manifest) -> str:
    """Return what tables call a data set: one of a table by where that lies, others by the folder of the images."""
    given = Path(config.path or "").expanduser()
    if config.name is None and config.path and given.is_file():
        return given.absolute().parent.name if given.stem == "metadata" else given.stem
    return config.name or (given.name if config.images else listed.root.name)


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise DataError("data.path must be set, got None. Write the demo cars first, or give a folder with --data.")
    return Path(config.path)
