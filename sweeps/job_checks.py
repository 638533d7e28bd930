"""What is checked before a sweep begins: its data, its folder, its machine and its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError, OutputError
from sweeps.budget import idle_prices
from sweeps.job_data import configs_to_check, expected_demo, located
from sweeps.space import Choice
from sweeps.sweep_file import has_begun, is_sweep, read_file

if TYPE_CHECKING:
    from carcls.catalog import BackboneRecord
    from carcls.data.dataset import Dataset, DataSummary
    from carcls.data.manifest import Manifest
    from sweeps.resources import Machine, Share
    from sweeps.spec import SweepSpec
    from sweeps.tracking_store import Tracking


@dataclass(frozen=True, slots=True)
class Checked:
    """A sweep that may begin to read its images.

    Attributes:
        spec: as it is to be run.
        notes: what the user should know, a sentence each.
        machine: what this process may use here.
        share: of a trial.
        networks: figures of the backbones that trials need, by name.
        tracking: the MLflow store, checked; None in a plan that names none.
        listed: the data set's numbers by its listing.
        reading: the listing; None for demo cars that are not drawn yet.
    """

    spec: SweepSpec
    notes: tuple[str, ...]
    machine: Machine
    share: Share
    networks: Mapping[str, BackboneRecord]
    tracking: Tracking | None
    listed: DataSummary
    reading: Manifest | None


def check_sweep(
    spec: SweepSpec,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    *,
    edited: bool = False,
    plan: bool = False,
) -> Checked:
    """Check all that can be checked before an image is read: the one door of runs and plans.

    Args:
        spec: of the sweep, settled.
        out: folder of all sweeps, absolute.
        tracking_uri: MLflow's; None is a database under ``out``.
        address: of a Ray cluster.
        edited: whether the spec of a sweep that goes on may be another than it was begun with.
        plan: whether nothing will be run: ``out`` is not made, and no weights are downloaded.

    Raises:
        InputError: something given cannot be used; the message has the remedy.
    """
    from carcls.data.dataset import summarize
    from carcls.data.stanford import read_layout
    from carcls.families import preflight
    from sweeps.cluster import machines_of
    from sweeps.resources import least_seconds, this_machine, trial_resources
    from sweeps.tracking_store import check_tracking
    from sweeps.winner_candidates import keep_choice

    data = located(spec.data, out)
    reading = None if data.path is None else read_layout(Path(data.path))
    listed = expected_demo(data) if reading is None else summarize(data, reading)
    claim_folder(spec, out, edited=edited, make=not plan or address is not None)
    tracking = None if plan and tracking_uri is None else check_tracking(tracking_uri, out)
    spec = spec if edited else keep_choice(spec, out / str(spec.name))
    least_seconds()
    machine = this_machine()
    share = trial_resources(spec, *(machines_of(address, out) if address else (machine,)))
    # Near-duplicates may move images from validation to training, so more neighbours than these are surely too many.
    if _most_neighbours(spec) > listed.train + listed.validation:
        fit_to_data(spec, listed.train)
    notes, networks = preflight(configs_to_check(spec), out / "stages", download=not plan)
    notes += idle_prices(spec, share.gpus)
    return Checked(spec, tuple(notes), machine, share, networks, tracking, listed, reading)


def notes_of_spec(spec: SweepSpec) -> list[str]:
    """Return what the spec itself says, a sentence each."""
    return [*([spec.note] if spec.note else []), *spec.goals.lines(), *spec.goals.notes]


def fit_to_data(spec: SweepSpec, gallery: int) -> tuple[SweepSpec, list[str]]:
    """Check that the sweep's settings fit the data set; return the spec that does, and what was changed, in words.

    Args:
        spec: of the sweep.
        gallery: training images, among which neighbours are found.

    Raises:
        InputError: settings that were given do not fit, such as more neighbours than there are images.
    """
    from carcls.families import check_data

    fitted = cut_neighbours(spec, gallery)
    check_data(configs_to_check(fitted), gallery)
    if fitted is spec:
        return spec, []
    return fitted, [f"k is searched over {fitted.search['k']} only: the gallery has {gallery} images."]


def cut_neighbours(spec: SweepSpec, gallery: int) -> SweepSpec:
    """Return the spec without those choices of k that exceed the gallery, where nobody gave them; else the spec."""
    from sweeps.packaged import is_packaged

    domain = spec.search.get("k")
    if not isinstance(domain, Choice):
        return spec
    fitting = tuple(k for k in domain.choices if int(k) <= gallery)
    if fitting in ((), domain.choices) or not is_packaged(spec.family, "k", domain):
        return spec
    return spec.model_copy(update={"search": {**spec.search, "k": replace(domain, choices=fitting)}})


def _most_neighbours(spec: SweepSpec) -> int:
    """Return the most neighbours that a trial may ask for; 0 where there are none."""
    if spec.family != "retrieval":
        return 0
    return max(config.k for config in configs_to_check(spec))


def claim_folder(spec: SweepSpec, out: Path, *, edited: bool = False, make: bool = True) -> None:
    """Make ``out``, or see that it could be made, and check that the sweep can live there under its name.

    Raises:
        OutputError: ``out`` cannot be written.
        InputError: the name belongs to a sweep of another spec, and it was not edited on purpose.
    """
    try:
        if make:
            out.mkdir(parents=True, exist_ok=True)
        there = next(place for place in (out, *out.parents) if place.exists())
        probe = there / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"--out must be a folder that can be written, got {str(out)!r} ({error.strerror}). Choose another --out."
        ) from None
    folder = out / str(spec.name)
    if edited or not (is_sweep(folder) and has_begun(folder)):
        return
    file = read_file(folder)
    (before,) = file.read_specs()
    neighbours = before.search.get("k")
    if neighbours is not None:  # it was begun with those that its gallery has
        spec = cut_neighbours(spec, int(max(neighbours.ends())))
    if before.digest != spec.digest:
        raise InputError(
            f"--name must be new or belong to a sweep of the same spec, got {spec.name!r}, which was begun with other "
            f"settings (see {file.path}). Give another --name, or those settings; trials, hours and resources may "
            f"change. To change the sweep itself: carsweep resume {spec.name} --set KEY=VALUE."
        )


def require_same_data(folder: Path, dataset: Dataset, *, demo: bool) -> None:
    """Check that the sweep in ``folder``, if there is one, goes on with the images it was begun with.

    Args:
        folder: of the sweep.
        dataset: what it would go on with.
        demo: whether these are the demo cars, which nobody has changed, but another version may draw otherwise.

    Raises:
        InputError: images, boxes or labels under the same path have changed.
    """
    from carcls.data.dataset import Dataset

    file = folder / "dataset.json"
    if file.is_file() and Dataset.load(file).digest != dataset.digest:
        if demo:
            raise InputError(
                f"{folder.name!r} was begun on demo cars that another version of carsweep or Pillow drew, and scores "
                "on different images cannot be compared: start a new sweep with another --name."
            )
        raise InputError(
            f"--data must hold the images that {folder.name!r} was begun with; they have changed since. "
            "Scores on different images cannot be compared: give the sweep another --name."
        )
