"""FGVC-Aircraft: ``data/images/`` and a list of each split at three levels: variant, family and manufacturer."""

from __future__ import annotations

from collections.abc import Iterator

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Box, Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.text import Records, require_parts

_SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
_BOXES = "images_box.txt"


def _read(folder: Folder, config: DataConfig) -> Manifest | None:
    """None where neither the folder nor ``data/`` in it holds a list of labels or boxes."""
    place = next((place for place in ("data/", "") if any(map(_is_list, _others(folder, place)))), None)
    if place is None:
        return None
    lists = {split: f"{place}images_{config.level}_{split}.txt" for split in _SPLITS}
    require_parts(folder, "FGVC-Aircraft", "fgvc-aircraft-2013b.tar.gz", *lists.values(), f"{place}images/")
    boxes = Records(folder.path / place / _BOXES) if folder.has(place + _BOXES) else None

    def rows() -> Iterator[Annotation]:
        for split, name in lists.items():
            for image, label in Records(folder.path / name).items():
                box = None if boxes is None else _box(boxes, image)
                yield Annotation(f"{place}images/{image}.jpg", label, _SPLITS[split], box)

    without = f"Images are not cut to their boxes, and keep the banner at their bottom: there is no {_BOXES}."
    code = (name for name in folder.others if name.endswith((".m", ".html")))
    return manifest_of(
        folder,
        rows(),
        layout=f"FGVC-Aircraft, data.level={config.level}",
        companions=[*(place + name for name in _others(folder, place) if name.endswith(".txt")), *code],
        notes=[] if boxes is not None else [without],
    )


def _others(folder: Folder, place: str) -> tuple[str, ...]:
    found = folder.below(place.rstrip("/") or ".")
    return found.others if found else ()


def _is_list(name: str) -> bool:
    return name == _BOXES or name.startswith(("images_variant_", "images_family_", "images_manufacturer_"))


def _box(boxes: Records, image: str) -> Box:
    """Return a box of both corners, which count pixels from 1 (a few from 0); it ends above the photograph's banner."""
    x1, y1, x2, y2 = map(int, boxes.numbers(image, 4))
    return (max(0, x1 - 1), max(0, y1 - 1), x2, y2)


READER = Reader("FGVC-Aircraft", _read, settings=("level",))
