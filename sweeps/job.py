"""A sweep from its spec to a registered model.

    checks (folder, data, tracking, resources, weights) -> data set -> trials -> winner (see sweeps.winner)

The expensive libraries are imported where they are used, so that a mistake is answered before they load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from carcls.disk import is_out_of_reach
from carcls.errors import InputError, SweepStopped
from carcls.stages import StageStore
from sweeps.budget import budget_of, hourly_cost
from sweeps.clearing import DiskKeeper
from sweeps.holding import forget_request, hold
from sweeps.interrupts import last_words, uninterrupted
from sweeps.job_checks import Checked, check_sweep, fit_to_data, notes_of_spec, require_same_data
from sweeps.job_data import NOT_READ, data_notes, located, prepare_data
from sweeps.ledger_text import used_up_note
from sweeps.observers import FanOut, Progress
from sweeps.remembered import SPEC, forget, has_begun, remember
from sweeps.resources import this_machine, trial_resources
from sweeps.sitting import Sitting
from sweeps.stage_news import DamageNews
from sweeps.waits import waiting
from sweeps.winner import conclude, summarize_data, sweep_id, write_text
from sweeps.winner_candidates import repeats_wanted

if TYPE_CHECKING:
    from sweeps.engine import EngineResult, Observer
    from sweeps.plan import Plan
    from sweeps.record import TrialRecord
    from sweeps.result import SweepResult
    from sweeps.spec import SweepSpec
    from sweeps.tracking import SweepTracker


# So long MLflow gets to hear of the end when this process cannot go on.
LAST_SECONDS = 5.0


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
        InputError: something given cannot be used; no trial has started, unless it is MLflow's database that turns
            out to be unusable when it is opened.
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
    from sweeps.session import one_session

    started = time.monotonic()
    out = out.expanduser().absolute()
    with waiting(progress.note, "checking data, machines, weights and MLflow …"):
        checked = check_sweep(spec, out, tracking_uri, address, edited=edits is not None)
    folder = out / str(spec.name)
    for note in (*notes_of_spec(spec), *checked.notes):
        progress.note(note)
    # Ray ends when all else is done: the winner registered, the result written, MLflow's runs closed.
    with hold(folder), one_session():
        forget_request(folder)
        _start_ray_ahead(checked, folder, address, edits)
        with _known_from_now_on(checked.spec, folder, tracking_uri):
            sitting = _sit_down(checked, out, progress, started, address, edits)
        remember(folder, "sweep", tracking_uri)
        yield sitting


def _start_ray_ahead(checked: Checked, folder: Path, address: str | None, edits: Sequence[str] | None) -> None:
    """Begin to start Ray, and processes that load what trials need, if there are any to run."""
    share = checked.share
    if address is not None or ((folder / "result.json").is_file() and not edits):
        return
    from sweeps.session import start_ahead

    # Ray keeps a process ready for each core. Where far fewer trials run, they would fill the memory for nothing.
    start_ahead(folder / "ray.log", warm=not share.gpus and 2 * share.concurrency >= this_machine().cores)


@contextmanager
def _known_from_now_on(spec: SweepSpec, folder: Path, tracking_uri: str | None) -> Iterator[None]:
    """Write down a new sweep before its images are read, so that ``resume`` knows it; unless they are wrong for it."""
    if has_begun(folder):
        yield
        return
    remember(folder, "sweep", tracking_uri)
    write_text(folder / SPEC, spec.to_yaml())
    try:
        yield
    except InputError:
        forget(folder)
        raise


def _sit_down(
    checked: Checked,
    out: Path,
    progress: Progress,
    started: float,
    address: str | None,
    edits: Sequence[str] | None,
) -> Sitting:
    stages = StageStore(out / "stages")
    damage = DamageNews(stages, progress.note)
    dataset = prepare_data(checked.spec, out, stages, progress)
    spec, changed = fit_to_data(checked.spec, len(dataset.splits.train))
    for note in (*data_notes(dataset), *changed):
        progress.note(note)
    damage.check()
    assert checked.tracking is not None
    sitting = Sitting(spec, out, checked.tracking, stages, dataset, started, address, edits)
    require_same_data(sitting.folder, dataset, demo=spec.data.path is None)
    sitting.folder.mkdir(exist_ok=True)
    write_text(sitting.folder / SPEC, spec.to_yaml())
    dataset.save(sitting.folder / "dataset.json")
    return sitting


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
    sitting = replace(sitting, job=job)
    tracker = _make_tracker(sitting, progress)
    status: Literal["complete", "interrupted", "failed"] = "failed"
    try:
        with last_words(partial(tracker.close, "interrupted", LAST_SECONDS)):
            tracker.open()
            result = _run_and_finish(sitting, observer, progress, finish, tracker)
        status = "interrupted" if result.interrupted else "complete" if result.best else "failed"
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
        with uninterrupted(), waiting(progress.note, "closing the runs in MLflow …"):
            tracker.close(status)
    return result


def _run_and_finish(
    sitting: Sitting, observer: Observer, progress: Progress, finish: Finish, tracker: SweepTracker
) -> SweepResult:
    from carcls.families import known_costs

    keeper = DiskKeeper(sitting.spec, sitting.out, progress.note)
    damage = DamageNews(sitting.stages, progress.note)
    with waiting(progress.note, "starting Ray and its processes, which load PyTorch …") as beginning:
        from sweeps.engine import run_trials
        from sweeps.engine_task import WarmUp

        warm_up = [WarmUp()] if sitting.address is None and not trial_resources(sitting.spec).gpus else []
        engine = run_trials(
            sitting.spec,
            sitting.folder / "dataset.json",
            sitting.stages.root,
            sitting.folder,
            FanOut([beginning, tracker, observer, keeper, damage, *warm_up]),
            address=sitting.address,
            confirm=partial(repeats_wanted, sitting.spec) if sitting.spec.confirm else None,
            edits=sitting.edits,
            tell=progress.note,
            stands=progress.stands,
            costs=lambda config: known_costs(config, len(sitting.dataset.classes)),
            images=sitting.dataset.counts["train"] + sitting.dataset.counts["validation"],
        )
    with waiting(progress.note, "writing to MLflow …"):
        tracker.rebuild(engine.records)
    if engine.used_up:
        progress.note(used_up_note(engine.used_up, sitting.spec, sitting.folder, engine.records, sitting.called))
    elif not engine.interrupted and _run_here(engine.records) < sitting.spec.trials:
        kept = " that keeps the constraints" if sitting.spec.constraints else ""
        progress.note(f"The search space holds nothing new{kept}, so the sweep ends before its number of trials.")
    result = finish(sitting, engine, tracker, progress.note)
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


def _make_tracker(sitting: Sitting, progress: Progress) -> SweepTracker:
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


def plan_sweep(
    spec: SweepSpec,
    out: Path,
    tracking_uri: str | None,
    *,
    address: str | None = None,
    reading: Progress | None = None,
) -> Plan:
    """Return what the sweep would take, after the checks that a run goes through before its first trial.

    Of images that were read before it tells what the run does. The time is told for this machine.

    Args:
        spec, out, tracking_uri, address: as in ``run_sweep``.
        reading: told while the images are read into the store, as the run does; None counts them by their listing.

    Raises:
        InputError: as the run does.
    """
    from carcls.data.dataset import DataSummary, find_dataset
    from sweeps.plan import make_plan

    out = out.expanduser().absolute()
    checked = check_sweep(spec, out, tracking_uri, address, plan=True)
    spec, folder, dataset = checked.spec, out / str(checked.spec.name), None
    if reading is not None:
        dataset = prepare_data(spec, out, StageStore(out / "stages"), reading)
    elif checked.reading is not None and (out / "stages").is_dir():
        dataset = find_dataset(located(spec.data, out), checked.reading, StageStore(out / "stages"))
    if dataset is not None:
        require_same_data(folder, dataset, demo=spec.data.path is None)
    summary = checked.listed if dataset is None else DataSummary.of(dataset)
    spec, changed = fit_to_data(spec, summary.train)
    found = [NOT_READ] if dataset is None else data_notes(dataset)
    prices, share = budget_of(spec).prices, checked.share
    return make_plan(
        spec,
        summary,
        hourly=hourly_cost(prices, share.cpus, share.gpus, share.concurrency) if prices else None,
        networks=checked.networks,
        notes=(*checked.notes, *found, *changed),
        images_read=dataset is not None,
    )
