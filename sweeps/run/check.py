"""What is checked before a sweep begins: its data, its folder, its machine and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from carcls.catalog import FAMILIES
from carcls.errors import InputError, OutputError
from carcls.gpus import busy_note, gpus_seen
from sweeps.engine.resources import Machine, Share, least_seconds, processes_of, this_machine
from sweeps.engine.shares import share_of, share_text
from sweeps.run.data import data_notes, list_images, unpacked_note
from sweeps.spec.loading import cut_neighbours, with_neighbours_of
from sweeps.spec.mistakes import Mistakes
from sweeps.spec.sweep_file import has_begun, is_sweep, read_file, require_kind

if TYPE_CHECKING:
    from carcls.catalog import BackboneRecord
    from carcls.data.config import DataSummary
    from carcls.data.dataset import Dataset
    from carcls.data.manifest import Manifest
    from sweeps.run.command import Command
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.store import Tracking


@dataclass(frozen=True, slots=True)
class Checked:
    """A sweep that may begin to read its images.

    Attributes:
        spec: as it is to be run.
        notes: what the user should know, a sentence each.
        machine: what this process may use here.
        share: of a trial, as far as it is known.
        gpu_share: which part of a GPU trials get, and why, in a sentence; empty without GPUs, or where it was given.
        networks: figures of the backbones that trials need, by name.
        tracking: the MLflow store, checked; None in a plan that names none.
        listed: the data set's numbers by its listing.
        listing: of its images; None for demo cars that are not drawn yet.
    """

    spec: SweepSpec
    notes: tuple[str, ...]
    machine: Machine
    share: Share
    gpu_share: str
    networks: Mapping[str, BackboneRecord]
    tracking: Tracking | None
    listed: DataSummary
    listing: Manifest | None


# What decides in how many processes a trial is trained, and whether it can be.
_OF_PROCESSES = ("processes", "sync_batch_norm", "backbone", "batch_norm", "unfreezing", "epochs", "batch_size")
# What decides which networks trials need, with which weights.
_OF_NETWORKS = ("backbone", "weights", "image_size", "pooling", "depth", "stem")


def check_sweeps(command: Command, *, plan: bool = False) -> tuple[Checked, ...]:
    """Check all that can be checked of a command before an image is read: the one door of runs and plans.

    What its sweeps share (images, machines, MLflow) is asked once.

    Args:
        command: with absolute paths of its data.
        plan: whether nothing will be run: ``out`` is not made, and no weights are downloaded.

    Raises:
        InputError: something given cannot be used; the message has every mistake, each with its remedy.
    """
    from carcls.families import preflight

    out, mistakes, listed, listing = command.root, Mistakes(), None, None
    with mistakes:
        listed, listing = list_images(command.specs[0].data, out)
    with mistakes:
        require_writable(out, make=not mistakes.found and (not plan or command.address is not None))
    tracking, machine, machines = _ask_around(command, mistakes, plan=plan)
    with mistakes:
        least_seconds()
    ready: list[tuple[SweepSpec, Share]] = []
    for spec in command.specs:
        with mistakes:
            spec = claim_folder(spec, out, edited=command.changes is not None)
        if machines:
            with mistakes:
                share = share_of(spec, out / "stages", machines)
                require_processes(spec, share, machines)
                ready.append((spec, share))
        if listed is not None:
            with mistakes:
                fit_to_data(spec, listed.train, spare=listed.validation)
    mistakes.raise_all()
    assert listed is not None
    checked: list[Checked] = []
    uses_gpus = command.address is None and any(share.gpus for _, share in ready)
    place = unpacked_note(command.specs[0].data, listing, out)
    once = [*filter(None, (place, busy_note(gpus_seen()) if uses_gpus else "", tracking.note if tracking else ""))]
    for spec, share in ready:
        with mistakes:  # last, since weights may have to be asked for on the internet
            found, networks = preflight(spec.configs_to_check(*_OF_NETWORKS), out / "stages", download=not plan)
            idle = spec.prices.idle_notes(share.gpus, limited=spec.max_cost is not None) if spec.prices else []
            notes = (*found, *idle, *([] if checked else once))
            gpus = share_text(spec, out / "stages", machines)
            checked.append(Checked(spec, notes, machine, share, gpus, networks, tracking, listed, listing))
    mistakes.raise_all()
    return tuple(checked)


def _ask_around(
    command: Command, mistakes: Mistakes, *, plan: bool
) -> tuple[Tracking | None, Machine, Sequence[Machine]]:
    """Return MLflow's store, this machine, and those that run the trials: none where the cluster cannot be asked.

    A folder of runs that cannot be has no database, and no cluster sees it. A plan makes no database.
    """
    tracking, machine, has_folder = None, this_machine(), not mistakes.found
    machines: Sequence[Machine] = () if command.address else (machine,)
    is_there = has_folder and (not plan or (command.root / "mlflow.db").exists())
    if command.tracking_uri is not None or is_there:
        from sweeps.tracking.store import check_tracking

        with mistakes:
            tracking = check_tracking(command.tracking_uri, command.root, plan=plan)
            _require_names(command, tracking)
    if command.address is not None and has_folder:
        from sweeps.engine.cluster import machines_of

        with mistakes:
            machines = machines_of(command.address, command.root)
    return tracking, machine, machines


def _require_names(command: Command, tracking: Tracking) -> None:
    """Check that the names that a user gave to models are of no other family, if the store has any."""
    named = [spec for spec in command.specs if spec.model_name]
    if named and (tracking.file is None or tracking.file.is_file()):
        from sweeps.tracking.naming import require_family
        from sweeps.tracking.store import explained, patience

        with explained(tracking), patience():
            for spec in named:
                require_family(tracking.client(), str(spec.model_name), spec.family)


def fit_to_data(spec: SweepSpec, gallery: int, *, spare: int = 0) -> tuple[SweepSpec, list[str]]:
    """Check that the sweep's settings fit the data set; return the spec that does, and what was changed, in words.

    Args:
        spec: of the sweep.
        gallery: training images, among which neighbours are found.
        spare: validation images that may still become training images, since near-duplicates have one side.

    Raises:
        InputError: settings that were given do not fit, such as more neighbours than there are images.
    """
    fitted = cut_neighbours(spec, gallery)
    most = max(config.k for config in fitted.configs_to_check("k")) if FAMILIES[spec.family].neighbours else 0
    if most > gallery + spare:
        raise InputError(
            f"k must be at most {gallery}, the training images that form the gallery, got {most}. "
            f"Use --set k={min(5, gallery)}, or search.k with lower numbers."
        )
    if fitted is spec:
        return spec, []
    return fitted, [f"k is searched over {fitted.search['k']} only: the gallery has {gallery} images."]


def require_processes(spec: SweepSpec, share: Share, machines: Sequence[Machine]) -> None:
    """Check that trials can be trained in as many processes as their share asks for.

    Raises:
        InputError: none would use the GPUs that each gets; or there are fewer images in a batch, or cores, than
            processes, or these are not the GPUs, or what needs GPUs is asked for without any.
    """
    if share.gpus <= 1 and "processes" not in {*spec.config, *spec.fixed, *spec.search}.union(*spec.starts):
        return
    trained = [config for config in spec.configs_to_check(*_OF_PROCESSES) if config.trains_backbone]
    if share.gpus > 1 and not trained:
        raise InputError(
            "gpus_per_trial must be at most 1 where no trial trains its backbone: a head on cached features has one "
            f"process, got {share.gpus:g}. Use --gpus-per-trial 1, or --set unfreezing=full."
        )
    cores = max(machine.cores for machine in machines)
    for config in trained:
        count = processes_of(config, share.gpus)
        if share.gpus and config.processes not in (1, count):
            raise InputError(
                f"processes must be the GPUs of a trial ({count}), one for each, got {config.processes}. "
                f"Use --gpus-per-trial {config.processes}, and leave processes out."
            )
        if not share.gpus and count > cores:
            raise InputError(
                f"processes must be at most the cores of a machine ({cores}) where trials have no GPUs, got {count}. "
                "Use --set processes=1: they would share the cores, so several are no faster."
            )
        if count > config.batch_size:
            raise InputError(
                f"batch_size must be at least the processes among which a batch is divided ({count}), got "
                f"{config.batch_size}. Use --set batch_size={count}, or fewer GPUs or processes for each trial."
            )
        if config.sync_batch_norm and count > 1 and not share.gpus:
            raise InputError(
                "sync_batch_norm must be false where trials have no GPUs: PyTorch synchronises BatchNorm on GPUs only, "
                "got true. Use --set sync_batch_norm=false."
            )


def fit_to_images(checked: Checked, command: Command, dataset: Dataset) -> tuple[SweepSpec, list[str]]:
    """Return the spec as it fits images that were read, and what is to be told of these and of it, a sentence each.

    Raises:
        InputError: it was begun with other images, or a sweep of the command does not fit these.
    """
    spec, images = checked.spec, len(dataset.splits.train)
    require_same_data(command.root / str(spec.name), dataset)
    for other in command.specs:
        fit_to_data(other, images)
    spec, changed = fit_to_data(spec, images)
    return spec, [*data_notes(dataset), *changed]


def require_writable(out: Path, *, make: bool) -> None:
    """Make ``out``, or see that it could be made.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        if make:
            out.mkdir(parents=True, exist_ok=True)
        there = next(place for place in (out, *out.parents) if place.exists())
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"--out must be a folder that can be written, got {str(out)!r} ({error.strerror}). Choose another --out."
        ) from None


def claim_folder(spec: SweepSpec, out: Path, *, edited: bool = False) -> SweepSpec:
    """Check that the sweep can live in ``out`` under its name; return it as it goes on if it has begun there.

    A command that goes on and says nothing of ``confirm`` and ``refit`` keeps them: it must not crown an unconfirmed
    winner, which would be evaluated on the test images.

    Raises:
        InputError: the name belongs to a job, or to a sweep of another spec that was not ``edited`` on purpose.
    """
    folder = out / str(spec.name)
    require_kind(folder, "sweep")
    if edited or not is_sweep(folder):
        return spec
    file = read_file(folder)
    (before,) = file.read_specs()
    if has_begun(folder) and before.digest != with_neighbours_of(before, spec).digest:
        raise InputError(
            f"--name must be new or belong to a sweep of the same spec, got {spec.name!r}, which was begun with other "
            f"settings (see {file.path}). Give another --name, or those settings; trials, hours and resources may "
            f"change. To change the sweep itself: carsweep resume {spec.name} --set KEY=VALUE."
        )
    return spec.model_copy(update={"confirm": spec.confirm or before.confirm, "refit": spec.refit or before.refit})


def require_same_data(folder: Path, dataset: Dataset) -> None:
    """Check that the sweep in ``folder``, if there is one, goes on with the images it was begun with.

    Raises:
        InputError: images, boxes or labels under the same path have changed, or another version drew the demo cars.
    """
    file = folder / "dataset.json"
    if file.is_file() and type(dataset).load(file).digest != dataset.digest:
        raise InputError(
            f"{folder.name!r} was begun on other images: they have changed since, or are demo cars that another "
            "version of carsweep or Pillow drew. Scores on different images cannot be compared: start a new sweep with "
            "another --name."
        )
