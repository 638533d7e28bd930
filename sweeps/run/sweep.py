"""A sweep from its spec to a registered model.

The expensive libraries are imported where they are used, so that a mistake is answered before they load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from carcls.disk import is_out_of_reach
from carcls.errors import InputError, SweepStopped
from carcls.stages import StageStore
from sweeps.interrupts import last_words, uninterrupted
from sweeps.lock import forget_request, locked
from sweeps.results.result import SweepResult, used_up_note
from sweeps.run.check import Checked, fit_to_data, notes_of_spec, require_same_data
from sweeps.run.cleaning import DiskKeeper
from sweeps.run.data import NOT_READ, data_notes, located, prepare_data
from sweeps.run.session import SweepSession
from sweeps.run.stages import DamageNews
from sweeps.run.winner import conclude, repeats_wanted
from sweeps.spec.sweep_file import forget, has_begun, write_file
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.engine.engine import EngineResult
    from sweeps.engine.observers import Observer, Progress, Watcher
    from sweeps.engine.session import RaySession
    from sweeps.run.command import Command
    from sweeps.run.plan import Plan
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.mirror import Mirror

    # What is done with the trials of a sweep once they are over.
    Finish = Callable[[SweepSession, EngineResult, Mirror, Callable[[str], None]], SweepResult]

# So long MLflow gets to hear of the end when this process cannot go on.
LAST_SECONDS = 15.0


def run_sweep(
    checked: Checked,
    command: Command,
    ray: RaySession,
    watcher: Watcher,
    *,
    finish: Finish = conclude,
    later: Sequence[Checked] = (),
) -> SweepResult:
    """Run the trials that a sweep still owes; choose, test and register the winner.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass.
        command: that it is run by.
        ray: runs the trials.
        watcher: told of what happens.
        finish: makes the result of what the trials left, and writes it down.
        later: sweeps of the same images, which must fit them too.

    Raises:
        InputError: the images cannot be used, or another process runs the sweep.
        SweepStopped: trials kept failing, or the sweep's folder is full or gone; nothing is lost.
    """
    from sweeps.tracking.mirror import mirror_of

    with open_session(checked, command, ray, watcher) as session:
        for each in later:
            fit_to_data(each.spec, len(session.dataset.splits.train))
        mirror = mirror_of(session.spec, session.folder, session.tracking, session.dataset.summary, watcher.note)
        status: Literal["complete", "interrupted", "failed"] = "failed"
        with last_words(partial(mirror.close, "interrupted", LAST_SECONDS)):
            try:
                with _loss_told(session):
                    mirror.open()
                    result = _run_and_finish(session, watcher, finish, mirror)
                status = result.status
            except KeyboardInterrupt:
                status = "interrupted"
                raise
            finally:
                with uninterrupted(), Waiting(watcher.note, "closing the runs in MLflow …"):
                    mirror.close(status)
    return result


@contextmanager
def open_session(checked: Checked, command: Command, ray: RaySession, watcher: Progress) -> Iterator[SweepSession]:
    """Read and pack the images of a sweep, and keep its folder for this process; arguments as ``run_sweep``.

    Raises:
        InputError: the images cannot be used, or another process runs the sweep.
    """
    started, folder = time.monotonic(), command.root / str(checked.spec.name)
    for note in (*notes_of_spec(checked.spec), *checked.notes):
        watcher.note(note)
    with locked(folder):
        forget_request(folder)
        if command.address is None and (command.changes or not (folder / "result.json").is_file()):
            # Ray keeps a process ready for each core. Where far fewer trials run, they fill the memory for nothing.
            share, cores = checked.share, checked.machine.cores
            ray.start_ahead(folder / "ray.log", preload=not share.gpus and 2 * share.concurrency >= cores)
        is_new = not has_begun(folder)
        if is_new:  # ``resume`` knows it while its images are read, unless they are wrong for it
            write_file(folder, "sweep", command.tracking_uri, [checked.spec])
        stages = StageStore(command.root / "stages")
        try:
            spec, dataset = _read_images(checked, command, stages, watcher)
        except InputError:
            if is_new:
                forget(folder)
            raise
        write_file(folder, "sweep", command.tracking_uri, [spec], stages.take_used())
        dataset.save(folder / "dataset.json")
        assert checked.tracking is not None
        yield SweepSession(spec, command, checked.tracking, checked.share, stages, dataset, ray, started)


def _read_images(
    checked: Checked, command: Command, stages: StageStore, watcher: Progress
) -> tuple[SweepSpec, Dataset]:
    """Return the spec as it fits the images, and these, read and packed."""
    damage = DamageNews(stages, watcher.note)
    dataset = prepare_data((checked.spec, *command.specs), command.root, stages, watcher, checked.reading)
    spec, changed = fit_to_data(checked.spec, len(dataset.splits.train))
    for note in (*data_notes(dataset), *changed):
        watcher.note(note)
    damage.check()
    require_same_data(command.root / str(spec.name), dataset, demo=spec.data.path is None)
    return spec, dataset


@contextmanager
def _loss_told(session: SweepSession) -> Iterator[None]:
    """Say it in one sentence when the sweep's folder is full or gone."""
    try:
        yield
    except Exception as error:
        if not is_out_of_reach(error):
            raise
        said = " ".join(str(error).split())
        raise SweepStopped(
            f"{str(session.folder)!r} cannot be written or read ({said}). All that was written is kept. Once that is "
            f"mended: carsweep resume {session.called}"
        ) from error


def _run_and_finish(session: SweepSession, watcher: Watcher, finish: Finish, mirror: Mirror) -> SweepResult:
    keeper = DiskKeeper(session.spec, session.out, watcher.note)
    damage = DamageNews(session.stages, watcher.note)
    engine = _run_trials(session, watcher, [mirror, watcher, keeper, damage])
    with Waiting(watcher.note, "writing to MLflow …"):
        mirror.bring_in_line(engine.records)
    _tell_what_is_left(session, engine, watcher.note)
    result = finish(session, engine, mirror, watcher.note)
    damage.check()
    keeper.check(last=True)
    if engine.stopped:
        raise SweepStopped(
            f"{engine.stopped} The sweep is stopped; all it has is kept. Once that is mended: carsweep resume "
            f"{session.called}"
        )
    return result


def _run_trials(session: SweepSession, watcher: Progress, observers: Sequence[Observer]) -> EngineResult:
    from carcls.families import known_costs

    spec, dataset = session.spec, session.dataset
    with Waiting(watcher.note, "starting Ray and its processes, which load PyTorch …") as beginning:
        from sweeps.engine.engine import run_trials
        from sweeps.engine.task import Preload

        is_here = session.ray.address is None and not session.share.gpus
        preload = [Preload(session.ray, session.share.concurrency)] if is_here else []
        return run_trials(
            spec,
            session.folder / "dataset.json",
            session.stages.root,
            session.folder,
            [beginning, *observers, *preload],
            session.ray,
            confirm=partial(repeats_wanted, spec) if spec.confirm else None,
            edits=session.command.changes,
            tell=watcher.note,
            on_status=watcher.on_status,
            costs=lambda config: known_costs(config, len(dataset.classes)),
            images=dataset.counts["train"] + dataset.counts["validation"],
        )


def _tell_what_is_left(session: SweepSession, engine: EngineResult, tell: Callable[[str], None]) -> None:
    spec = session.spec
    if engine.used_up:
        tell(used_up_note(engine.used_up, spec, engine.records, session.called))
        return
    run_here = sum(r.sibling_of is None and r.confirms is None and not r.refused for r in engine.records)
    if not engine.interrupted and run_here < spec.trials:
        kept = " that keeps the constraints" if spec.constraints else ""
        tell(f"The search space holds nothing new{kept}, so the sweep ends before its number of trials.")


def plan_sweep(checked: Checked, command: Command, reading: Progress | None = None) -> Plan:
    """Return what a sweep would take; of images that were read before it tells what the run does.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass. The time is told for this machine.
        command: that it would be run by.
        reading: told while the images are read into the store, as the run does; None counts them by their listing.

    Raises:
        InputError: as the run does.
    """
    from carcls.data.dataset import find_dataset
    from sweeps.run.plan import Plan

    spec, out, dataset = checked.spec, command.root, None
    if reading is not None:
        dataset = prepare_data((spec, *command.specs), out, StageStore(out / "stages"), reading, checked.reading)
    elif checked.reading is not None and (out / "stages").is_dir():
        dataset = find_dataset(located(spec.data, out), checked.reading, StageStore(out / "stages"))
    if dataset is not None:
        require_same_data(out / str(spec.name), dataset, demo=spec.data.path is None)
    summary = checked.listed if dataset is None else dataset.summary
    spec, changed = fit_to_data(spec, summary.train)
    found = [NOT_READ] if dataset is None else data_notes(dataset)
    prices, share = spec.prices, checked.share
    hour = share.spend(3600.0 * share.concurrency, wall=3600.0)
    return Plan(
        spec,
        summary,
        checked.machine,
        hourly=prices.cost_of(hour) if prices else None,
        networks=checked.networks,
        notes=(*checked.notes, *found, *changed),
        images_read=dataset is not None,
    )
