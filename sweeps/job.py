"""A sweep from its spec to a registered model.

    checks (sweeps.job_checks) -> data set -> trials -> winner (sweeps.winner)

The expensive libraries are imported where they are used, so that a mistake is answered before they load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carcls.disk import is_out_of_reach
from carcls.errors import InputError, SweepStopped
from carcls.stages import StageStore
from sweeps.budget import Spent, cost_of, prices_of, used_up_note
from sweeps.clearing import DiskKeeper
from sweeps.holding import forget_request, hold
from sweeps.interrupts import last_words, uninterrupted
from sweeps.job_checks import Checked, fit_to_data, notes_of_spec, require_same_data
from sweeps.job_data import NOT_READ, data_notes, located, prepare_data
from sweeps.observers import Progress
from sweeps.sitting import Sitting
from sweeps.stage_news import DamageNews
from sweeps.sweep_file import forget, has_begun, write_file
from sweeps.waits import waiting
from sweeps.winner import conclude, summarize_data
from sweeps.winner_candidates import repeats_wanted

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.command import Command
    from sweeps.engine import EngineResult
    from sweeps.observers import Watcher
    from sweeps.plan import Plan
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult
    from sweeps.spec import SweepSpec
    from sweeps.tracking import Mirror

    # What is done with the trials of a sweep once they are over.
    Finish = Callable[[Sitting, EngineResult, Mirror, Callable[[str], None]], SweepResult]

# So long MLflow gets to hear of the end when this process cannot go on.
LAST_SECONDS = 15.0


def conclude_sweep(sitting: Sitting, engine: EngineResult, mirror: Mirror, tell: Callable[[str], None]) -> SweepResult:
    """Choose the winner, read its test score, register it and write everything down."""
    return conclude(sitting, engine.records, interrupted=engine.interrupted, mirror=mirror, tell=tell)


@contextmanager
def open_sitting(checked: Checked, command: Command, watcher: Progress) -> Iterator[Sitting]:
    """Read and pack the images of a sweep, and hold it for this process.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass.
        command: that it is run by.
        watcher: told of what happens.

    Raises:
        InputError: the images cannot be used, or another process runs the sweep.
    """
    started = time.monotonic()
    folder = command.root / str(checked.spec.name)
    for note in (*notes_of_spec(checked.spec), *checked.notes):
        watcher.note(note)
    with hold(folder):
        forget_request(folder)
        _start_ray_ahead(checked, folder, command)
        is_new = not has_begun(folder)
        if is_new:  # ``resume`` knows it while its images are read, unless they are wrong for it
            write_file(folder, "sweep", command.tracking_uri, [checked.spec])
        try:
            spec, dataset = _read_images(checked, command.root, watcher)
        except InputError:
            if is_new:
                forget(folder)
            raise
        write_file(folder, "sweep", command.tracking_uri, [spec])
        dataset.save(folder / "dataset.json")
        assert checked.tracking is not None
        yield Sitting(
            spec,
            command.root,
            checked.tracking,
            checked.share,
            StageStore(command.root / "stages"),
            dataset,
            started,
            command.address,
            command.changes,
            command.name if command.is_job else None,
        )


def _start_ray_ahead(checked: Checked, folder: Path, command: Command) -> None:
    """Begin to start Ray, and processes that load what trials need, if there are any to run."""
    share = checked.share
    if command.address is not None or ((folder / "result.json").is_file() and not command.changes):
        return
    from sweeps.session import start_ahead

    # Ray keeps a process ready for each core. Where far fewer trials run, they would fill the memory for nothing.
    start_ahead(folder / "ray.log", warm=not share.gpus and 2 * share.concurrency >= checked.machine.cores)


def _read_images(checked: Checked, out: Path, watcher: Progress) -> tuple[SweepSpec, Dataset]:
    """Return the spec as it fits the images, and these, read and packed."""
    stages = StageStore(out / "stages")
    damage = DamageNews(stages, watcher.note)
    dataset = prepare_data(checked.spec, out, stages, watcher, checked.reading)
    spec, changed = fit_to_data(checked.spec, len(dataset.splits.train))
    for note in (*data_notes(dataset), *changed):
        watcher.note(note)
    damage.check()
    require_same_data(out / str(spec.name), dataset, demo=spec.data.path is None)
    return spec, dataset


def run_trials_of(sitting: Sitting, watcher: Watcher, finish: Finish) -> SweepResult:
    """Run the trials that the sweep still owes, logged to MLflow; what is left of it is what ``finish`` returns."""
    from sweeps.tracking import mirror_of

    data = summarize_data(sitting.dataset)
    mirror = mirror_of(sitting.spec, sitting.folder, sitting.tracking, data, watcher.note)
    status: Literal["complete", "interrupted", "failed"] = "failed"
    try:
        with last_words(partial(mirror.close, "interrupted", LAST_SECONDS)):
            mirror.open()
            result = _run_and_finish(sitting, watcher, finish, mirror)
        status = result.status
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    except Exception as error:
        if not is_out_of_reach(error):
            raise
        said = " ".join(str(error).split())
        raise SweepStopped(
            f"{str(sitting.folder)!r} cannot be written or read ({said}). All that was written is kept. Once that is "
            f"mended: carsweep resume {sitting.called}"
        ) from error
    finally:
        with uninterrupted(), waiting(watcher.note, "closing the runs in MLflow …"):
            mirror.close(status)
    return result


def _run_and_finish(sitting: Sitting, watcher: Watcher, finish: Finish, mirror: Mirror) -> SweepResult:
    from carcls.families import known_costs

    keeper = DiskKeeper(sitting.spec, sitting.out, watcher.note)
    damage = DamageNews(sitting.stages, watcher.note)
    with waiting(watcher.note, "starting Ray and its processes, which load PyTorch …") as beginning:
        from sweeps.engine import run_trials
        from sweeps.engine_task import WarmUp

        warm_up = [WarmUp()] if sitting.address is None and not sitting.share.gpus else []
        engine = run_trials(
            sitting.spec,
            sitting.folder / "dataset.json",
            sitting.stages.root,
            sitting.folder,
            [beginning, mirror, watcher, keeper, damage, *warm_up],
            address=sitting.address,
            confirm=partial(repeats_wanted, sitting.spec) if sitting.spec.confirm else None,
            edits=sitting.edits,
            tell=watcher.note,
            on_status=watcher.on_status,
            costs=lambda config: known_costs(config, len(sitting.dataset.classes)),
            images=sitting.dataset.counts["train"] + sitting.dataset.counts["validation"],
        )
    with waiting(watcher.note, "writing to MLflow …"):
        mirror.bring_in_line(engine.records)
    if engine.used_up:
        watcher.note(used_up_note(engine.used_up, sitting.spec, engine.records, sitting.called))
    elif not engine.interrupted and _run_here(engine.records) < sitting.spec.trials:
        kept = " that keeps the constraints" if sitting.spec.constraints else ""
        watcher.note(f"The search space holds nothing new{kept}, so the sweep ends before its number of trials.")
    result = finish(sitting, engine, mirror, watcher.note)
    damage.check()
    keeper.check(last=True)
    if engine.stopped:
        raise SweepStopped(
            f"{engine.stopped} The sweep is stopped; all it has is kept. Once that is mended: carsweep resume "
            f"{sitting.called}"
        )
    return result


def _run_here(records: Sequence[TrialRecord]) -> int:
    return sum(r.sibling_of is None and r.confirms is None and not r.refused for r in records)


def plan_sweep(checked: Checked, command: Command, reading: Progress | None = None) -> Plan:
    """Return what a sweep would take; of images that were read before it tells what the run does.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass. The time is told for this machine.
        command: that it would be run by.
        reading: told while the images are read into the store, as the run does; None counts them by their listing.

    Raises:
        InputError: as the run does.
    """
    from carcls.data.dataset import DataSummary, find_dataset
    from sweeps.plan import make_plan

    spec, out, dataset = checked.spec, command.root, None
    if reading is not None:
        dataset = prepare_data(spec, out, StageStore(out / "stages"), reading, checked.reading)
    elif checked.reading is not None and (out / "stages").is_dir():
        dataset = find_dataset(located(spec.data, out), checked.reading, StageStore(out / "stages"))
    if dataset is not None:
        require_same_data(out / str(spec.name), dataset, demo=spec.data.path is None)
    summary = checked.listed if dataset is None else DataSummary.of(dataset)
    spec, changed = fit_to_data(spec, summary.train)
    found = [NOT_READ] if dataset is None else data_notes(dataset)
    prices, share = prices_of(spec), checked.share
    hour = Spent.of(share, 3600.0 * share.concurrency, wall=3600.0)
    return make_plan(
        spec,
        summary,
        checked.machine,
        hourly=cost_of(prices, hour) if prices else None,
        networks=checked.networks,
        notes=(*checked.notes, *found, *changed),
        images_read=dataset is not None,
    )
