"""What stands between Tune and the study: every trial that runs, who is notified of it, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.tune import Stopper
from ray.tune.search import Searcher

from carcls.outcome import Measurement
from sweeps.engine import Observer
from sweeps.engine.budget import Account, BudgetStatus
from sweeps.engine.halt import Halt
from sweeps.engine.hangs import Patience, expected_seconds
from sweeps.engine.recovery import Place, Quarantine, Recovery, Running
from sweeps.engine.resources import Machine, Process, least_seconds, processes_of
from sweeps.engine.shares import note_out_of_memory, share_of
from sweeps.failures import Failure, Try, failure_of_death
from sweeps.study.study import Asked, Study
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from sweeps.engine.task import Work


class Bridge(Searcher, Stopper):  # type: ignore[misc]  # Tune knows both by their base classes
    """Hands out the study's trials and closes them.

    Args:
        study: its journal is the only lasting memory.
        work: of the sweep.
        machines: on which trials run.
        halt: whether the sweep goes on; failures may end it, also those of the observers.
        observers: notified of trials, each once and in order.
        on_status: gets the budget's status, before the observers are notified of what changed it.
        goes_on: asked once the search is over; returns whether the study has more now, which confirms it.
    """

    def __init__(
        self,
        study: Study,
        work: Work,
        machines: Sequence[Machine],
        halt: Halt,
        observers: Sequence[Observer],
        on_status: Callable[[BudgetStatus], None],
        goes_on: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.halt, self.quarantine = halt, Quarantine(halt.notify)
        self.share = share = share_of(work.spec, work.stages, machines)
        self._work, self._machines = work, machines
        self._study, self._common = study, work.as_order()
        self._recovery = Recovery(study, halt, self.quarantine, max(machine.cores for machine in machines))
        self._observers, self._on_status, self._goes_on = observers, on_status, goes_on
        self._account = Account(work.spec, share, study.records(), halt.deadline)
        study.note_spending(self._account.read)
        self._patience = Patience(partial(expected_seconds, share, work.images), least_seconds())
        self._looked = time.monotonic()
        self._last: Process | None = None  # that came to the end of a trial last, if it lives
        self._is_finished = False
        self._running: dict[str, Running] = {}  # by Tune's id
        self._reported: dict[int, int] = {}  # the last epoch of each trial that the observers know

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves it; its memory is the journal

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    # What Tune asks

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's order, or that there is none; None while one that runs may have to be tried again."""
        order = None
        with self.halt.catching():
            order = self._order(trial_id)
        if order is not None:
            return order
        self._is_finished = not (self._running and self.halt.may_go_on())
        return str(Searcher.FINISHED) if self._is_finished else None

    def _order(self, tune_id: str) -> dict[str, Any] | None:
        asked = self._next()
        if asked is None:
            return None
        given = Try(**asked.retry) if asked.retry else Try(self.share.cpus, self.share.gpus, asked.config.micro_batch)
        # The trial's process finds out whether parts of this size work.
        processes = processes_of(asked.config, given.gpus)
        self._study.note_processes(asked.number, processes)
        how = {"micro_batch": given.micro_batch, "processes": processes}
        config = asked.config.model_copy(update=how)
        self._running[tune_id] = Running(asked.number, config, given)
        self._account.note(self._study.record(asked.number))
        share = {"cpus": given.cpus, "gpus": given.gpus}
        return {**self._common, "number": asked.number, "config": config.model_dump(), **share}

    def _next(self) -> Asked | None:
        """Return the next trial, after the last one of the search of what confirms it, if the budgets allow one."""
        may_start = self.halt.may_start(lambda: self._account.used_up(self._study.left()))
        asked = self._study.ask() if may_start else None
        self._announce_finished()
        if asked is None and not self._running and self._goes_on():
            return self._next()
        return asked

    def __call__(self, *_: object) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the sweep ends now; asked step after step. Processes that hang are ended meanwhile."""
        now = time.monotonic()
        hangs, self._looked = self._patience.look(now - self._looked, self._running.values()), now
        self.quarantine.release_gone()
        must_end = self.halt.must_end()
        for trial, why in hangs:
            trial.failure = Failure("lost", why)
            self.halt.notify(f"trial {trial.number} hangs and is ended: {why} It goes on from its last epoch.")
        # Tune would wait for the epoch that runs, and give up after 15 s.
        for trial in [*self._running.values()] if must_end else [trial for trial, _ in hangs]:
            if trial.process is not None:
                ray.kill(trial.process)  # Ray sends SIGKILL after 5 s; Tune then reports its death
        return must_end

    def keeps(self, group: Any) -> bool:
        """Tell whether what is reserved for a process, a placement group, stays now that Tune has done with it.

        It does on what is out of use, and for the process of the last trial, which serves what comes after the trials.
        """
        if self.quarantine.retains(group):
            return True
        last = self._last if self._is_finished and not self._running else None
        if last is None or self.quarantine.place_of(last.actor).group != group.id.hex():
            return False
        self._work.session.keep(last, group)
        return True

    # What Tune reports

    def on_start(self, tune_id: str, process: Any) -> None:
        """A process runs the trial; Tune may say so again and again."""
        trial = self._running.get(tune_id)
        if trial is None or trial.process is process:
            return
        trial.process, trial.failure = process, None
        self._patience.begin(trial)
        self._account.start(trial.number, trial.given.cpus, trial.given.gpus)
        if trial.number not in self._reported:
            record = self._study.record(trial.number)
            self._reported[trial.number] = record.epochs
            self._announce(record)
        self._arrive(trial)

    def on_report(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        """The trial's process reports something, not its end; return whether the trial should stop."""
        trial = self._running[tune_id]
        if "place" in result:  # reported with the first of its trials only
            self.quarantine.places[trial.process] = Place(**json.loads(result["place"]))
            self._arrive(trial)
        if "failure" in result:  # and the process ends itself, since it can use no GPU
            trial.failure = Failure(**json.loads(result["failure"]))
            self._account.stop(trial.number, saw_gpu=False)
        said = json.loads(result.get("measurements", "[]"))
        last = said[-1]["epoch"] if said else 0
        self._patience.on_report(trial, last, trained=any(one["trained"] for one in said))
        if not said:
            return False
        self.quarantine.clear(trial.process)
        return self._measure(trial.number, said) or not self.halt.may_go_on()

    def _arrive(self, trial: Running) -> None:
        """Note where the trial's process is, if that is known; leave at once what is out of use."""
        self._study.note_worker(trial.number, self.quarantine.place_of(trial.process).worker)
        self._recovery.avoid(trial)

    def on_death(self, tune_id: str, words: str) -> None:
        """The trial's process died, and ``words`` are Ray's; Tune may start another one of itself."""
        trial = self._running.get(tune_id)
        if trial is None:
            return
        self._leave(trial)
        self._recovery.note_death(trial, words)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial, for which Tune does no more, unless it is to be tried again or left unfinished."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        if trial.process is not None:
            self._last = None if error else Process(trial.process, trial.given.cpus, trial.given.gpus)
        with self.halt.catching():
            if self._study.is_live(trial.number):
                self._close(trial, result or {}, died=error)
            else:
                self._recovery.succeed(trial)
            self._leave(trial)
            self._announce_finished()

    def _close(self, trial: Running, result: Mapping[str, Any], *, died: bool) -> None:
        if died and self.halt.may_go_on():
            self._fail(trial, trial.failure or failure_of_death(""))
        elif "outcome" in result:
            self._measure(trial.number, json.loads(result.get("measurements", "[]")))
            if self._study.is_live(trial.number):  # no metric of its last epochs has closed it, being not finite
                self._study.tell_complete(trial.number, json.loads(result["outcome"]))
            self._recovery.succeed(trial)
        elif "failure" in result:
            self._fail(trial, Failure(**json.loads(result["failure"])))
        elif self.halt.may_go_on():
            self._study.tell_failed(trial.number, "It ended without an outcome.", "bug")

    def _fail(self, trial: Running, failure: Failure) -> None:
        """Do what the failure's policy says; a share that nobody asked for grows where memory ran out."""
        if failure.kind == "out_of_memory" and 0 < trial.given.gpus < 1:
            note_out_of_memory(self._work.spec, self._work.stages, self._machines, trial.config, trial.given.gpus)
            self.share = share_of(self._work.spec, self._work.stages, self._machines)
        self._recovery.fail(trial, failure)

    def _leave(self, trial: Running) -> None:
        self._account.stop(trial.number)
        trial.silent_since = None

    # What observers are notified of

    def _measure(self, number: int, said: Sequence[Mapping[str, Any]]) -> bool:
        """Note measurements as a trial's process reported them; return whether the trial should stop.

        Those after the one at which it should do not count.
        """
        for one in said:
            if one["trained"]:
                self._account.train(number)
            measurement = Measurement(one["epoch"], one["metrics"], one["trained"], one["stages"])
            stop = self._study.report(number, measurement)
            if measurement.epoch > self._reported.get(number, 0) and self._study.is_live(number):
                self._reported[number] = measurement.epoch
                self._announce(self._study.record(number))
            if stop:
                if self._study.is_live(number):
                    self._study.tell_pruned(number)
                self._announce_finished()
                return True
        return False

    def _announce_finished(self) -> None:
        """The study may have finished trials; derived ones are not announced, but may be the best."""
        for record in self._study.take_finished():
            if record.derived_from is None:
                self._announce(record)
            else:
                self._account.note(record)

    def _announce(self, record: TrialRecord) -> None:
        """Notify everybody; an exception of theirs ends the sweep, not Tune's loop."""
        self._account.note(record)
        if self.halt.error is not None:
            return
        with self.halt.catching():
            self._on_status(self._account.status(self._study.left()))
            for observer in self._observers:
                observer.trial_changed(record)
