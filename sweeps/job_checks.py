"""What is checked before a sweep begins: its data, its folder, its machine and its settings."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError, OutputError
from sweeps.remembered import SPEC, read_spec

if TYPE_CHECKING:
    from carcls.config import DataConfig, TrialConfig
    from carcls.data.dataset import Dataset
    from sweeps.sitting import Sitting
    from sweeps.spec import SweepSpec


def check_sweep(spec: SweepSpec, out: Path, address: str | None, *, edited: bool = False) -> None:
    """Check all that can be checked before any image is read; arguments and errors as ``run_sweep``."""
    require_data(spec.data)
    claim_folder(spec, out, edited=edited)
    check_trials(spec, out, address)


def check_against_data(spec: SweepSpec, dataset: Dataset) -> None:
    """Check that the sweep's settings fit the data set.

    Raises:
        InputError: they do not, such as more neighbours than the gallery holds.
    """
    from carcls.families import check_data

    check_data(configs_to_check(spec), dataset)


def require_data(data: DataConfig) -> None:
    """Check that the data set's folder holds a known layout; reads no image.

    Raises:
        DataError: it is missing, empty, or of no known layout.
    """
    from carcls.data.stanford import read_layout

    if data.path is not None:
        read_layout(Path(data.path))


def claim_folder(spec: SweepSpec, out: Path, *, edited: bool = False) -> None:
    """Make ``out`` and check that the sweep can live there under its name.

    Raises:
        OutputError: ``out`` cannot be written.
        InputError: the name belongs to a sweep of another spec, and it was not edited on purpose.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"--out must be a folder that can be written, got {str(out)!r} ({error.strerror}). Choose another --out."
        ) from None
    file = out / str(spec.name) / SPEC
    if not edited and file.is_file() and read_spec(file.parent).digest != spec.digest:
        raise InputError(
            f"--name must be new or belong to a sweep of the same spec, got {spec.name!r}, which was begun with other "
            f"settings (see {file}). Give another --name, or those settings; trials, hours and resources may change. "
            f"To change the sweep itself: carsweep resume {spec.name} --set KEY=VALUE."
        )


def require_same_data(sitting: Sitting) -> None:
    """Check that a sweep that goes on does so with the images it was begun with.

    Raises:
        InputError: images, boxes or labels under the same path have changed.
    """
    from carcls.data.dataset import Dataset

    file = sitting.folder / "dataset.json"
    if file.is_file() and Dataset.load(file).digest != sitting.dataset.digest:
        raise InputError(
            f"--data must hold the images that {sitting.spec.name!r} was begun with; they have changed since. "
            "Scores on different images cannot be compared: give the sweep another --name."
        )


def check_trials(spec: SweepSpec, out: Path, address: str | None) -> list[str]:
    """Check that this machine, or the cluster, and the weights suffice; return what the user should know."""
    from carcls.families import preflight
    from sweeps.cluster import machines_of
    from sweeps.resources import least_seconds, trial_resources

    least_seconds()
    trial_resources(spec, *(machines_of(address, out) if address else ()))
    notes = [spec.note] if spec.note else []
    return [*notes, *spec.goals.lines(), *spec.goals.notes, *preflight(configs_to_check(spec))]


def configs_to_check(spec: SweepSpec) -> list[TrialConfig]:
    """Return trials that together need every backbone, weights, image size and number of neighbours of the sweep."""
    configs = [config for _, config in spec.experiment_configs()]
    if spec.trials <= len(configs):
        return configs[: spec.trials]
    needs = [
        name for name in ("backbone", "weights", "image_size", "pooling", "depth", "stem", "k") if name in spec.search
    ]
    combinations = itertools.product(*(spec.search[name].ends() for name in needs))
    return [*configs, *(spec.trial_config(dict(zip(needs, values, strict=True))) for values in combinations)]
