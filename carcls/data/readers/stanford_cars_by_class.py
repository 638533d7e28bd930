"""Stanford Cars as Kaggle has it by class: ``train/<class>/`` and ``test/<class>/``, and tables of boxes above them."""

from __future__ import annotations

from collections.abc import Iterator

from carcls.data.config import DataConfig
from carcls.data.files import Folder
from carcls.data.manifest import Box, Manifest, Split
from carcls.data.readers import Annotation, Reader, manifest_of
from carcls.data.readers.class_folders import class_folders, notes_of
from carcls.data.readers.text import lines_of, require_parts
from carcls.errors import DataError

_TABLES: dict[Split, str] = {"train": "anno_train.csv", "test": "anno_test.csv"}
_NAMES = "names.csv"
_PLACES = ("car_data/car_data", "car_data", ".")


def _read(folder: Folder, config: DataConfig) -> Manifest | None:
    """None where the folder holds neither table, or neither the names of the classes nor their folders."""
    place = next((place for place in _PLACES if folder.below(f"{place}/train")), None)
    if not any(map(folder.has, _TABLES.values())) or not (place or folder.has(_NAMES)):
        return None
    parts = {split: f"{place or _PLACES[0]}/{split}/".removeprefix("./") for split in _TABLES}
    require_parts(folder, "Stanford Cars by class", "Kaggle's archive", *_TABLES.values(), *parts.values())
    # A folder's name cannot have the slash of "Ram C/V Cargo Van".
    lines = lines_of(folder.path / _NAMES) if folder.has(_NAMES) else []
    names = {line.strip('"').replace("/", "-"): line.strip('"') for line in lines}
    notes, rows = list[str](), list[Annotation]()
    for split, part in parts.items():
        found = folder.below(part.rstrip("/"))
        classes = class_folders(found, config.depth) if found else []
        boxes = dict(_boxes(folder, _TABLES[split]))
        images = [row for one in classes for row in one.rows(folder, split)]
        for row in images:
            box = boxes.get(row.path.rpartition("/")[2])
            rows.append(Annotation(row.path, names.get(row.label, row.label), split, box))
        if without := sum(row.path.rpartition("/")[2] not in boxes for row in images):
            notes.append(f"{without:,} of {len(images):,} images in {part} have no box in {_TABLES[split]}.")
        notes += notes_of(classes)
    return manifest_of(
        folder,
        rows,
        layout="Stanford Cars by class, with its tables of boxes",
        notes=notes,
        companions=[*_TABLES.values(), _NAMES],
    )


def _boxes(folder: Folder, table: str) -> Iterator[tuple[str, Box]]:
    """Yield names of files and boxes; corners count pixels from 1 and belong to the box. A first line may be titles."""
    for number, line in enumerate(lines_of(folder.path / table), start=1):
        cells = line.split(",")
        try:
            x1, y1, x2, y2 = (int(cell) for cell in cells[1:5])
        except ValueError:
            if number == 1:
                continue
            raise DataError(
                f"{folder.path / table}, line {number}, must be a file and its box x1, y1, x2, y2, got "
                f"{line!r}. Fetch it again."
            ) from None
        yield cells[0], (x1 - 1, y1 - 1, x2, y2)


READER = Reader("Stanford Cars", _read)
