"""The durable study: what was asked, what came of it, and what to try next. With its parts, all there is of optuna.

Everything is in one journal file beside the sweep. Whoever opens it again finds every trial, finished or not: trials
that a dead driver left running are handed out first, then documented experiments not yet run, then new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from carcls.config import TrialConfig
from carcls.outcome import Measurement
from sweeps.confirm import Repeat
from sweeps.record import Status, TrialRecord
from sweeps.study_book import Book
from sweeps.study_confirm import Confirming, confirming_trial, is_confirming, searched
from sweeps.study_goals import refused_of
from sweeps.study_history import JOURNAL, note_spec, reopen
from sweeps.study_lines import OBJECTIVE
from sweeps.study_next import Costs, Proposals
from sweeps.study_parts import Journal, asked_of, load, what_is_broken
from sweeps.study_rungs import is_beaten
from sweeps.study_trials import Asked, Live, last_of

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

# So many deaths in a row without a new epoch mean that the trial is to blame.
MAX_ATTEMPTS = 3
# So many duplicates in a row mean that the sampler names only what is known.
MAX_DUPLICATES = 20

__all__ = ["Asked", "Costs", "Study", "TrialRecord"]


class Study:
    """The study of one sweep. Use ``Study.open``; close it, or use it as a context manager.

    One driver, one thread: whoever opens it holds the sweep (see sweeps.holding).
    """

    def __init__(self, study: optuna.Study, spec: SweepSpec, journal: Journal, costs: Costs = lambda _: {}) -> None:
        self._spec = spec
        self._book = Book(study, spec, journal)
        self._live: dict[int, Live] = {}
        self._proposals = Proposals(self._book, spec, costs)
        self._confirming: Confirming | None = None
        self.reopened: tuple[int, ...] = ()
        self._unfinished = [n for n in self._book.settle_the_past() if not is_confirming(self._book.frozen(n))]

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
        reopened = () if edits is None else reopen(folder / JOURNAL)
        journal = Journal(folder / JOURNAL)
        study = load(journal)
        note_spec(study, spec, folder, edits)
        opened = cls(study, spec, journal, costs)
        opened.reopened = tuple(n for n in reopened if "duplicate_of" not in asked_of(opened._book.frozen(n)))
        return opened

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have the disk hold what was told."""
        self._book.sync()

    # Asking

    def ask(self) -> Asked | None:
        """Return the next trial to run, or None when the budget is used up or a small space holds nothing new."""
        while self._to_go_on_with:
            asked = self._hand_out_again(self._to_go_on_with.pop(0))
            if asked is not None:
                return asked
        if self._confirming is not None:
            return self._begin_repeat(self._confirming.new.pop(0)) if self._confirming.new else None
        for _ in range(MAX_DUPLICATES):
            if not self.has_work:
                return None
            asked = self._begin(self._book.add(self._proposals.next()))
            if asked is not None:
                return asked
        trial = self._proposals.at_random()
        if trial is None:
            self._book.exhausted_at = self._spec.trials
        return None if trial is None else self._begin(self._book.add(trial))

    def left(self) -> int:
        """Return how many new trials the budget still allows. What is free does not count."""
        return int(self._spec.trials) - self._book.index.counted

    @property
    def has_work(self) -> bool:
        """Whether the search has something to run."""
        return bool(self._unfinished) or (self.left() > 0 and not self._is_exhausted)

    def confirm(self, repeats: Sequence[Repeat]) -> bool:
        """Ask for no trials of the search any more, but for those of ``repeats`` that have not ended; are there any?"""
        known = [self._book.index.digests.get(repeat.config.digest) for repeat in repeats]
        self._confirming = Confirming(
            unfinished=[n for n in known if n is not None and self._book.frozen(n).state is TrialState.RUNNING],
            new=[repeat for repeat, number in zip(repeats, known, strict=True) if number is None],
        )
        return bool(self._confirming.unfinished or self._confirming.new)

    def _begin_repeat(self, repeat: Repeat) -> Asked | None:
        return self._begin(self._book.add(confirming_trial(repeat)))

    @property
    def _is_exhausted(self) -> bool:
        """Whether the space held nothing new for this budget; a larger one looks again."""
        return self._book.exhausted_at >= self._spec.trials

    def _begin(self, frozen: FrozenTrial) -> Asked | None:
        """Hand out a trial of the book, unless another one answers it or it breaks a limit."""
        asked = asked_of(frozen)
        if "duplicate_of" in asked:
            self._book.settle_duplicate(frozen)
            return None
        refused = refused_of(asked)
        if refused is not None:
            reason = f"not run, since it breaks a constraint: {self._spec.goals.broken_by(refused)}"
            self._finish(frozen.number, "pruned", None, {"metrics": refused, "reason": reason})
            return None
        config = TrialConfig.model_validate(asked["config"])
        documented = asked["experiment"] is not None
        self._live[frozen.number] = Live(self._book.attach(frozen), documented, config.epochs, is_confirming(frozen))
        retry = frozen.user_attrs.get("retry", {})
        return Asked(frozen.number, asked["experiment"], asked["settings"], config, retry)

    def _hand_out_again(self, number: int) -> Asked | None:
        frozen = self._book.frozen(number)
        epochs = frozen.last_step or 0
        came_further = epochs > frozen.user_attrs.get("epochs_before", 0)
        attempts = 1 if came_further else frozen.user_attrs.get("attempts", 1) + 1
        if attempts > MAX_ATTEMPTS:
            why = frozen.user_attrs.get("lost", "its process died; ray.log in the sweep's folder may tell why.")
            reason = f"lost {MAX_ATTEMPTS} times without finishing another epoch: {why}"
            outcome = {
                "epochs": epochs,
                "metrics": self._book.record(number).metrics,
                "reason": reason,
                "failure": "lost",
            }
            self._finish(number, "failed", None, outcome)
            return None
        self._book.note(frozen, epochs_before=epochs, attempts=attempts)
        return self._begin(frozen)

    # Telling

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
            reason = f"{broken} after epoch {epoch}"
            self._finish(number, "failed", None, {**last_of(live), "reason": reason, "failure": "diverged"})
            return True
        live.epochs, live.metrics, live.seconds = epoch, dict(metrics), seconds
        live.stages = {**measurement.stages, **live.stages}
        if self._book.report(live.trial, replace(measurement, stages=live.stages)):
            live.stages = {}
        stopping = self._spec.early_stopping
        is_rung = epoch in stopping.rungs(live.last_epoch) and not (live.documented or live.confirms)
        live.pruned = is_rung and is_beaten(searched(self._book.known()), number, epoch, live.last_epoch, stopping)
        return live.pruned

    def is_live(self, number: int) -> bool:
        """Whether the trial was handed out and nothing final was told of it."""
        return number in self._live

    def should_be_pruned(self, number: int) -> bool:
        """Whether the last report of the trial said that it should stop."""
        return self._live[number].pruned

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
        broken = what_is_broken(metrics)
        outcome = {**more, "metrics": dict(metrics), "epochs": epochs, "seconds": seconds}
        if broken:
            self._finish(number, "failed", None, {**outcome, "reason": broken, "failure": "diverged"})
        else:
            self._finish(number, "complete", metrics[OBJECTIVE], outcome)

    def tell_pruned(self, number: int) -> None:
        """Close the trial at its last report."""
        live = self._live[number]
        reason = f"stopped after epoch {live.epochs}: others were better by then"
        self._finish(number, "pruned", None, {**last_of(live), "reason": reason})

    def tell_failed(self, number: int, reason: str, failure: str = "") -> None:
        """Close the trial as failed; the reason is shown on the leaderboard. ``failure`` is its kind."""
        self._finish(number, "failed", None, {**last_of(self._live[number]), "reason": reason, "failure": failure})

    def hand_back(self, number: int, *, counted: bool, retry: Mapping[str, Any] | None = None, why: str = "") -> None:
        """Leave the trial unfinished; ``ask`` returns it again, the next time or when the sweep goes on.

        Args:
            number: of the trial.
            counted: whether this was one of the MAX_ATTEMPTS that it has without a new epoch.
            retry: JSON values that ``ask`` returns with it from now on.
            why: one line for a person, told if this was the last attempt.
        """
        live = self._live.pop(number)
        if retry is not None:
            live.trial.set_user_attr("retry", dict(retry))
        if why:
            live.trial.set_user_attr("lost", why)
        if not counted:
            live.trial.set_user_attr("attempts", live.trial.user_attrs.get("attempts", 1) - 1)
        self._to_go_on_with.append(number)

    @property
    def _to_go_on_with(self) -> list[int]:
        return self._unfinished if self._confirming is None else self._confirming.unfinished

    @property
    def has_live(self) -> bool:
        """Whether trials were handed out of which nothing final was told; they may come back."""
        return bool(self._live)

    def release(self) -> None:
        """Leave what was handed out unfinished; the next driver gets it first, with no attempt counted."""
        for live in self._live.values():
            attempts = live.trial.user_attrs.get("attempts", 1)
            live.trial.set_user_attr("attempts", attempts - 1)
        self._live.clear()

    def _finish(self, number: int, status: Status, value: float | None, outcome: Mapping[str, Any]) -> None:
        live = self._live.get(number)
        stages = {**outcome.get("stages", {}), **(live.stages if live else {})}
        self._book.finish(number, status, value, {**outcome, "stages": stages} if stages else outcome)
        self._live.pop(number, None)

    # Reading

    def record(self, number: int) -> TrialRecord:
        """Return what the journal knows of one trial."""
        return self._book.record(number)

    def records(self, *, duplicates: bool = False) -> list[TrialRecord]:
        """Return every trial with its twins, in the order of asking; the twins' own records when asked for instead."""
        return self._book.records(duplicates=duplicates)

    def take_finished(self) -> list[TrialRecord]:
        """Return the trials finished since the last call, without duplicates."""
        return self._book.take_finished()
