"""Runs a sweep's trials with Ray Tune, over a study that outlives it.

Tune places trials on processes, uses these again and stops trials that the study gives up. Its searcher, scheduler and
stopper pass on to the bridge what it asks and tells. All it knows can be lost: the journal and the stage store are
enough to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.engine import Observer
from sweeps.engine.bridge import Bridge
from sweeps.engine.budget import Account, BudgetStatus
from sweeps.engine.compat import processes_kept
from sweeps.engine.halt import Halt
from sweeps.engine.health import Patience, Quarantine, expected_seconds
from sweeps.engine.resources import Machine, least_seconds, reserved_cpus, trial_resources
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
    tell: Callable[[str], None] = lambda _: None,
    on_status: Callable[[BudgetStatus], None] = lambda _: None,
) -> EngineResult:
    """Run the trials that the study in the sweep's folder still owes, and return all it has.

    Ctrl-C once, SIGTERM or a request to stop (sweeps.lock) ends each running trial after its epoch, or without it
    after STOP_SECONDS; in the next run it goes on from its last finished epoch. Ctrl-C twice raises KeyboardInterrupt.
    Once a budget (``spec.hours``, epochs, cost) is used up no trial starts; those that run finish. What confirms the
    search comes after it, and after its hours.

    Args:
        work: of the sweep; Ray is started or joined if anything is to be run.
        observers: told what happens, in this order; an exception ends the sweep resumably and is raised again.
        confirm: asked once the search is over, unless it was interrupted; what it answers is run too.
        edits, costs: as in ``Study.open``.
        tell: gets a sentence when the sweep begins to stop.
        on_status: told what is spent and what is to come, before the observers are told the news.

    Raises:
        InputError: the spec asks for more than there is, or the folder holds another sweep.
    """
    spec, folder = work.spec, work.folder
    deadline, halt = time.monotonic() + (spec.hours or float("inf")) * 3600, Halt(folder, tell)
    with Study.open(folder, spec, edits=edits, costs=costs) as study, interruptible(halt.interrupt):
        if study.reopened:
            tell(f"Tried again, since they failed through no fault of their own: {_trials(study.reopened)}.")
        goes_on = partial(_confirm, study, halt, confirm)
        if study.has_work or goes_on():
            machines = work.session.connect(folder / "ray.log")
            with closing(Quarantine(tell)) as quarantine:
                share = trial_resources(spec, *machines)
                account = Account(spec, share, study.records(), deadline)
                study.note_spending(account.read)
                bridge = Bridge(
                    study=study,
                    account=account,
                    halt=halt,
                    patience=Patience(partial(expected_seconds, share, work.images), least_seconds()),
                    quarantine=quarantine,
                    observers=observers,
                    on_status=on_status,
                    goes_on=goes_on,
                    share=share,
                    cores=max(machine.cores for machine in machines),
                )
                try:
                    _run_tune(bridge, work, machines)
                finally:
                    study.release()
        if halt.error is not None:
            raise halt.error
        used_up: UsedUp = halt.used_up if study.has_work else ""
        ended = halt.cause in ("interrupt", "failures")
        return EngineResult(tuple(study.records()), ended, used_up, halt.stopped)


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _confirm(study: Study, halt: Halt, confirm: Confirm | None) -> bool:
    """Go on, once, from the search to what confirms it; tell whether there is anything to run."""
    if confirm is None or halt.confirming or not halt.may_go_on():
        return False
    halt.confirming = True
    return study.confirm(confirm(study.records()))


def _run_tune(bridge: Bridge, work: Work, machines: Sequence[Machine]) -> None:
    """Run all trials that the bridge hands out. What Tune writes below the sweep's ``trials`` is read by nobody."""
    searcher, session = _Searcher(bridge, work.as_order()), work.session

    def keeps(group: Any) -> bool:
        if bridge.quarantine.takes(group):
            return True
        last = bridge.last_process if searcher.is_finished and not bridge.is_running else None
        if last is None or bridge.quarantine.group_of(last.actor) != group.id.hex():
            return False
        session.keep(last, group)
        return True

    # Tune loads MLflow, a second or more, when it is given callbacks of its user's.
    tuner = tune.Tuner(
        tune.with_resources(run_order, partial(_resources_of, machines)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
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
            stop=_Stopper(bridge),
            verbose=0,
        ),
    )
    session.let_go()
    with processes_kept(keeps):
        tuner.fit()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"


def _resources_of(machines: Sequence[Machine], order: Mapping[str, Any]) -> dict[str, float]:
    """Return what Ray is asked for, for a trial's order."""
    cpus = reserved_cpus(order["cpus"], order["gpus"], machines)
    return {"cpu": cpus, "gpu": order["gpus"]} if order["gpus"] else {"cpu": cpus}


class _Passing:
    """Passes on to the bridge. Tune saves such objects; the memory of these is the journal."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_Passing, Searcher):  # type: ignore[misc]  # Tune knows searchers by their base class
    def __init__(self, bridge: Bridge, common: Mapping[str, Any]) -> None:
        super().__init__()
        self._bridge, self._common = bridge, common
        self.is_finished = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's order, or that there is none; None while one that runs may have to be tried again."""
        trial = None
        with self._bridge.halt.catching():
            trial = self._bridge.ask(trial_id)
        if trial is None:
            self.is_finished = not self._bridge.waits
            return str(Searcher.FINISHED) if self.is_finished else None
        share = {"cpus": trial.given.cpus, "gpus": trial.given.gpus}
        return {**self._common, "number": trial.number, "config": trial.config.model_dump(), **share}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that the trial ended, or its process."""
        with self._bridge.halt.catching():
            self._bridge.end(trial_id, result or {}, died=error)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""


class _Scheduler(_Passing, FIFOScheduler):  # type: ignore[misc]  # Tune knows schedulers by their base class
    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._chosen: set[str] = set()

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
                    self._bridge.begin(trial.trial_id, trial.temporary_state.ray_actor)
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
            stop = self._bridge.hear(trial.trial_id, result)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, _controller: Any, trial: Any) -> None:
        """Pass on why the trial's process died: Tune keeps that in a file, death after death."""
        try:
            said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        except (OSError, TypeError):
            said = ""
        self._bridge.lose(trial.trial_id, said.rpartition("Failure # ")[2])


class _Stopper(_Passing, Stopper):  # type: ignore[misc]  # Tune knows stoppers by their base class
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def __call__(self, *_: Any) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the sweep ends now; asked step after step."""
        self._bridge.end_hanging()
        self._bridge.quarantine.look()
        return self._bridge.must_end()
