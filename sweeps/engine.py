"""Runs a sweep's trials with Ray Tune, over a study that outlives it.

Tune places trials on processes, restarts those that die and stops those that the study gives up. All it knows can be
lost: the journal and the stage store are enough to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from sweeps.control import Control, HaltStopper, NewsCallback, Observer, Watch, interruptible
from sweeps.resources import Machine, Share, this_machine, trial_resources
from sweeps.scheduler import StudyScheduler
from sweeps.searcher import StudySearcher
from sweeps.session import ray_session
from sweeps.study import Asked, Costs, Study, TrialRecord
from sweeps.worker import order_of, run_order

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

MAX_WORKER_DEATHS = 2

__all__ = ["EngineResult", "Observer", "TrialRecord", "run_trials"]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What a run of the engine leaves.

    Attributes:
        records: every trial of the study, those of earlier runs included.
        interrupted: whether Ctrl-C ended it; unfinished trials go on in the next run.
        out_of_time: whether trials were left to the next run because the hours were over.
        seconds: wall time of this run.
    """

    records: tuple[TrialRecord, ...]
    interrupted: bool
    out_of_time: bool
    seconds: float


def run_trials(
    spec: SweepSpec,
    dataset_file: Path,
    stages_root: Path,
    folder: Path,
    observer: Observer,
    *,
    runner: str = "carcls.families:run_trial",
    loader: str = "carcls.data.dataset:Dataset.load",
    address: str | None = None,
    logical_cpus: int | None = None,
    logical_gpus: int | None = None,
    edits: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda _: None,
    costs: Costs = lambda _: {},
) -> EngineResult:
    """Run the trials that the study in ``folder`` still owes, and return all it has.

    Ctrl-C once, SIGTERM or a request to stop (sweeps.holding) ends each running trial after its epoch, or without it
    after STOP_SECONDS; in the next run it goes on from its last finished epoch. Ctrl-C twice raises KeyboardInterrupt.
    After ``spec.hours`` no trial starts; those that run finish.

    Args:
        spec: the sweep.
        dataset_file: what ``Dataset.save`` wrote.
        stages_root: folder of the stage store; on a cluster every machine must see it, and the dataset file.
        folder: of the sweep.
        observer: told what happens; an exception of its ends the sweep resumably and is raised again.
        runner: ``module:function`` with the signature of ``carcls.families.run_trial``.
        loader: ``module:function`` that reads the dataset file.
        address: of a running Ray cluster; None starts Ray here, and ends it.
        logical_cpus, logical_gpus: what a Ray started here believes to have; None lets it count.
        edits, costs: as in ``Study.open``.
        tell: gets a sentence when the sweep begins to stop.

    Raises:
        InputError: the spec asks for more than there is, or the folder holds another sweep.
    """
    start = time.monotonic()
    control = Control(deadline=start + (spec.hours or float("inf")) * 3600, folder=folder, tell=tell)
    with Study.open(folder, spec, edits=edits, costs=costs) as study, interruptible(control):
        common = {
            "dataset": str(dataset_file.resolve()),
            "stages": str(stages_root.resolve()),
            "folder": str((folder / "trials").resolve()),
            "runner": runner,
            "loader": loader,
        }
        if study.has_work:
            _check_here(spec, address, logical_cpus, logical_gpus)
            with ray_session(folder / "ray.log", address=address, cpus=logical_cpus, gpus=logical_gpus) as machines:
                watch = Watch(study, observer, control)
                with interruptible(control):  # again: Ray takes SIGTERM for itself when it starts
                    _fit(study, trial_resources(spec, *machines), common, watch, folder)
        if control.error is not None:
            raise control.error
        out_of_time = control.too_late and study.has_work
        return EngineResult(tuple(study.records()), control.halt == "interrupt", out_of_time, time.monotonic() - start)


def _check_here(spec: SweepSpec, address: str | None, cpus: int | None, gpus: int | None) -> None:
    """Refuse at once what this machine cannot give, before Ray takes its seconds to start."""
    if address is None and not ray.is_initialized():
        here = this_machine()
        trial_resources(spec, Machine(cpus or here.cores, here.gpus if gpus is None else gpus))


def _fit(study: Study, share: Share, common: Mapping[str, Any], watch: Watch, folder: Path) -> None:
    try:
        _tuner(study, share, {**common, "cpus": share.cpus, "gpus": share.gpus}, watch, folder).fit()
    finally:
        study.release()


def _tuner(study: Study, share: Share, common: Mapping[str, Any], watch: Watch, folder: Path) -> tune.Tuner:
    def order(asked: Asked) -> dict[str, Any]:
        return order_of(common, asked.number, asked.experiment, asked.config)

    processes: set[Any] = set()
    control = watch.control
    resources = {"cpu": share.cpus, "gpu": share.gpus} if share.gpus else {"cpu": share.cpus}
    return tune.Tuner(
        tune.with_resources(run_order, resources),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(study, order, control.may_start, control.may_go_on, watch.finish),
            scheduler=StudyScheduler(study, control.may_go_on),
            num_samples=-1,
            max_concurrent_trials=share.concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "trials").resolve()),
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            stop=HaltStopper(control, processes),
            callbacks=[NewsCallback(watch, processes)],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"
