"""A sweep from its spec to a registered model.

    checks (folder, data, tracking, resources, weights) -> data set -> trials -> winner (see sweeps.winner)

The expensive libraries are imported where they are used, so that a mistake is answered before they load.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from carcls.errors import InputError, OutputError, SweepStopped
from carcls.stages import StageStore
from sweeps.budget import budget_of, hourly_cost
from sweeps.clearing import DiskKeeper
from sweeps.holding import forget_request, hold
from sweeps.ledger_text import used_up_note
from sweeps.observers import FanOut, Progress
from sweeps.remembered import remember
from sweeps.winner import Sitting, conclude, summarize_data, sweep_id, write_text
from sweeps.winner_candidates import keep_choice, repeats_wanted

if TYPE_CHECKING:
    from carcls.config import DataConfig, TrialConfig
    from carcls.data.dataset import Dataset, DataSummary
    from sweeps.engine import EngineResult, Observer
    from sweeps.plan import Plan
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult
    from sweeps.spec import SweepSpec
    from sweeps.tracking import SweepTracker
    from sweeps.tracking_store import Tracking

DEMO_NAME = "demo-cars"
MOST_FINDINGS = 20


def settle_spec(spec: SweepSpec) -> SweepSpec:
    """Return the spec with a name (its own, or ``<family>-<date>-<time>``) and with an absolute path of its data."""
    name = spec.name or f"{spec.family}-{time.strftime('%Y%m%d-%H%M%S')}"
    data = spec.data
    if data.path is not None:
        data = data.model_copy(update={"path": str(Path(data.path).expanduser().absolute())})
    return spec.model_copy(update={"name": name, "data": data})


def base_settings(spec: SweepSpec) -> dict[str, Any]:
    """Return every setting of a trial that changes nothing of what the sweep starts from."""
    return spec.trial_config({}).model_dump()


def run_sweep(
    spec: SweepSpec,
    out: Path,
    tracking_uri: str | None,
    *,
    observer: Observer,
    progress: Progress,
    address: str | None = None,
    edits: Sequence[str] | None = None,
) -> SweepResult:
    """Run a sweep, or go on with it; when nothing remains to be done, answer with what it left.

    Args:
        spec: with a name (see ``settle_spec``).
        out: folder of all sweeps; made when missing. On a cluster every machine must see it under this path.
        tracking_uri: MLflow's; None is a database under ``out``.
        observer: told of every trial.
        progress: told of everything else.
        address: of a running Ray cluster; None runs the trials on this machine.
        edits: what was changed in the spec of a sweep that goes on, in words; None allows no change of its search.

    Raises:
        InputError: something given cannot be used; no trial has started.
    """
    with open_sitting(spec, out, tracking_uri, progress=progress, address=address, edits=edits) as sitting:
        return run_trials_of(sitting, observer, progress, conclude_sweep)


def conclude_sweep(
    sitting: Sitting, engine: EngineResult, tracker: SweepTracker, tell: Callable[[str], None]
) -> SweepResult:
    """Choose the winner, read its test score, register it and write everything down."""
    return conclude(sitting, engine.records, interrupted=engine.interrupted, tracker=tracker, tell=tell)


@contextmanager
def open_sitting(
    spec: SweepSpec,
    out: Path,
    tracking_uri: str | None,
    *,
    progress: Progress,
    address: str | None = None,
    edits: Sequence[str] | None = None,
) -> Iterator[Sitting]:
    """Check everything that can be checked, read and pack the data, and hold the sweep for this process.

    Arguments and errors as ``run_sweep``.
    """
    started = time.monotonic()
    out = out.expanduser().absolute()
    require_data(spec.data)
    claim_folder(spec, out, edited=edits is not None)
    from sweeps.tracking import open_tracking

    with hold(out / str(spec.name)):
        forget_request(out / str(spec.name))
        sitting = _sit_down(spec, out, open_tracking(tracking_uri, out), progress, started, address, edits)
        remember(sitting.folder, "sweep", tracking_uri)
        yield sitting


def check_sweep(spec: SweepSpec, out: Path, address: str | None, *, edited: bool = False) -> None:
    """Check all that can be checked before any image is read; arguments and errors as ``run_sweep``."""
    require_data(spec.data)
    claim_folder(spec, out, edited=edited)
    _check_trials(spec, out, address)


def check_against_data(spec: SweepSpec, dataset: Dataset) -> None:
    """Check that the sweep's settings fit the data set.

    Raises:
        InputError: they do not, such as more neighbours than the gallery holds.
    """
    from carcls.families import check_data

    check_data(_configs_to_check(spec), dataset)


def _sit_down(
    spec: SweepSpec,
    out: Path,
    tracking: Tracking,
    progress: Progress,
    started: float,
    address: str | None,
    edits: Sequence[str] | None,
) -> Sitting:
    spec = keep_choice(spec, out / str(spec.name)) if edits is None else spec
    for note in _check_trials(spec, out, address):
        progress.note(note)
    stages = StageStore(out / "stages")
    dataset = _prepare_data(spec, out, stages, progress)
    sitting = Sitting(spec, out, tracking, stages, dataset, started, address, edits)
    check_against_data(spec, dataset)
    require_same_data(sitting)
    sitting.folder.mkdir(exist_ok=True)
    write_text(sitting.folder / "spec.yaml", spec.to_yaml())
    dataset.save(sitting.folder / "dataset.json")
    return sitting


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
    from sweeps.spec import SweepSpec as Spec

    file = out / str(spec.name) / "spec.yaml"
    if not edited and file.is_file() and Spec.from_file(file).digest != spec.digest:
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


def _check_trials(spec: SweepSpec, out: Path, address: str | None) -> list[str]:
    """Check that this machine, or the cluster, and the weights suffice; return what the user should know."""
    from carcls.families import preflight
    from sweeps.cluster import machines_of
    from sweeps.resources import trial_resources

    trial_resources(spec, *(machines_of(address, out) if address else ()))
    notes = [spec.note] if spec.note else []
    return [*notes, *spec.goals.lines(), *spec.goals.notes, *preflight(_configs_to_check(spec))]


def _configs_to_check(spec: SweepSpec) -> list[TrialConfig]:
    """Return trials that together need every backbone, weights, image size and number of neighbours of the sweep."""
    configs = [config for _, config in spec.experiment_configs()]
    if spec.trials <= len(configs):
        return configs[: spec.trials]
    needs = [
        name for name in ("backbone", "weights", "image_size", "pooling", "depth", "stem", "k") if name in spec.search
    ]
    combinations = itertools.product(*(spec.search[name].ends() for name in needs))
    return [*configs, *(spec.trial_config(dict(zip(needs, values, strict=True))) for values in combinations)]


def _prepare_data(spec: SweepSpec, out: Path, stages: StageStore, progress: Progress) -> Dataset:
    from carcls.data.dataset import prepare_dataset

    dataset = prepare_dataset(
        _with_demo(spec.data, out, progress), stages, base_settings(spec)["image_size"], progress=progress.packing
    )
    summary = summarize_data(dataset)
    counts = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    progress.note(f"{summary.name}: {summary.classes} classes; images: {counts}.")
    for note in dataset.notes:
        progress.note(note)
    _list(progress, [f"left out, unreadable: {path} ({reason})" for path, reason in dataset.quarantined])
    _list(progress, [f"test image duplicates a training image: {test} = {train}" for test, train in dataset.duplicates])
    return dataset


def _list(progress: Progress, findings: list[str]) -> None:
    for finding in findings[:MOST_FINDINGS]:
        progress.note(finding)
    if len(findings) > MOST_FINDINGS:
        progress.note(f"… and {len(findings) - MOST_FINDINGS} more; all are in dataset.json in the sweep's folder.")


def _with_demo(data: DataConfig, out: Path, progress: Progress) -> DataConfig:
    if data.path is not None:
        return data
    from carcls.data.demo import demo_folder_name, write_demo

    folder = out / "data" / demo_folder_name()
    if not folder.exists():
        progress.note(f"rendering demo cars into {folder}")
    write_demo(folder)
    return data.model_copy(update={"path": str(folder), "name": data.name or DEMO_NAME})


class Finish(Protocol):
    """What is done with the trials of a sweep once they are over; returns its result."""

    def __call__(
        self, sitting: Sitting, engine: EngineResult, tracker: SweepTracker, tell: Callable[[str], None]
    ) -> SweepResult:
        """Read the winner's test score, register it, write down what there is."""


def run_trials_of(
    sitting: Sitting, observer: Observer, progress: Progress, finish: Finish, *, job: str | None = None
) -> SweepResult:
    """Run the trials that the sweep still owes, logged to MLflow, and hand them to ``finish``.

    ``job`` is the ``--name`` of the command when it is not the sweep's own.
    """
    from carcls.families import known_costs
    from sweeps.engine import run_trials

    sitting = replace(sitting, job=job)
    tracker, keeper = _open_tracker(sitting, progress), DiskKeeper(sitting.spec, sitting.out, progress.note)
    status: Literal["complete", "interrupted", "failed"] = "failed"
    try:
        engine = run_trials(
            sitting.spec,
            sitting.folder / "dataset.json",
            sitting.stages.root,
            sitting.folder,
            FanOut([tracker, observer, keeper]),
            address=sitting.address,
            confirm=partial(repeats_wanted, sitting.spec) if sitting.spec.confirm else None,
            edits=sitting.edits,
            tell=progress.note,
            stands=progress.stands,
            costs=lambda config: known_costs(config, len(sitting.dataset.classes)),
        )
        tracker.rebuild(engine.records)
        if engine.used_up:
            name = job or sitting.folder.name
            progress.note(used_up_note(engine.used_up, sitting.spec, sitting.folder, engine.records, name))
        elif not engine.interrupted and _run_here(engine.records) < sitting.spec.trials:
            kept = " that keeps the constraints" if sitting.spec.constraints else ""
            progress.note(f"The search space holds nothing new{kept}, so the sweep ends before its number of trials.")
        result = finish(sitting, engine, tracker, progress.note)
        keeper.check(last=True)
        if engine.stopped:
            raise SweepStopped(
                f"{engine.stopped} The sweep is stopped; all it has is kept. Once that is mended: carsweep resume "
                f"{job or sitting.spec.name}"
            )
        status = "interrupted" if result.interrupted else "complete" if result.best else "failed"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        tracker.close(status)
    return result


def _run_here(records: Sequence[TrialRecord]) -> int:
    return sum(r.sibling_of is None and r.confirms is None and not r.refused for r in records)


def _open_tracker(sitting: Sitting, progress: Progress) -> SweepTracker:
    from sweeps.tracking import SweepTracker

    spec, summary = sitting.spec, summarize_data(sitting.dataset)
    return SweepTracker(
        sitting.tracking,
        family=spec.family,
        sweep_id=sweep_id(sitting.folder),
        name=str(spec.name),
        spec_yaml=spec.to_yaml(),
        details={"data": summary.name, "data_digest": summary.digest, "seed": spec.seed, "spec_digest": spec.digest},
        config_of=lambda settings, experiment: spec.trial_config(settings, experiment).model_dump(),
        warn=progress.note,
        note=spec.note,
    )


def plan_sweep(spec: SweepSpec, address: str | None = None) -> Plan:
    """Return what the sweep would take; reads the list of the images, but no image, and looks for no weights.

    The time is told for this machine. What a trial asks for is compared with it, unless a cluster's address is given.

    Raises:
        DataError: as ``require_data``.
        InputError: a trial asks for more than the machine has.
    """
    from carcls.data.dataset import summarize
    from sweeps.plan import make_plan
    from sweeps.resources import trial_resources

    prices, hourly = budget_of(spec).prices, None
    if address is None:
        share = trial_resources(spec)
        hourly = hourly_cost(prices, share.cpus, share.gpus, share.concurrency) if prices else None
    return make_plan(spec, summarize(spec.data) if spec.data.path else _expected_demo(spec.data), hourly=hourly)


def _expected_demo(data: DataConfig) -> DataSummary:
    """Count the demo cars before they are rendered."""
    from carcls.data.dataset import DataSummary
    from carcls.data.demo import demo_counts

    classes, train, test = demo_counts()
    validation = round(train * data.validation_fraction)
    return DataSummary(data.name or DEMO_NAME, train + test, classes, train - validation, validation, test)
