"""Food-101: ``images/<class>/`` and the lists of its splits in ``meta/``."""

from __future__ import annotations

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.text import files_in, lines_of, place_of, require_parts, spelt
from carcls.errors import DataError

_SPLITS: tuple[Split, ...] = ("train", "test")


def _read(folder: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where no ``meta/`` lists splits and classes, or either beside ``images/``."""
    meta, images = place_of(folder, "meta"), place_of(folder, "images")
    if not _is_meta(folder, meta):
        return None
    require_parts(folder, "Food-101", "food-101.tar.gz", *(f"{meta}/{split}.txt" for split in _SPLITS), f"{images}/")
    rows = [
        Annotation(f"{images}/{name}.jpg", name.rpartition("/")[0], split)
        for split in _SPLITS
        for name in lines_of(folder.path / meta / f"{split}.txt")
    ]
    wrong = next((row.path for row in rows if not row.label), None)
    if wrong:
        raise DataError(f"{meta}/ must list images as <class>/<image>, got {wrong!r}. Take it from food-101.tar.gz.")
    names = spelt({row.label: row.label for row in rows}) | _labels(folder, meta)
    return manifest_of(
        folder,
        (Annotation(row.path, names[row.label], row.split) for row in rows),
        layout="Food-101",
        companions=[*files_in(folder, "meta")],
    )


def _is_meta(folder: Folder, place: str) -> bool:
    kinds = [f"{split}.{kind}" for split in _SPLITS for kind in ("txt", "json")], ["classes.txt", "labels.txt"]
    splits, classes = (any(folder.has(f"{place}/{name}") for name in names) for names in kinds)
    return (splits or classes) if folder.below("images") else (splits and classes)


def _labels(folder: Folder, meta: str) -> dict[str, str]:
    """Return what classes are called in words, which labels.txt says in the order of classes.txt."""
    files = [folder.first(name, (meta,)) for name in ("classes.txt", "labels.txt")]
    classes, labels = (lines_of(file) if file else [] for file in files)
    return dict(zip(classes, labels, strict=True)) if len(classes) == len(labels) == len({*labels}) else {}


READER = Reader("Food-101", _read)
