"""The images of a sweep: listed, read and told; the demo cars are drawn where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.data.config import DEMO_NAME
from carcls.errors import DataError, printable
from sweeps.engine import Progress
from sweeps.spec.space import Range
from sweeps.text import counts_text
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from carcls.data.config import DataConfig, DataSummary
    from carcls.data.dataset import Dataset
    from carcls.data.manifest import Manifest
    from carcls.stages import StageStore
    from sweeps.spec.spec import SweepSpec

MOST_FINDINGS = 20
NOT_READ = "images not read yet: counts may fall; --read counts them exactly."


def wanted_sizes(spec: SweepSpec) -> list[int]:
    """Return the sides in pixels of images that trials will need; of a range only the least, if anything."""
    configs = spec.configs_to_check("image_size")[: spec.trials]
    if isinstance(spec.search.get("image_size"), Range):
        known = len(spec.experiments) + len(spec.starts)
        configs = configs[: max(1, known)]  # the rest are its ends, which hardly anyone draws
    return list(dict.fromkeys(config.image_size for config in configs))


def located(data: DataConfig, out: Path, stages: StageStore | None = None) -> DataConfig:
    """Return the data with the path of files; the demo cars have one once they are drawn.

    An archive, or tables that hold images, are unpacked under ``out`` if they were not before; a run, which gives its
    ``stages``, has it checked that they are whole.

    Raises:
        InputError: they cannot be unpacked.
    """
    if data.path is None:
        folder = _demo_folder(out)
        update = {"path": str(folder), "name": data.name or DEMO_NAME} if folder.is_dir() else {}
        return data.model_copy(update=update)
    from carcls.data.unpacking import unpacked

    found = unpacked(Path(data.path).expanduser(), out, stages)
    if found is None:
        return data
    images = data.images or (str(found.images) if found.images else None)
    return data.model_copy(update={"path": str(found.folder), "name": data.name or found.name, "images": images})


def _demo_folder(out: Path) -> Path:
    from carcls.data.demo import FOLDER_NAME

    return out / "data" / FOLDER_NAME


def list_images(data: DataConfig, out: Path) -> tuple[DataSummary, Manifest | None]:
    """Return the numbers of a data set by its listing, and the listing; demo cars that are not drawn have none.

    Raises:
        InputError: there are no images that can be used.
    """
    given, data = data.path, located(data, out)
    if data.path is None:
        return expected_demo(data), None
    from carcls.data.dataset import summarize
    from carcls.data.layouts import read_layout
    from carcls.data.unpacking import notes_of_unpacking

    try:
        listing = read_layout(Path(data.path), data)
    except DataError as error:  # of an archive it tells the folder in the store, which nobody has seen
        raise DataError(str(error).replace(repr(str(Path(data.path).absolute())), repr(given or data.path))) from error
    if given and given != data.path:
        told = notes_of_unpacking(Path(given).expanduser(), Path(data.path))
        listing = replace(listing, notes=(*told, *listing.notes))
    return summarize(data, listing), listing


def unpacked_note(data: DataConfig, listing: Manifest | None, out: Path) -> str:
    """Return where an archive was unpacked, which is no matter of the data, a sentence; empty for other data."""
    place = listing.root if listing else None
    return f"{data.path} is unpacked in {place}." if place and place.is_relative_to(out / "stages") else ""


def expected_demo(data: DataConfig) -> DataSummary:
    """Count the demo cars before they are drawn."""
    from carcls.data.config import DataSummary
    from carcls.data.demo import demo_counts
    from carcls.data.splits import quota

    classes, train, test = demo_counts()
    validation = classes * quota(train // classes, data.validation_fraction)
    splits = {"train": train - validation, "validation": validation, "test": test}
    return DataSummary(data.name or DEMO_NAME, "", train + test, classes, splits)


def prepare_data(
    specs: Sequence[SweepSpec], out: Path, stages: StageStore, progress: Progress, listing: Manifest | None
) -> Dataset:
    """Read and split the images of sweeps, which ``listing`` has, decoded once at all sizes that any of them needs.

    The demo cars are drawn first where there is no data of the user's. The first sweep keeps the splits that it has
    begun with while its images are the same.
    """
    from carcls.data.dataset import prepare_dataset

    size, *also = dict.fromkeys(size for spec in specs for size in wanted_sizes(spec))
    data = specs[0].data
    if data.path is None:
        from carcls.data.demo import write_demo

        folder = _demo_folder(out)
        if not folder.exists():
            progress.note(f"drawing demo cars into {folder}")
        write_demo(folder, partial(progress.packing, what="drawing demo cars"))
    with Waiting(progress.note, "checking stored images …") as looking:

        def show(done: int, total: int) -> None:
            looking.end()
            progress.packing(done, total)

        begun = begun_data(out / str(specs[0].name))
        found = prepare_dataset(
            located(data, out, stages), stages, size, also=also, listed=listing, progress=show, begun=begun
        )
    progress.on_data(found.summary)
    return found


def counts_note(dataset: Dataset) -> str:
    """Return how many images there are, a sentence."""
    layout = f" ({dataset.manifest.layout})" if dataset.manifest.layout and dataset.name != DEMO_NAME else ""
    return f"{dataset.name}{layout}: {len(dataset.classes)} classes; images: {counts_text(dataset.counts)}."


def begun_data(folder: Path) -> Dataset | None:
    """Return the data that the sweep of a folder has begun on; None where it has none that can be read."""
    from carcls.data.dataset import Dataset

    with suppress(DataError):
        return Dataset.load(folder / "dataset.json")
    return None


def data_notes(dataset: Dataset, rest: str = "dataset.json in the sweep's folder") -> list[str]:
    """Return what was found in the images and the user may want to know, a sentence each; ``rest`` has what is more."""
    unreadable = [f"left out, unreadable: {path} ({reason})" for path, reason in dataset.quarantined]
    duplicates = [f"test image duplicates a training image: {test} = {train}" for test, train in dataset.duplicates]
    for findings in (unreadable, duplicates):
        if len(findings) > MOST_FINDINGS:
            more = f"… and {len(findings) - MOST_FINDINGS} more; all are in {rest}."
            findings[MOST_FINDINGS:] = [more]
    return [printable(note) for note in (*dataset.notes, *unreadable, *duplicates)]
