"""The durable study: what was asked, what came of it, and what to try next.

Everything is in one journal file beside the sweep. Whoever opens it again finds every trial, finished or not: trials
that a dead driver left running are handed out first, then what ``sweeps.study.proposals`` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.failures import NO_FAULT
from sweeps.spec.space import parameters_of
from sweeps.study.confirmation import Repeat
from sweeps.study.proposals import Costs, Proposals, derived_of
from sweeps.study.records import History
from sweeps.trial import Spent, Status, TrialRecord, what_is_broken, whole_outcome

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# So many deaths in a row without a new epoch mean that the trial is to blame.
MAX_ATTEMPTS = 3
# So many duplicates in a row mean that the sampler names only what is known.
MAX_DUPLICATES = 20


class Asked(NamedTuple):
    """A trial to run; ``retry`` is what ``Study.hand_back`` was given of it."""

    number: int
    experiment: str | None
    settings: Mapping[str, Any]
    config: TrialConfig
    retry: Mapping[str, Any] = {}


class Study:
    """The study of one sweep. Use ``Study.open``; close it, or use it as a context manager.

    One driver, one thread: whoever opens it has locked the sweep (see sweeps.lock).

    Attributes:
        reopened: numbers of the trials that are tried again, since they failed through no fault of their own. They
            keep their numbers and their checkpoints, and have all attempts; how they had failed stays in the journal.
    """

    def __init__(self, history: History, spec: SweepSpec, costs: Costs, *, reopen: bool) -> None:
        self._history, self._spec, self._proposals = history, spec, Proposals(history, spec, costs)
        self._live: set[int] = set()  # what was handed out
        self._finished: list[int] = []
        self._repeats: list[Repeat] | None = None  # what confirms the search, once it is over, and was not begun
        self.reopened = tuple(r.number for r in history.records if reopen and r.failure in NO_FAULT)
        for number in self.reopened:
            history.note(number, outcome=None, attempts=0)

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
            costs: what breaks a limit by them is not run.

        Raises:
            InputError: the folder holds a sweep of another spec, or its journal is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        history = History(folder, spec.goals)
        history.begin_session(spec, folder.name, edits)
        return cls(history, spec, costs, reopen=edits is not None)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have the disk hold what was told."""
        self._history.journal.sync()

    def ask(self) -> Asked | None:
        """Return the next trial to run, or None when the budget is used up or a small space holds nothing new."""
        for number in self._left_unfinished(confirming=self._repeats is not None):
            asked = self._hand_out_again(number)
            if asked is not None:
                return asked
        if self._repeats is not None:
            return self._repeat(*self._repeats.pop(0)) if self._repeats else None
        for _ in range(MAX_DUPLICATES):
            if not self.has_work:
                return None
            config, named = self._proposals.next()
            asked = self._add(config, **named)
            if asked is not None:
                return asked
        last = self._proposals.at_random()
        if last is None:
            self._history.note(None, exhausted_at=self._spec.trials)
        return None if last is None else self._add(last)

    def _left_unfinished(self, *, confirming: bool) -> list[int]:
        """Return what nobody is at and has not ended: of the search, or of what confirms it."""
        asked = {number: self._history.notes(number)["asked"] for number in self._history.unfinished - self._live}
        return sorted(number for number in asked if ("confirms" in asked[number]) == confirming)

    def left(self) -> int:
        """Return how many new trials the budget still allows. What is free does not count."""
        return int(self._spec.trials) - self._history.counted

    @property
    def has_work(self) -> bool:
        """Whether the search, or what confirms it once that has begun, has something to run."""
        # Where the space held nothing new for this budget, a larger one looks again.
        is_exhausted = self._history.noted.get("exhausted_at", 0) >= self._spec.trials
        searches = self.left() > 0 and not is_exhausted
        return searches or bool(self._left_unfinished(confirming=False) or self._has_repeats())

    def _has_repeats(self) -> bool:
        return self._repeats is not None and bool(self._repeats or self._left_unfinished(confirming=True))

    def confirm(self, repeats: Sequence[Repeat]) -> bool:
        """Ask for no trials of the search any more, but for those of ``repeats`` that have not ended; are there any?

        One that was begun is ended, though another trial may be among the best by now.
        """
        self._repeats = [repeat for repeat in repeats if repeat.config.digest not in self._history.digests]
        return self._has_repeats()

    def _repeat(self, confirms: int, config: TrialConfig) -> Asked | None:
        # Of a documented experiment, whose name the run does not have, the sweep's own settings would be others.
        return self._add(config, confirms=confirms, settings=config.model_dump(exclude={"family"}))

    def _add(self, config: TrialConfig, **named: Any) -> Asked | None:
        """Write a trial down and hand it out, unless another one answers it or it breaks a limit.

        It is named by its ``experiment`` or ``start``, or by the number that it ``confirms``, with its ``settings``.
        """
        number, answer = self._history.next_number, self._proposals.answer(config, is_named=bool(named))
        asked = {"number": number, "experiment": None, "settings": parameters_of(config, self._spec.search), **named}
        noted = {"asked": {**asked, "config": config.model_dump(), "digest": config.digest, **answer}}
        if "refused" in answer:
            reason = f"not run, since it breaks a constraint: {self._spec.goals.broken_by(answer['refused'])}"
            noted["outcome"] = whole_outcome("pruned", {"metrics": answer["refused"], "reason": reason})
            self._finished.append(number)
        self._history.write({"user_attrs": {**noted, "began": time.time()}})
        return None if answer else self._begin(number)

    def _begin(self, number: int) -> Asked:
        self._live.add(number)
        asked, retry = self._history.notes(number)["asked"], self._history.notes(number).get("retry", {})
        config = TrialConfig.model_validate(asked["config"])
        return Asked(number, asked["experiment"], asked["settings"], config, retry)

    def _hand_out_again(self, number: int) -> Asked | None:
        epochs, noted = self.record(number).epochs, self._history.notes(number)
        attempts = 1 if epochs > noted.get("epochs_before", 0) else noted.get("attempts", 1) + 1
        if attempts > MAX_ATTEMPTS:
            why = noted.get("lost", "its process died; ray.log in the sweep's folder may tell why.")
            self.tell_failed(number, f"lost {MAX_ATTEMPTS} times without finishing another epoch: {why}", "lost")
            return None
        self._history.note(number, epochs_before=epochs, attempts=attempts, began=time.time())
        return self._begin(number)

    def note_spending(self, read: Callable[[int], Spent | None]) -> None:
        """Write down from now on, with all that is told of a trial, what ``read`` says by its number that it took."""
        self._history.spending = read

    def note_processes(self, number: int, processes: int) -> None:
        """Write down in how many processes a trial trains from now on, where it was another number."""
        if self.record(number).config.get("processes", 1) != processes:
            self._history.note(number, processes=processes)

    def note_worker(self, number: int, worker: str) -> None:
        """Write down which process runs a trial from now on, as ``TrialRecord`` has it, where it was another one."""
        if self._history.notes(number).get("worker", "") != worker:
            self._history.note(number, worker=worker)

    def report(self, number: int, measurement: Measurement) -> bool:
        """Note a measurement; return True when the trial should stop now.

        It should when successive halving says so (then ``tell_pruned`` it), or when a metric is not finite (then it has
        failed already). Documented experiments are never pruned, but others are measured against them; nor is a trial
        that has just finished its last epoch, or a confirming run, against which no other is measured either. Saying
        the same epoch again changes nothing.
        """
        if number not in self._live:
            return True
        broken = what_is_broken(measurement.metrics)
        if broken:
            self.tell_failed(number, f"{broken} after epoch {measurement.epoch}", "diverged")
            return True
        self._history.report(number, measurement)
        return self._history.is_beaten(number, measurement.epoch, self._spec.early_stopping)

    def is_live(self, number: int) -> bool:
        """Whether the trial was handed out and nothing final was told of it."""
        return number in self._live

    def tell_complete(self, number: int, outcome: Mapping[str, Any]) -> None:
        """Close the trial with its result; with a metric that is not finite it is closed as failed.

        Args:
            number: of the trial.
            outcome: an ``Outcome`` as JSON has it, and ``stages`` as in ``Measurement``, used after the last epoch.
        """
        broken = what_is_broken(outcome["metrics"])
        failed = {"reason": broken, "failure": "diverged"} if broken else {}
        self._finish(number, "failed" if broken else "complete", {**outcome, **failed})

    def tell_pruned(self, number: int) -> None:
        """Close the trial at its last report."""
        epochs = self.record(number).epochs
        self._finish(number, "pruned", {"reason": f"stopped after epoch {epochs}: others were better by then"})

    def tell_failed(self, number: int, reason: str, failure: str = "") -> None:
        """Close the trial as failed; the reason is shown on the leaderboard. ``failure`` is its kind."""
        self._finish(number, "failed", {"reason": reason, "failure": failure})

    def hand_back(self, number: int, *, counted: bool, retry: Mapping[str, Any] | None = None, why: str = "") -> None:
        """Leave the trial unfinished; ``ask`` returns it again, the next time or when the sweep goes on.

        Args:
            number: of the trial.
            counted: whether this was one of the MAX_ATTEMPTS that it has without a new epoch.
            retry: JSON values that ``ask`` returns with it from now on.
            why: one line for a person, told if this was the last attempt.
        """
        noted = {"retry": dict(retry) if retry else None, "lost": why}
        self._leave(number, counted=counted, **{name: value for name, value in noted.items() if value})

    def release(self) -> None:
        """Leave what was handed out unfinished; the next driver gets it first, with no attempt counted."""
        for number in tuple(self._live):
            self._leave(number, counted=False)

    def _leave(self, number: int, *, counted: bool, **noted: Any) -> None:
        self._live.remove(number)
        self._history.note(number, **noted, attempts=self._history.notes(number).get("attempts", 1) - (not counted))

    def _finish(self, number: int, status: Status, outcome: Mapping[str, Any]) -> None:
        """Close a trial at its last measurement, unless ``outcome`` has another; list the trials that it answered."""
        record, noted, first = self.record(number), self._history.notes(number), self._history.next_number
        whole = whole_outcome(status, {"metrics": record.metrics, "epochs": record.epochs, **outcome})
        answers, stages = whole.pop("derived", ()), {**whole.pop("stages", {}), **noted.get("late_stages", {})}
        whole |= {"late_stages": stages} if stages else {}
        if answers and status == "complete" and record.confirms is None:
            config = TrialConfig.model_validate(noted["asked"]["config"])
            derived = derived_of(config, answers, self._spec, self._history.digests)
            whole["derived"] = [{"number": first + place, **one} for place, one in enumerate(derived)]
        self._live.discard(number)
        self._history.note(number, outcome=whole)
        self._finished += [*range(first, self._history.next_number), number]

    def record(self, number: int) -> TrialRecord:
        """Return what the journal knows of one trial."""
        return self._history.record(number)

    def records(self) -> list[TrialRecord]:
        """Return every trial with its duplicates, in the order of asking."""
        return list(self._history.records)

    def take_finished(self) -> list[TrialRecord]:
        """Return the trials finished since the last call, derived ones before their parents; no duplicates."""
        numbers, self._finished = self._finished, []
        return [self.record(number) for number in numbers]
