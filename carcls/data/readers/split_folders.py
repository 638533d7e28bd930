"""``train/<class>/*`` with ``val/<class>/*`` and ``test/<class>/*``, in their usual spellings, each perhaps wrapped."""

from __future__ import annotations

from collections.abc import Sequence

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Manifest, Split
from carcls.data.readers import Reader, are_no_classes, manifest_of, split_named
from carcls.data.readers.class_folders import ClassFolder, class_folders, notes_of
from carcls.errors import DataError


def _read(folder: Folder, config: DataConfig) -> Manifest | None:
    """None where the folder holds no train folder with class folders."""
    found = [
        (split, part.path.relative_to(folder.path).as_posix(), part, _classes(part, config))
        for name, outer in folder.folders.items()
        if (split := split_named(name))
        for part in [_unwrapped(outer, split)]
    ]
    order = ("train", "validation", "test")
    found.sort(key=lambda each: order.index(each[0]))
    classes: list[ClassFolder] = [one for *_, inside in found for one in inside]
    if not any(one.images for split, _, _, inside in found for one in inside if split == "train"):
        _require_depth(folder, [part for split, _, part, _ in found if split == "train"], config)
        return None
    bare = [(name, part) for _, name, part, inside in found if part.images and not any(one.images for one in inside)]
    unlabelled = [
        f"{name}/ is left out: its {len(part.images):,} images are in no class folders." for name, part in bare
    ]
    rows = (row for split, _, _, inside in found for one in inside for row in one.rows(folder, split))
    names = ", ".join(f"{name}/" for _, name, _, inside in found if any(one.images for one in inside))
    return manifest_of(
        folder,
        rows,
        layout=f"class folders in {names}",
        notes=[*unlabelled, *notes_of(classes)],
        companions=[f"{name}/{image}" for name, part in bare for image in part.images],
    )


def _require_depth(folder: Folder, parts: Sequence[Folder], config: DataConfig) -> None:
    """Check that classes are as deep in the training folders as was said, and that somebody said it where it is open.

    Raises:
        DataError: folders two deep hold the images, and nobody has said which are the classes; or none is as deep as
            was said, and ``folder`` holds splits alone, which are part of no class.
    """
    holding = [name for name, child in folder.folders.items() if child.holds_images]
    for part in parts:
        outer = [name for name, child in part.folders.items() if child.holds_images]
        if config.depth is None and len(outer) > 1 and not any(part.folders[name].images for name in outer):
            raise DataError(
                f"classes must be the folders in {part.path.name}/, which hold no images themselves, got "
                f"{', '.join(outer[:3])}. Say data.depth=1 if these are the classes, data.depth=2 if those in them are."
            )
        if config.depth is not None and outer and all(map(split_named, holding)):
            raise DataError(
                f"data.depth must be how many folders deep classes are in {part.path.name}/, got {config.depth}, where "
                "none hold images. Say less, or leave it out."
            )


def _unwrapped(part: Folder, split: Split) -> Folder:
    """Return what a split's folder only wraps, as archives often have it: ``train/train/``, ``test/images/``."""
    inside = [child for child in part.folders.values() if child.holds_images]
    if part.images or len(inside) != 1:
        return part
    name = inside[0].path.name
    wraps = split_named(name) in (split, None) and are_no_classes([name])
    return _unwrapped(inside[0], split) if wraps else part


def _classes(part: Folder, config: DataConfig) -> list[ClassFolder]:
    """Return the class folders of a split; none where they are heaps of images, such as ``train/images/``."""
    found = class_folders(part, config.depth)
    is_heap = config.depth is None and are_no_classes([one.name for one in found if one.images])
    return [] if is_heap else found


READER = Reader("train/<class>/*.jpg", _read, rank=2, settings=("depth",))
