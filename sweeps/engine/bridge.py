"""What stands between Tune and the study: every trial that runs, who hears of it, and what is done when it fails.

Tune asks and tells through ``sweeps.engine.engine``. What is done about each kind of failure is in ``sweeps.failures``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import ray

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.engine import Observer
from sweeps.engine.budget import Account, BudgetStatus
from sweeps.engine.halt import Halt
from sweeps.engine.health import Patience, Quarantine
from sweeps.engine.resources import Process, Share
from sweeps.failures import POLICIES, CircuitBreaker, Failure, Try, failure_of_death, has_whole_share, next_try
from sweeps.study.study import Asked, Study
from sweeps.trial import TrialRecord


@dataclass(slots=True)
class Running:
    """A trial from when it is handed out until it ends or is handed back.

    Attributes:
        number, config: of the trial, with the micro-batches that it is given.
        given: with what it is tried.
        process: Ray's actor that runs it; None before it has begun.
        failure: what its process told before it ended itself, or was ended for; None before that.
    """

    number: int
    config: TrialConfig
    given: Try
    process: Any = None
    failure: Failure | None = None


@dataclass(slots=True)
class Bridge:
    """Hands out the study's trials and closes them.

    Attributes:
        study: asked and told; its journal is the only lasting memory.
        account: of the sweep's budget; measures what trials take.
        halt: whether the sweep goes on; told of failures that end it, also of the observers'.
        patience: tells which trials hang.
        quarantine: takes machines and GPUs out of use.
        observers: who hears of trials, each once and in order.
        on_status: gets the budget's status, before the observers hear what changed it.
        goes_on: asked once the search is over; tells whether the study has more now, which confirms it.
        share: of a trial that has not failed yet.
        cores: of the largest machine.
        last_process: that came to the end of a trial last, if it lives.
    """

    study: Study
    account: Account
    halt: Halt
    patience: Patience
    quarantine: Quarantine
    observers: Sequence[Observer]
    on_status: Callable[[BudgetStatus], None]
    goes_on: Callable[[], bool]
    share: Share
    cores: float
    last_process: Process | None = None
    _running: dict[str, Running] = field(default_factory=dict)  # by Tune's id
    _told: dict[int, int] = field(default_factory=dict)  # the last epoch that was told of each trial
    _breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    _looked: float = field(default_factory=time.monotonic)

    # What Tune asks

    @property
    def is_running(self) -> bool:
        """Whether any trial is handed out."""
        return bool(self._running)

    @property
    def waits(self) -> bool:
        """Whether there may be more to hand out once what runs has ended, or comes back."""
        return self.is_running and self.halt.may_go_on()

    def ask(self, tune_id: str) -> Running | None:
        """Return the next trial; None when there is none for now, which one that runs may yet change."""
        asked = self._next()
        if asked is None:
            return None
        given = Try(**asked.retry) if asked.retry else Try(self.share.cpus, self.share.gpus)
        # The trial's process finds out whether parts of this size work.
        config = asked.config.model_copy(update={"micro_batch": given.micro_batch or asked.config.micro_batch})
        trial = self._running[tune_id] = Running(asked.number, config, given)
        self.account.note(self.study.record(asked.number))
        return trial

    def _next(self) -> Asked | None:
        """Return the next trial, after the last one of the search of what confirms it, if the budgets allow one."""
        may_start = self.halt.may_start(lambda confirming: self.account.used_up(self.study.left(), confirming))
        asked = self.study.ask() if may_start else None
        self._tell_finished()
        if asked is None and not self.is_running and self.goes_on():
            return self._next()
        return asked

    def end_hanging(self) -> None:
        """End the processes of trials that hang; Tune then tells of their deaths."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        hangs = self.patience.look(passed)
        for trial in [trial for trial in self._running.values() if trial.number in hangs]:
            reason = hangs[trial.number]
            trial.failure = Failure("lost", reason)
            self.halt.tell(f"trial {trial.number} hangs and is ended: {reason} It goes on from its last epoch.")
            ray.kill(trial.process)  # one that does not answer gets SIGKILL after 5 s

    def must_end(self) -> bool:
        """Tell whether the sweep ends now; then its processes are ended."""
        if not self.halt.must_end():
            return False
        # Tune would wait for the epoch that runs, and give up after 15 s.
        for trial in self._running.values():
            if trial.process is not None:
                ray.kill(trial.process)
        return True

    # What Tune tells

    def begin(self, tune_id: str, process: Any) -> None:
        """A process runs the trial; news only when it is another one than before."""
        trial = self._running.get(tune_id)
        if trial is None or trial.process is process:
            return
        trial.process, trial.failure = process, None
        self.patience.begin(trial.number, trial.config)
        self.account.start(trial.number, trial.given.cpus, trial.given.gpus)
        if trial.number not in self._told:
            record = self.study.record(trial.number)
            self._told[trial.number] = record.epochs
            self._announce(record)
        self._avoid(trial)

    def _avoid(self, trial: Running) -> None:
        """End the trial's process where its machine or GPU is out of use; Tune then tells of its death."""
        if self.quarantine.holds(trial.process):
            trial.failure = Failure("preempted", "its machine or GPU is out of use.")
            ray.kill(trial.process)

    def hear(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        """The trial's process says something, not its last word; tell whether the trial should stop."""
        trial = self._running[tune_id]
        if "location" in result:  # said with the first of its trials only
            self.quarantine.locate(trial.process, **json.loads(result["location"]))
            self._avoid(trial)
        if "failure" in result:  # and the process ends itself, since it can use no GPU
            trial.failure = Failure(**json.loads(result["failure"]))
            self.account.stop(trial.number, saw_gpu=False)
        said = json.loads(result.get("measurements", "[]"))
        last = said[-1]["epoch"] if said else 0
        self.patience.hear(trial.number, last, trained=any(one["trained"] for one in said))
        if not said:
            return False
        self.quarantine.clear(trial.process)
        return self._measure(trial.number, said) or not self.halt.may_go_on()

    def lose(self, tune_id: str, words: str) -> None:
        """The trial's process died, and ``words`` are Ray's; Tune may start another one of itself."""
        trial = self._running.get(tune_id)
        if trial is None:
            return
        self._leave(trial)
        # Ray's name for it in what it says of deaths; there is no public one. Without it, each death is its own.
        actor = trial.process._actor_id.hex() if hasattr(trial.process, "_actor_id") else ""
        died = failure_of_death(words, actor)
        if died.kind == "out_of_memory" and trial.process is None and has_whole_share(trial.given, self.cores):
            # What took the memory is none of our trials, and smaller parts would not help.
            died = Failure("lost", "the machine had no memory left when its process started.")
        trial.failure = trial.failure or died

    def end(self, tune_id: str, result: Mapping[str, Any], *, died: bool) -> None:
        """Tune does no more for the trial: close it, unless it is to be tried again or left unfinished."""
        trial = self._running.pop(tune_id, None)
        if trial is None:
            return
        if trial.process is not None:
            self.last_process = None if died else Process(trial.process, trial.given.cpus, trial.given.gpus)
        if self.study.is_live(trial.number):
            self._close(trial, result, died)
        else:
            self._succeed(trial)
        self._leave(trial)
        self._tell_finished()

    def _close(self, trial: Running, result: Mapping[str, Any], died: bool) -> None:
        if died and self.halt.may_go_on():
            self._fail(trial, trial.failure or failure_of_death(""))
        elif "outcome" in result:
            self._complete(trial.number, result)
            self._succeed(trial)
        elif "failure" in result:
            self._fail(trial, Failure(**json.loads(result["failure"])))
        elif self.halt.may_go_on():
            self.study.tell_failed(trial.number, "It ended without an outcome.", "bug")

    def _complete(self, number: int, result: Mapping[str, Any]) -> None:
        """Close the trial, unless a metric of its last epochs was not finite and has closed it."""
        self._measure(number, json.loads(result.get("measurements", "[]")))
        if self.study.is_live(number):
            self.study.tell_complete(number, json.loads(result["outcome"]))

    def _succeed(self, trial: Running) -> None:
        """The trial is complete, or was stopped early."""
        self.halt.stop(self._breaker.note(None))
        self.quarantine.clear(trial.process)

    def _leave(self, trial: Running) -> None:
        self.account.stop(trial.number)
        self.patience.end(trial.number)

    # Failures

    def _fail(self, trial: Running, failure: Failure) -> None:
        """Do what the policy says."""
        policy = POLICIES[failure.kind]
        self.halt.stop(self.quarantine.blame(failure, trial.process, trial.number, trial.given, self.cores))
        excused = self.quarantine.has(trial.process)
        if policy.then == "more":
            self._give_more(trial, failure)
        elif policy.then == "elsewhere" and excused:
            self.halt.tell(f"trial {trial.number} goes on elsewhere: {failure.reason}")
            self.study.hand_back(trial.number, counted=False)
        elif policy.then == "again":
            counted = policy.counts and not excused
            self.study.hand_back(trial.number, counted=counted, why=failure.reason if counted else "")
        else:
            self._give_up(trial, failure)

    def _give_more(self, trial: Running, failure: Failure) -> None:
        last = trial.given
        more = next_try(last, trial.config.batch_size, self.cores)
        if more is None:
            tried = f" Tried before it failed: {'; '.join(last.tried)}." if last.tried else ""
            self._give_up(trial, Failure(failure.kind, f"{failure.reason}{tried}"))
            return
        self.halt.tell(f"trial {trial.number} ran out of memory; trying again with {more.tried[-1]}")
        self.study.hand_back(trial.number, counted=False, retry=asdict(more))

    def _give_up(self, trial: Running, failure: Failure) -> None:
        self.study.tell_failed(trial.number, failure.reason, failure.kind)
        self.halt.stop(self._breaker.note(failure))

    # News

    def _measure(self, number: int, said: Sequence[Mapping[str, Any]]) -> bool:
        """Note measurements as a trial's process reports them, perhaps after it died; tell whether it should stop.

        Those after the one at which it should do not count.
        """
        for one in said:
            epoch, trained = one["epoch"], one["trained"]
            if trained:
                self.account.train(number)
            measurement = Measurement(epoch, one["metrics"], trained, one["stages"])
            stop = self.study.report(number, measurement)
            if epoch > self._told.get(number, 0) and self.study.is_live(number):
                self._told[number] = epoch
                self._announce(self.study.record(number))
            if stop:
                if self.study.is_live(number):
                    self.study.tell_pruned(number)
                self._tell_finished()
                return True
        return False

    def _tell_finished(self) -> None:
        """The study may have finished trials; derived ones are no news, but may be the best."""
        for record in self.study.take_finished():
            if record.derived_from is None:
                self._announce(record)
            else:
                self.account.note(record)

    def _announce(self, record: TrialRecord) -> None:
        """Tell everybody; an exception of theirs ends the sweep, not Tune's loop."""
        self.account.note(record)
        if self.halt.error is not None:
            return
        with self.halt.catching():
            self.on_status(self.account.status(self.study.left()))
            for observer in self.observers:
                observer.trial_changed(record)
