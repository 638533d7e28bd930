"""The durable study: what was asked, what came of it, and what to try next.

Everything is in one journal file beside the sweep. Whoever opens it again finds every trial, finished or not: trials
that a dead driver left running are handed out first, then documented experiments not yet run, then new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.study.confirmation import Repeat
from sweeps.study.derived import derived_of
from sweeps.study.records import Asked, Trials, note_spec
from sweeps.study.rungs import is_beaten
from sweeps.study.sampling import AskedValue, Costs, Proposals, asked_value
from sweeps.trial import Spent, Status, TrialRecord, what_is_broken

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# So many deaths in a row without a new epoch mean that the trial is to blame.
MAX_ATTEMPTS = 3
# So many duplicates in a row mean that the sampler names only what is known.
MAX_DUPLICATES = 20


@dataclass(slots=True)
class _Live:
    """A trial that was handed out, and the last it said: ``last`` is its outcome if it ended now.

    ``stages`` are those that it told of and that are not in the journal yet.
    """

    config: TrialConfig
    documented: bool
    confirms: bool
    last: dict[str, Any] = field(default_factory=lambda: {"metrics": {}, "epochs": 0, "seconds": 0.0})
    stages: Mapping[str, float | None] = field(default_factory=dict)


class Study:
    """The study of one sweep. Use ``Study.open``; close it, or use it as a context manager.

    One driver, one thread: whoever opens it has locked the sweep (see sweeps.lock).

    Attributes:
        reopened: numbers of the trials that are tried again, since they failed through no fault of their own.
    """

    def __init__(self, trials: Trials, spec: SweepSpec, costs: Costs, reopened: tuple[int, ...] = ()) -> None:
        self._trials = trials
        self._spec = spec
        self._proposals = Proposals(trials, spec, costs)
        self._live: dict[int, _Live] = {}
        self._finished: list[int] = []
        self._unfinished = [r.number for r in trials.records() if r.status == "running" and r.confirms is None]
        self._queue = self._unfinished  # what is to be handed out again
        self._repeats: list[Repeat] | None = None  # what confirms the search, once it is over, and was not begun
        self.reopened = reopened

    @classmethod
    def open(
        cls, folder: Path, spec: SweepSpec, *, edits: Sequence[str] | None = None, costs: Costs = lambda _: {}
    ) -> Study:
        """Open the study in ``folder``, or begin it.

        Args:
            folder: of the sweep.
            spec: what is asked from now on.
            edits: what was changed in the spec since the study was left, in words; None allows no change but of how
                many trials there are and for how long and where they run. Trials keep the settings they were run with.
                With any, even none, trials that failed through no fault of their own are unfinished again
                (``reopened``): somebody goes on with the sweep on purpose.
            costs: returns what is known of a trial's metrics before it runs; what breaks a limit is not run.

        Raises:
            InputError: the folder holds a sweep of another spec, or its journal is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        trials = Trials(folder, spec.goals)
        trials.journal.cut()
        note_spec(trials, spec, folder.name, edits)
        return cls(trials, spec, costs, () if edits is None else trials.reopen())

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have the disk hold what was told."""
        self._trials.journal.sync()

    # Asking

    def ask(self) -> Asked | None:
        """Return the next trial to run, or None when the budget is used up or a small space holds nothing new."""
        while self._queue:
            asked = self._hand_out_again(self._queue.pop(0))
            if asked is not None:
                return asked
        if self._repeats is not None:
            return self._begin_repeat(self._repeats.pop(0)) if self._repeats else None
        for _ in range(MAX_DUPLICATES):
            if not self.has_work:
                return None
            asked = self._add(self._proposals.next())
            if asked is not None:
                return asked
        last = self._proposals.at_random()
        if last is None:
            self._trials.note_study(exhausted_at=self._spec.trials)
        return None if last is None else self._add(last)

    def left(self) -> int:
        """Return how many new trials the budget still allows. What is free does not count."""
        return int(self._spec.trials) - self._trials.counted

    @property
    def has_work(self) -> bool:
        """Whether the search, or what confirms it, has something to run."""
        # Where the space held nothing new for this budget, a larger one looks again.
        is_exhausted = self._trials.attributes.get("exhausted_at", 0) >= self._spec.trials
        return bool(self._unfinished or self._queue or self._repeats) or (self.left() > 0 and not is_exhausted)

    def confirm(self, repeats: Sequence[Repeat]) -> bool:
        """Ask for no trials of the search any more, but for those of ``repeats`` that have not ended; are there any?

        One that was begun is ended, though another trial may be among the best by now.
        """
        records = self._trials.records()
        self._queue = [r.number for r in records if r.confirms is not None and r.status == "running"]
        self._repeats = [repeat for repeat in repeats if repeat.config.digest not in self._trials.digests]
        return bool(self._queue or self._repeats)

    def _begin_repeat(self, repeat: Repeat) -> Asked | None:
        """Hand out a run with a fresh seed. Its settings are all of its config's, with the seed.

        Of a documented experiment, whose name it does not have, the sweep's own would not be those that were run.
        """
        asked = asked_value(repeat.config, repeat.config.model_dump(exclude={"family"}))
        return self._begin(self._trials.add({**asked, "confirms": repeat.confirms}))

    def _add(self, asked: AskedValue) -> Asked | None:
        """Write a trial down and hand it out, unless another one answers it or it breaks a limit."""
        goals, refused = self._spec.goals, asked.get("refused")
        reason = f"not run, since it breaks a constraint: {goals.broken_by(refused)}" if refused else ""
        number = self._trials.add(asked, reason)
        if refused:
            self._finished.append(number)
        return None if refused or "duplicate_of" in asked else self._begin(number)

    def _begin(self, number: int) -> Asked:
        asked, record = self._trials.asked(number), self._trials.record(number)
        self._live[number] = _Live(asked.config, record.experiment is not None, record.confirms is not None)
        return asked

    def _hand_out_again(self, number: int) -> Asked | None:
        record, noted = self._trials.record(number), self._trials.notes(number)
        came_further = record.epochs > noted.get("epochs_before", 0)
        attempts = 1 if came_further else noted.get("attempts", 1) + 1
        if attempts > MAX_ATTEMPTS:
            why = noted.get("lost", "its process died; ray.log in the sweep's folder may tell why.")
            reason = f"lost {MAX_ATTEMPTS} times without finishing another epoch: {why}"
            last = {"epochs": record.epochs, "metrics": record.metrics}
            self._finish(number, "failed", {**last, "reason": reason}, "lost")
            return None
        self._trials.note(number, epochs_before=record.epochs, attempts=attempts, began=time.time())
        return self._begin(number)

    # Telling

    def note_spending(self, read: Callable[[int], Spent | None]) -> None:
        """Write down from now on, with all that is told of a trial, what ``read`` says by its number that it took."""
        self._trials.spending = read

    def report(self, number: int, measurement: Measurement, seconds: float = 0.0) -> bool:
        """Note a measurement; return True when the trial should stop now.

        It should when successive halving says so (then ``tell_pruned`` it), or when a metric is not finite (then it has
        failed already). Documented experiments are never pruned, but others are measured against them; nor is a trial
        that has just finished its last epoch, or a confirming run, against which no other is measured either. Saying
        the same epoch again changes nothing.
        """
        live = self._live.get(number)
        if live is None:
            return True
        epoch, metrics = measurement.epoch, measurement.metrics
        broken = what_is_broken(metrics)
        if broken:
            self._finish(number, "failed", {**live.last, "reason": f"{broken} after epoch {epoch}"}, "diverged")
            return True
        live.last = {"metrics": dict(metrics), "epochs": epoch, "seconds": seconds}
        live.stages = {**measurement.stages, **live.stages}
        if self._trials.report(number, replace(measurement, stages=live.stages)):
            live.stages = {}
        stopping, epochs = self._spec.early_stopping, live.config.epochs
        is_rung = epoch in stopping.rungs(epochs) and not (live.documented or live.confirms)
        return is_rung and is_beaten(self._trials.curves(), number, epoch, epochs, stopping)

    def is_live(self, number: int) -> bool:
        """Whether the trial was handed out and nothing final was told of it."""
        return number in self._live

    def tell_complete(
        self, number: int, metrics: Mapping[str, float], epochs: int, seconds: float, more: Mapping[str, Any]
    ) -> None:
        """Close the trial with its result; with a metric that is not finite it is closed as failed.

        Args:
            number: of the trial.
            metrics: of the last epoch.
            epochs: trained.
            seconds: wall time.
            more: ``reused``, ``model``, ``predictions`` and ``siblings`` of its outcome, as JSON can hold them, and
                ``stages`` as in ``Measurement``, used after the last epoch.
        """
        assert number in self._live
        outcome = {**more, "metrics": dict(metrics), "epochs": epochs, "seconds": seconds}
        broken = what_is_broken(metrics)
        if broken:
            self._finish(number, "failed", {**outcome, "reason": broken}, "diverged")
        else:
            self._finish(number, "complete", outcome)

    def tell_pruned(self, number: int) -> None:
        """Close the trial at its last report."""
        last = self._live[number].last
        reason = f"stopped after epoch {last['epochs']}: others were better by then"
        self._finish(number, "pruned", {**last, "reason": reason})

    def tell_failed(self, number: int, reason: str, failure: str = "") -> None:
        """Close the trial as failed; the reason is shown on the leaderboard. ``failure`` is its kind."""
        self._finish(number, "failed", {**self._live[number].last, "reason": reason}, failure)

    def hand_back(self, number: int, *, counted: bool, retry: Mapping[str, Any] | None = None, why: str = "") -> None:
        """Leave the trial unfinished; ``ask`` returns it again, the next time or when the sweep goes on.

        Args:
            number: of the trial.
            counted: whether this was one of the MAX_ATTEMPTS that it has without a new epoch.
            retry: JSON values that ``ask`` returns with it from now on.
            why: one line for a person, told if this was the last attempt.
        """
        del self._live[number]
        if retry is not None:
            self._trials.note(number, retry=dict(retry))
        if why:
            self._trials.note(number, lost=why)
        if not counted:
            self._uncount(number)
        self._queue.append(number)

    def _uncount(self, number: int) -> None:
        self._trials.note(number, attempts=self._trials.notes(number).get("attempts", 1) - 1)

    @property
    def has_live(self) -> bool:
        """Whether trials were handed out of which nothing final was told; they may come back."""
        return bool(self._live)

    def release(self) -> None:
        """Leave what was handed out unfinished; the next driver gets it first, with no attempt counted."""
        for number in self._live:
            self._uncount(number)
        self._live.clear()

    def _finish(self, number: int, status: Status, outcome: Mapping[str, Any], failure: str = "") -> None:
        live = self._live.pop(number, None)
        answers = outcome.get("siblings", ()) if live is not None and not live.confirms and status == "complete" else ()
        told = {name: value for name, value in outcome.items() if name not in ("siblings", "stages")}
        late_stages = {**outcome.get("stages", {}), **(live.stages if live else {})}
        told |= {"failure": failure, **({"late_stages": late_stages} if late_stages else {})}
        derived = list(derived_of(live.config, answers, self._spec, self._trials.digests)) if live and answers else ()
        first = self._trials.next_number
        self._trials.finish(number, status, told, derived)
        self._finished += [*range(first, self._trials.next_number), number]

    # Reading

    def record(self, number: int) -> TrialRecord:
        """Return what the journal knows of one trial."""
        return self._trials.record(number)

    def records(self) -> list[TrialRecord]:
        """Return every trial with its twins, in the order of asking."""
        return self._trials.records()

    def take_finished(self) -> list[TrialRecord]:
        """Return the trials finished since the last call, derived ones before the one that answered them; no twins."""
        numbers, self._finished = self._finished, []
        return [self.record(number) for number in numbers]
