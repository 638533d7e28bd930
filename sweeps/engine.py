"""Runs a sweep's trials with Ray Tune, over a study that outlives it.

Tune places trials on processes, restarts those that die and stops those that the study gives up. All it knows can be
lost: the journal and the stage store are enough to go on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from sweeps.budget import UsedUp
from sweeps.confirm import Repeat
from sweeps.control import Control, HaltStopper, NewsCallback, Observer, Watch
from sweeps.control_answers import Answers, order_with, resources_of
from sweeps.control_deaths import every_death_is_one
from sweeps.control_hangs import HangWatch, Patience, expected_seconds
from sweeps.control_quarantine import Quarantine
from sweeps.engine_task import LOADER
from sweeps.failures import Try
from sweeps.forecast import Account, BudgetStatus
from sweeps.interrupts import interruptible
from sweeps.resources import Machine, least_seconds, this_machine, trial_resources
from sweeps.scheduler import StudyScheduler
from sweeps.searcher import StudySearcher
from sweeps.session import ray_session
from sweeps.spending import Meter
from sweeps.study import Asked, Costs, Study, TrialRecord
from sweeps.worker import order_of, run_order

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

# Says by which runs the trials of a search that is over are confirmed.
Confirm = Callable[[Sequence[TrialRecord]], Sequence[Repeat]]

__all__ = ["EngineResult", "Observer", "TrialRecord", "run_trials"]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What a run of the engine leaves.

    Attributes:
        records: every trial of the study, those of earlier runs included.
        interrupted: whether Ctrl-C or failures ended it; unfinished trials go on in the next run.
        used_up: the budget because of which trials were left to the next run; empty when there is none.
        seconds: wall time of this run.
        stopped: the failures that ended it; empty if none did.
    """

    records: tuple[TrialRecord, ...]
    interrupted: bool
    used_up: UsedUp
    seconds: float
    stopped: str = ""


def run_trials(
    spec: SweepSpec,
    dataset_file: Path,
    stages_root: Path,
    folder: Path,
    observer: Observer,
    *,
    runner: str = "carcls.families:run_trial",
    loader: str = LOADER,
    address: str | None = None,
    confirm: Confirm | None = None,
    logical_cpus: int | None = None,
    logical_gpus: int | None = None,
    edits: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_status: Callable[[BudgetStatus], None] = lambda _: None,
    costs: Costs = lambda _: {},
    images: int = 0,
) -> EngineResult:
    """Run the trials that the study in ``folder`` still owes, and return all it has.

    Ctrl-C once, SIGTERM or a request to stop (sweeps.holding) ends each running trial after its epoch, or without it
    after STOP_SECONDS; in the next run it goes on from its last finished epoch. Ctrl-C twice raises KeyboardInterrupt.
    Once a budget (``spec.hours``, epochs, cost) is used up no trial starts; those that run finish. What confirms the
    search comes after it, and after its hours.

    Args:
        spec: the sweep.
        dataset_file: what ``Dataset.save`` wrote.
        stages_root: folder of the stage store; on a cluster every machine must see it, and the dataset file.
        folder: of the sweep.
        observer: told what happens; an exception of its ends the sweep resumably and is raised again.
        runner: ``module:function`` with the signature of ``carcls.families.run_trial``.
        loader: ``module:function`` that reads the dataset file.
        address: of a running Ray cluster; None starts Ray here, and ends it.
        confirm: asked once the search is over, unless it was interrupted; what it answers is run too.
        logical_cpus, logical_gpus: what a Ray started here believes to have; None lets it count.
        edits, costs: as in ``Study.open``.
        tell: gets a sentence when the sweep begins to stop.
        on_status: told what is spent and what is to come, before the observer is told the news.
        images: that an epoch goes through, by which slow trials are told from those that hang.

    Raises:
        InputError: the spec asks for more than there is, or the folder holds another sweep.
    """
    start, least = time.monotonic(), least_seconds()
    control = Control(deadline=start + (spec.hours or float("inf")) * 3600, folder=folder, tell=tell)
    with Study.open(folder, spec, edits=edits, costs=costs) as study, interruptible(control.interrupt):
        if study.reopened:
            tell(f"Tried again, since they failed through no fault of their own: {_trials(study.reopened)}.")
        common = {
            "dataset": str(dataset_file.resolve()),
            "stages": str(stages_root.resolve()),
            "folder": str((folder / "trials").resolve()),
            "runner": runner,
            "loader": loader,
            "stopping": spec.early_stopping.model_dump(),
        }
        with ExitStack() as session:
            share = None
            for _ in _phases(study, control, confirm):
                if share is None:
                    _check_here(spec, address, logical_cpus, logical_gpus)
                    machines = session.enter_context(
                        ray_session(folder / "ray.log", address=address, cpus=logical_cpus, gpus=logical_gpus)
                    )
                    share, cores = trial_resources(spec, *machines), max(machine.cores for machine in machines)
                    answers = Answers(study, control, Try(share.cpus, share.gpus), cores, Quarantine(tell), tell)
                    session.callback(answers.quarantine.release)
                    patience = Patience(partial(expected_seconds, share, images), least)
                    hangs = HangWatch(patience, answers.note_hang)
                    records = study.records()
                    meter = Meter(share, records)
                    study.note_spending(meter.read)
                    account = Account(spec, share, records, meter, control.deadline)
                    watch = Watch(study, observer, control, meter, account, on_status)
                _fit(study, answers, share.concurrency, common, watch, hangs, folder)
        if control.error is not None:
            raise control.error
        used_up: UsedUp = control.used_up if study.has_work else ""
        ended, seconds = control.halt in ("interrupt", "failures"), time.monotonic() - start
        return EngineResult(tuple(study.records()), ended, used_up, seconds, control.stopped)


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _phases(study: Study, control: Control, confirm: Confirm | None) -> Iterator[None]:
    """Yield for the search and again for what confirms it, each where something is to be run."""
    if study.has_work:
        yield
    if confirm is not None and control.may_go_on():
        control.confirming = True
        if study.confirm(confirm(study.records())):
            yield


def _check_here(spec: SweepSpec, address: str | None, cpus: int | None, gpus: int | None) -> None:
    """Refuse at once what this machine cannot give, before Ray takes its seconds to start."""
    if address is None and not ray.is_initialized():
        here = this_machine()
        trial_resources(spec, Machine(cpus or here.cores, here.gpus if gpus is None else gpus))


def _fit(
    study: Study,
    answers: Answers,
    concurrency: int,
    common: Mapping[str, Any],
    watch: Watch,
    hangs: HangWatch,
    folder: Path,
) -> None:
    try:
        with _uncounted(), every_death_is_one():
            _tuner(study, answers, concurrency, common, watch, hangs, folder).fit()
    finally:
        study.release()


@contextmanager
def _uncounted() -> Iterator[None]:
    """Keep Tune from counting its callbacks for Ray's makers, who are told nothing: it would load MLflow for that.

    Loading takes a second or more, before the first trial. The name is not public; without it, only the time is lost.
    """
    usage: Any = sys.modules.get("ray.air._internal.usage")
    count = getattr(usage, "tag_callbacks", None)
    if count is None:
        yield
        return
    usage.tag_callbacks = lambda _: False
    try:
        yield
    finally:
        usage.tag_callbacks = count


def _tuner(
    study: Study,
    answers: Answers,
    concurrency: int,
    common: Mapping[str, Any],
    watch: Watch,
    hangs: HangWatch,
    folder: Path,
) -> tune.Tuner:
    def order(asked: Asked) -> dict[str, Any]:
        watch.ask(asked)
        return order_with(order_of(common, asked.number, asked.experiment, asked.config), answers.begin(asked))

    processes: set[Any] = set()
    control = watch.control
    return tune.Tuner(
        tune.with_resources(run_order, resources_of),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(
                study, order, watch.may_start, control.may_go_on, answers, watch.measure, watch.finish
            ),
            scheduler=StudyScheduler(watch.measure, control.may_go_on, answers),
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "trials").resolve()),
            failure_config=tune.FailureConfig(max_failures=0),
            stop=HaltStopper(control, processes),
            callbacks=[NewsCallback(watch, processes, answers.note_process), hangs],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"
