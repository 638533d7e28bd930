"""``<class>/*``: every folder is a class; test and validation are cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Annotation, Reader, are_no_classes, manifest_of
from carcls.errors import DataError


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder that is a class: its name, and its images, relative to it, those in folders below it among them."""

    name: str
    folder: Folder
    images: tuple[str, ...]

    def rows(self, root: Folder, split: Split) -> Iterator[Annotation]:
        """Yield the rows of its images, with paths relative to ``root``."""
        place, label = self.folder.path.relative_to(root.path).as_posix(), self.name
        yield from (Annotation(f"{place}/{image}", label, split) for image in self.images)


def _read(folder: Folder, config: DataConfig) -> Manifest | None:
    classes = class_folders(folder, config.depth)
    names = [one.name for one in classes if one.images]
    if not names or (config.depth is None and are_no_classes(names)):
        return None
    rows = (row for one in classes for row in one.rows(folder, "train"))
    odd = [name for name in names if name.isalpha() and are_no_classes([name])]
    called = (
        [f"{odd[0]!r} is taken for a class, by its folder. If it is none, move the folder elsewhere."] if odd else []
    )
    return manifest_of(folder, rows, layout="class folders", notes=[*called, *notes_of(classes)])


def class_folders(parent: Folder, depth: int | None) -> list[ClassFolder]:
    """Return the folders that are classes, ``depth`` below ``parent``; none where it holds no images there.

    Raises:
        DataError: ``depth`` is None, and images lie at several depths.
    """
    if depth is not None:
        return [ClassFolder(name, folder, tuple(_images_in(folder))) for name, folder in _at_depth(parent, depth)]
    direct = [name for name, child in parent.folders.items() if child.images]
    deeper = {name: sum(bool(below.images) for below in child.walk()) for name, child in parent.folders.items()}
    deeper = {name: count for name, count in deeper.items() if count > 1 and name not in direct}
    if not direct and (deeper or not _all_wrap_one(parent)):
        return []
    if deeper:
        name, count = next(iter(deeper.items()))
        raise DataError(
            f"classes must be folders of one depth, got {name!r} with {count} folders of images and {direct[0]!r} with "
            f"images in {str(parent.path)!r}. Give the folder of the classes; or say data.depth=1 if the folders "
            "below a class belong to it, or data.depth=2 if each of them is a class."
        )
    return [ClassFolder(name, child, tuple(_images_in(child))) for name, child in parent.folders.items()]


def _all_wrap_one(parent: Folder) -> bool:
    """Tell whether every folder holds one folder of images of the same name, such as ``<class>/images/``."""
    wrapped = [
        tuple(name for name, below in child.folders.items() if below.images) for child in parent.folders.values()
    ]
    return len(wrapped) > 1 and len(set(wrapped)) == 1 and len(wrapped[0]) == 1


def _at_depth(parent: Folder, depth: int) -> Iterator[tuple[str, Folder]]:
    for name, child in parent.folders.items():
        if depth == 1:
            yield name, child
        else:
            yield from ((f"{name}/{below}", folder) for below, folder in _at_depth(child, depth - 1))


def _images_in(folder: Folder, place: str = "") -> Iterator[str]:
    yield from (place + image for image in folder.images)
    for name, child in folder.folders.items():
        yield from _images_in(child, f"{place}{name}/")


def notes_of(classes: Sequence[ClassFolder]) -> Iterator[str]:
    """Say which folders hold no images, and which images lie below the folder of their class."""
    parents = dict.fromkeys(one.folder.path.parent for one in classes)
    for parent in parents:
        if empty := [one.name for one in classes if one.folder.path.parent == parent and not one.images]:
            verb = "holds" if len(empty) == 1 else "hold"
            yield f"{len(empty)} of the folders in {parent.name}/ {verb} no images, such as {empty[0]!r}."
    nested = [f"{one.name}/{image}" for one in classes for image in one.images if "/" in image]
    if nested:
        verb = "lies" if len(nested) == 1 else "lie"
        yield f"{len(nested):,} of the images {verb} in folders below their class, such as {nested[0]!r}."


READER = Reader("<class>/*.jpg", _read, rank=3, settings=("depth",))
