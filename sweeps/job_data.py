"""The images of a sweep, read and told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.job_checks import configs_to_check
from sweeps.observers import Progress
from sweeps.space import IntDomain
from sweeps.winner import summarize_data

if TYPE_CHECKING:
    from carcls.config import DataConfig
    from carcls.data.dataset import Dataset, DataSummary
    from carcls.stages import StageStore
    from sweeps.spec import SweepSpec

DEMO_NAME = "demo-cars"
MOST_FINDINGS = 20


def prepare_data(spec: SweepSpec, out: Path, stages: StageStore, progress: Progress) -> Dataset:
    """Read, decode and split the sweep's images, render the demo cars where it names none, and tell what was found."""
    from carcls.data.dataset import prepare_dataset

    size, *also = wanted_sizes(spec)
    dataset = prepare_dataset(with_demo(spec, out, progress), stages, size, also=also, progress=progress.packing)
    summary = summarize_data(dataset)
    counts = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    progress.note(f"{summary.name}: {summary.classes} classes; images: {counts}.")
    for note in dataset.notes:
        progress.note(note)
    _list(progress, [f"left out, unreadable: {path} ({reason})" for path, reason in dataset.quarantined])
    _list(progress, [f"test image duplicates a training image: {test} = {train}" for test, train in dataset.duplicates])
    return dataset


def wanted_sizes(spec: SweepSpec) -> list[int]:
    """Return the sides in pixels of images that trials will need; of a range only the least, if anything."""
    configs = configs_to_check(spec)[: spec.trials]
    if isinstance(spec.search.get("image_size"), IntDomain):
        configs = configs[: max(1, len(spec.experiment_configs()))]  # the rest are its ends, which hardly anyone draws
    return list(dict.fromkeys(config.image_size for config in configs))


def _list(progress: Progress, findings: list[str]) -> None:
    for finding in findings[:MOST_FINDINGS]:
        progress.note(finding)
    if len(findings) > MOST_FINDINGS:
        progress.note(f"… and {len(findings) - MOST_FINDINGS} more; all are in dataset.json in the sweep's folder.")


def with_demo(spec: SweepSpec, out: Path, progress: Progress) -> DataConfig:
    """Return where a sweep's images are; where it names none, demo cars, which are rendered if they are not there."""
    data = spec.data
    if data.path is not None:
        return data
    from carcls.data.demo import demo_folder_name, write_demo

    folder = _begun_with(out / str(spec.name)) or out / "data" / demo_folder_name()
    if not folder.exists():
        progress.note(f"rendering demo cars into {folder}")
    write_demo(folder)
    return data.model_copy(update={"path": str(folder), "name": data.name or DEMO_NAME})


def _begun_with(folder: Path) -> Path | None:
    """Return the demo cars that a sweep was begun with, if they are there: an older carsweep drew other ones."""
    from carcls.data.dataset import Dataset

    file = folder / "dataset.json"
    root = Dataset.load(file).manifest.root if file.is_file() else None
    return root if root is not None and root.is_dir() else None


def expected_demo(data: DataConfig) -> DataSummary:
    """Count the demo cars before they are rendered."""
    from carcls.data.dataset import DataSummary
    from carcls.data.demo import demo_counts

    classes, train, test = demo_counts()
    validation = round(train * data.validation_fraction)
    return DataSummary(data.name or DEMO_NAME, train + test, classes, train - validation, validation, test)
