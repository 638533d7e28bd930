"""Oxford-IIIT Pets: ``images/`` and the lists of its splits in ``annotations/``."""

from __future__ import annotations

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.text import Records, files_in, place_of, require_parts, spelt

_LISTS: dict[str, Split] = {"trainval.txt": "train", "test.txt": "test"}


def _read(folder: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where ``annotations/`` holds neither the list of all images nor that of the training images."""
    lists, place = place_of(folder, "annotations"), place_of(folder, "images")
    if not (folder.has(f"{lists}/list.txt") or folder.has(f"{lists}/trainval.txt")):
        return None
    parts = [*(f"{lists}/{name}" for name in _LISTS), f"{place}/"]
    require_parts(folder, "Oxford-IIIT Pets", "images.tar.gz and annotations.tar.gz", *parts)
    images = [(image, split) for name, split in _LISTS.items() for image in Records(folder.path / lists / name)]
    names = spelt({breed: breed for breed in dict.fromkeys(image.rpartition("_")[0] for image, _ in images)})
    others = [path for path in files_in(folder, place) if path.endswith(".mat")]  # of three images, as published
    heads = folder.below(f"{lists}/xmls")
    return manifest_of(
        folder,
        (Annotation(f"{place}/{image}.jpg", names[image.rpartition("_")[0]], split) for image, split in images),
        layout="Oxford-IIIT Pets",
        companions=[*files_in(folder, "annotations"), *others],
        notes=["Images are not cut: the boxes in annotations/xmls/ are of heads only."] if heads else [],
    )


READER = Reader("Oxford-IIIT Pets", _read)
