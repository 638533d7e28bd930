"""Runs a sweep's trials with Ray Tune, over a study that outlives it.

Tune places trials on processes, uses these again and stops trials that the study gives up. Its searcher, scheduler and
stopper are the bridge, or pass on to it. All it knows can be lost: the journal and the stage store are
enough to go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.engine import Observer
from sweeps.engine.bridge import Bridge
from sweeps.engine.budget import BudgetStatus
from sweeps.engine.compat import processes_kept
from sweeps.engine.halt import Halt
from sweeps.engine.probing import measure_shares
from sweeps.engine.resources import Machine, reserved_cpus
from sweeps.engine.task import Work
from sweeps.engine.worker import run_order
from sweeps.interrupts import interruptible
from sweeps.results.result import UsedUp
from sweeps.study.confirmation import Repeat
from sweeps.study.proposals import Costs
from sweeps.study.study import Study
from sweeps.trial import TrialRecord

# Says by which runs the trials of a search that is over are confirmed.
Confirm = Callable[[Sequence[TrialRecord]], Sequence[Repeat]]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What a run of the engine leaves.

    Attributes:
        records: every trial of the study, those of earlier runs included.
        interrupted: whether Ctrl-C or failures ended it; unfinished trials go on in the next run.
        used_up: the budget because of which trials were left to the next run; empty when there is none.
        stopped: the failures that ended it; empty if none did.
    """

    records: tuple[TrialRecord, ...]
    interrupted: bool
    used_up: UsedUp
    stopped: str = ""


def run_trials(
    work: Work,
    observers: Sequence[Observer],
    *,
    confirm: Confirm | None = None,
    edits: Sequence[str] | None = None,
    costs: Costs = lambda _: {},
    notify: Callable[[str], None] = lambda _: None,
    on_status: Callable[[BudgetStatus], None] = lambda _: None,
) -> EngineResult:
    """Run the trials that the study in the sweep's folder still owes, and return all it has.

    Ctrl-C once, SIGTERM or a request to stop (sweeps.lock) ends each running trial after its epoch, or without it
    after STOP_SECONDS; in the next run it goes on from its last finished epoch. Ctrl-C twice raises KeyboardInterrupt.
    Once a budget (``spec.hours``, epochs, cost) is used up no trial starts; those that run finish. What confirms the
    search comes after it, and after its hours.

    Args:
        work: of the sweep; Ray is started or joined if anything is to be run.
        observers: notified of what happens, in this order; an exception ends the sweep resumably and is raised again.
        confirm: asked once the search is over, unless it was interrupted; what it answers is run too.
        edits, costs: as in ``Study.open``.
        notify: gets a sentence when the sweep begins to stop.
        on_status: gets what is spent and what is to come, before the observers are notified.

    Raises:
        InputError: the spec asks for more than there is, or the folder is of another sweep.
    """
    spec, folder = work.spec, work.folder
    halt = Halt(folder, notify, time.monotonic() + (spec.hours or math.inf) * 3600)
    with Study.open(folder, spec, edits=edits, costs=costs) as study, interruptible(halt.interrupt):
        if study.reopened:
            numbers = f"trial{'s' * (len(study.reopened) > 1)} {', '.join(map(str, study.reopened))}"
            notify(f"Tried again, since they failed through no fault of their own: {numbers}.")
        goes_on = partial(_confirm, study, halt, confirm)
        if study.has_work or goes_on():
            machines = work.session.connect(folder / "ray.log")
            measure_shares(work, machines, halt, notify)
            if halt.may_go_on():  # nobody stopped it meanwhile, before Tune loads and starts
                bridge = Bridge(study, work, machines, halt, observers, on_status, goes_on)
                try:
                    with closing(bridge.quarantine):
                        _run_tune(bridge, work, machines)
                finally:
                    study.release()
        if halt.error is not None:
            raise halt.error
        used_up: UsedUp = halt.used_up if study.has_work else ""
        ended = halt.cause in ("interrupt", "failures")
        return EngineResult(tuple(study.records()), ended, used_up, halt.stopped)


def _confirm(study: Study, halt: Halt, confirm: Confirm | None) -> bool:
    """Go on, once, from the search to what confirms it; return whether there is anything to run."""
    if confirm is None or halt.confirming or not halt.may_go_on():
        return False
    halt.confirming = True
    return study.confirm(confirm(study.records()))


def _run_tune(bridge: Bridge, work: Work, machines: Sequence[Machine]) -> None:
    """Run all trials that the bridge hands out. What Tune writes below the sweep's ``trials`` is read by nobody."""
    # Tune loads MLflow, a second or more, when it is given callbacks of its user's.
    tuner = tune.Tuner(
        tune.with_resources(run_order, partial(_resources_of, machines)),
        tune_config=tune.TuneConfig(
            search_alg=bridge,
            scheduler=_Scheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=bridge.share.concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((work.folder / "trials").resolve()),
            failure_config=tune.FailureConfig(max_failures=0),
            stop=bridge,
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # says nothing; that of notebooks clears what the cell has shown
        ),
    )
    work.session.release()
    with processes_kept(bridge.keeps):
        tuner.fit()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"


def _resources_of(machines: Sequence[Machine], order: Mapping[str, Any]) -> dict[str, float]:
    """Return what Ray is asked for, for a trial's order."""
    cpus = reserved_cpus(order["cpus"], order["gpus"], machines)
    return {"cpu": cpus, "gpu": order["gpus"]} if order["gpus"] else {"cpu": cpus}


class _Scheduler(FIFOScheduler):  # type: ignore[misc]  # Tune knows schedulers by their base class
    """Passes what Tune reports of running trials on to the bridge."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._chosen: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves it; its memory is the journal

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the first trial that no process is being started for; None when there is one for each.

        Tune gives the process of a trial that ended to the trial chosen here, and ends the process that starts for that
        one. With trials shorter than the start of a process, all would run in the first process.

        It is asked before each event, so a trial that has begun is seen here before it says its first word.
        """
        live = tune_controller.get_live_trials()
        for trial in live:
            if trial.status == Trial.RUNNING:
                with self._bridge.halt.catching():
                    self._bridge.on_start(trial.trial_id, trial.temporary_state.ray_actor)
        fresh = [trial for trial in live if trial.status == Trial.PENDING and trial.trial_id not in self._chosen]
        if not fresh:
            return None
        first = min(fresh, key=lambda trial: trial.config["number"])
        self._chosen.add(first.trial_id)
        return first

    def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass a message on; answer stop or continue. The last message of a trial comes when it is complete."""
        stop = True
        with self._bridge.halt.catching():
            stop = self._bridge.on_report(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, _controller: Any, trial: Any) -> None:
        """Pass on why the trial's process died: Tune keeps that in a file, death after death."""
        try:
            said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        except (OSError, TypeError):
            said = ""
        self._bridge.on_death(trial.trial_id, said.rpartition("Failure # ")[2])
