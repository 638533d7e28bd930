"""What goes on around a running sweep: whether it may go on, who hears of it, and how Ctrl-C ends it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from ray.tune import Callback, Stopper

from carcls.outcome import Measurement
from sweeps.budget import UsedUp
from sweeps.holding import asked_to_stop
from sweeps.ledger import Ledger, Standing
from sweeps.study import Asked, Study, TrialRecord

# So long a sweep that stops waits for the epochs that run.
STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.5


class Observer(Protocol):
    """Watches a sweep, from the driver's process and thread."""

    def trial_changed(self, record: TrialRecord) -> None:
        """A trial began, or goes on after a restart; it finished an epoch; or it is complete, pruned or failed.

        A trial that is left unfinished has no such end.
        """


@dataclass(slots=True)
class Control:
    """Whether the sweep goes on, and why not.

    Attributes:
        deadline: on time.monotonic's clock; no trial starts after it, those that run may finish.
        folder: of the sweep, where a request to stop would be; None looks for none.
        tell: gets a sentence when the sweep begins to stop.
        halt: why running trials end; the last epoch of each is on disk already.
        at_once: whether they end without finishing the epoch that runs.
        error: the observer's exception, when it is why.
        stopped: the failures of trials, when they are why.
        used_up: the budget because of which a trial was refused, and from then on every other.
        confirming: whether the search is over; the hours do not hold for what confirms it.
    """

    deadline: float = float("inf")
    folder: Path | None = None
    tell: Callable[[str], None] = lambda _: None
    halt: Literal["", "interrupt", "error", "failures"] = ""
    at_once: bool = False
    error: Exception | None = None
    stopped: str = ""
    used_up: UsedUp = ""
    confirming: bool = False
    _looked: float = 0.0
    _patient_until: float = 0.0

    def may_go_on(self) -> bool:
        """Tell whether running trials may go on after their epoch."""
        self._look_for_request()
        return not self.halt

    def must_end(self) -> bool:
        """Tell whether running trials end now, wherever they are."""
        if self.may_go_on():
            return False
        if self.at_once or self.halt in ("error", "failures"):
            return True
        if not self._patient_until:
            self._patient_until = time.monotonic() + STOP_SECONDS
            self.tell(f"Stopping after the epochs that run, at most {STOP_SECONDS:.0f} s; Ctrl-C again stops at once.")
        return time.monotonic() >= self._patient_until

    def interrupt(self) -> bool:
        """A signal has come: end the sweep gently; tell whether that is news."""
        news = self.halt != "interrupt"
        self.halt = "interrupt"
        return news

    def stop(self, reason: str) -> None:
        """End the sweep, resumably, because trials keep failing."""
        if not self.halt:
            self.halt, self.stopped = "failures", reason

    def _look_for_request(self) -> None:
        if self.folder is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        now = asked_to_stop(self.folder)
        if now is not None:
            self.halt, self.at_once = self.halt or "interrupt", self.at_once or now

    def may_start(self, used_up: Callable[[], UsedUp] = lambda: "") -> bool:
        """Tell whether a trial may start; ``used_up`` is asked for budgets other than the hours."""
        if self.confirming and self.used_up == "hours":
            self.used_up = ""
        if self.may_go_on() and not self.used_up:
            late = not self.confirming and time.monotonic() >= self.deadline
            self.used_up = "hours" if late else used_up()
        return not self.halt and not self.used_up


@dataclass(slots=True)
class Watch:
    """Keeps the books and passes news on, each once and in order; exceptions of hearers end the sweep, not Tune's loop.

    Attributes:
        study: of the sweep.
        observer: who hears of trials.
        control: told of the observer's exceptions.
        ledger: what the trials take.
        stands: who hears how the sweep stands, before the news that changed it.
    """

    study: Study
    observer: Observer
    control: Control
    ledger: Ledger
    stands: Callable[[Standing], None]
    started: set[int] = field(default_factory=set)
    epochs: dict[int, int] = field(default_factory=dict)

    def may_start(self) -> bool:
        """Tell whether a trial may start."""
        return self.control.may_start(lambda: self.ledger.used_up(self.study.left()))

    def ask(self, asked: Asked) -> None:
        """The trial is about to run."""
        self.ledger.ask(asked.number, asked.config.epochs, searched=asked.experiment is None)

    def begin(self, number: int) -> None:
        """A process has begun the trial; perhaps for the second time."""
        self.ledger.start(number)
        self._start(number)

    def measure(self, number: int, said: str) -> bool:
        """Measurements have come, as ``sweeps.worker`` writes them; tell whether the trial should stop.

        Those after the one at which it should are dropped.
        """
        return any(self._measure(number, **one) for one in json.loads(said))

    def _measure(
        self,
        number: int,
        epoch: int,
        metrics: dict[str, float],
        seconds: float,
        trained: bool,
        stages: dict[str, float | None],
    ) -> bool:
        """Note one measurement; perhaps of an epoch that a dead process had reported."""
        stop = self.study.report(number, Measurement(epoch, metrics, trained, stages), seconds)
        self.ledger.beat(number, epoch, trained=trained)
        if epoch > self.epochs.get(number, 0) and self.study.is_live(number):
            self.epochs[number] = epoch
            self._stand()
            self._tell(self.observer.trial_changed, self.study.record(number))
        return stop

    def finish(self) -> None:
        """The study may have finished trials."""
        for record in self.study.take_finished():
            self.ledger.settle(record)
            self._stand()
            self._tell(self.observer.trial_changed, record)

    def _start(self, number: int) -> None:
        if number not in self.started:
            self.started.add(number)
            self._stand()
            record = self.study.record(number)
            self.epochs[number] = record.epochs
            self._tell(self.observer.trial_changed, record)

    def _stand(self) -> None:
        self._tell(self.stands, self.ledger.standing(self.study.left()))

    def _tell(self, hear: Callable[..., None], *news: Any) -> None:
        if self.control.error is None:
            try:
                hear(*news)
            except Exception as error:
                self.control.halt, self.control.error = "error", error


class NewsCallback(Callback):  # type: ignore[misc]  # Tune knows callbacks by their base class
    """Hands Tune's events to the watch, collects the trials' processes (Ray actors), and says who takes up a trial."""

    def __init__(self, watch: Watch, processes: set[Any], taken_up: Callable[[int, Any], None]) -> None:
        self._watch = watch
        self._processes = processes
        self._taken_up = taken_up

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        """A process takes up the trial."""
        self._processes.add(trial.temporary_state.ray_actor)
        self._taken_up(trial.config["number"], trial.temporary_state.ray_actor)
        self._watch.begin(trial.config["number"])

    def on_trial_result(self, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        """A process says that it ends itself, since it can use no GPU: what it held of one is not booked."""
        if "failure" in result and not result.get("done"):
            self._watch.ledger.end(trial.config["number"], saw_gpu=False)

    def on_trial_recover(self, trial: Any, **_: Any) -> None:
        """The trial's machine was taken away; another process will take it up."""
        self._watch.ledger.end(trial.config["number"])

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        """The trial's process died; perhaps another one will take it up."""
        self._watch.ledger.end(trial.config["number"])

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        """The process is done with the trial, which may be tried again with more."""
        self._watch.ledger.end(trial.config["number"])

    def __getstate__(self) -> dict[str, Any]:
        return {}


class HaltStopper(Stopper):  # type: ignore[misc]  # Tune knows stoppers by their base class
    """Ends all trials at once when the control says so, by ending their processes."""

    def __init__(self, control: Control, processes: set[Any]) -> None:
        self._control = control
        self._processes = processes

    def __call__(self, *_: Any) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the sweep ends now."""
        if not self._control.must_end():
            return False
        # Tune would wait for the epoch that runs, and give up after 15 s.
        while self._processes:
            ray.kill(self._processes.pop())
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {}
