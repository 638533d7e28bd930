"""Oxford-IIIT Pets: ``images/`` and the lists of its splits in ``annotations/``."""

from __future__ import annotations

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.text import Records, files_in, require_parts, spelt

_LISTS: dict[str, Split] = {"annotations/trainval.txt": "train", "annotations/test.txt": "test"}


def _read(folder: Folder, config: DataConfig) -> Manifest | None:  # noqa: ARG001 - as every reader
    """None where ``annotations/`` holds neither the list of all images nor that of the training images."""
    if not (folder.has("annotations/list.txt") or folder.has("annotations/trainval.txt")):
        return None
    require_parts(folder, "Oxford-IIIT Pets", "images.tar.gz and annotations.tar.gz", *_LISTS, "images/")
    images = [(image, split) for name, split in _LISTS.items() for image in Records(folder.path / name)]
    names = spelt({breed: breed for breed in dict.fromkeys(image.rpartition("_")[0] for image, _ in images)})
    heads = folder.below("annotations/xmls")
    pictures = folder.below("images")
    return manifest_of(
        folder,
        (Annotation(f"images/{image}.jpg", names[image.rpartition("_")[0]], split) for image, split in images),
        layout="Oxford-IIIT Pets",
        companions=[
            *files_in(folder, "annotations"),
            *(f"images/{name}" for name in (pictures.others if pictures else ()) if name.endswith(".mat")),
        ],
        notes=["Images are not cut: the boxes in annotations/xmls/ are of heads only."] if heads else [],
    )


READER = Reader("Oxford-IIIT Pets", _read)
