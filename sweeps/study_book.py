"""The book of a study: its trials as the journal has them, looked up, added, closed, and their results passed on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from carcls.outcome import Measurement
from sweeps.record import Status, TrialRecord
from sweeps.study_confirm import is_confirming
from sweeps.study_index import Index
from sweeps.study_lines import OBJECTIVE, measured_in
from sweeps.study_parts import STATES, Journal, asked_of, record_of, to_distribution
from sweeps.study_siblings import sibling_trials
from sweeps.study_trials import duplicate_reason
from sweeps.study_twins import records_with_twins

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec


class Book:
    """The trials of one study.

    Args:
        study: in the journal.
        spec: of the sweep.
        journal: what ``study`` is written to.

    Attributes:
        index: what is looked up for every trial.
        distributions: of the searched settings.
    """

    def __init__(self, study: optuna.Study, spec: SweepSpec, journal: Journal) -> None:
        self._study = study
        self._spec = spec
        self._journal = journal
        self._finished: list[int] = []
        self.distributions = {name: to_distribution(domain) for name, domain in spec.search.items()}
        self.index = Index.of(study.get_trials(deepcopy=False), spec.goals)

    # Reading

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        self._journal.sync()

    def known(self) -> list[FrozenTrial]:
        """Return the trials that were really asked; a driver that dies in the middle of asking leaves others."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if "asked" in trial.user_attrs]

    def frozen(self, number: int) -> FrozenTrial:
        """Return a trial by its number."""
        storage = self._study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    def place(self) -> int:
        """Return the number of trials in the journal, without confirming runs: the search goes on as without them."""
        return self.index.total - self.index.confirming

    def records(self, *, duplicates: bool) -> list[TrialRecord]:
        """Return every trial with its twins; with ``duplicates`` the twins' own records instead."""
        if duplicates:
            return [record_of(trial, self._journal) for trial in self.known()]
        return records_with_twins(self.known(), self._journal)

    def record(self, number: int) -> TrialRecord:
        """Return what the journal knows of one trial."""
        return record_of(self.frozen(number), self._journal)

    def take_finished(self) -> list[TrialRecord]:
        """Return the trials finished since the last call, without duplicates."""
        numbers, self._finished = self._finished, []
        return [self.record(number) for number in numbers]

    # Writing

    @property
    def exhausted_at(self) -> int:
        """For how many trials the space was found to hold nothing new."""
        found: int = self._study.user_attrs.get("exhausted_at", 0)
        return found

    @exhausted_at.setter
    def exhausted_at(self, trials: int) -> None:
        self._study.set_user_attr("exhausted_at", trials)

    def add(self, trial: FrozenTrial) -> FrozenTrial:
        """Write a new trial down and return it with its number."""
        self._study.add_trial(trial)
        added = self.frozen(self.index.total)
        self.index.add(added)
        return added

    def attach(self, frozen: FrozenTrial) -> Trial:
        """Return a handle on a trial."""
        # It draws parameters that are never used; random ones cost the least.
        self._study.sampler = RandomSampler(seed=0)
        return Trial(self._study, frozen._trial_id)

    def note(self, frozen: FrozenTrial, **attributes: Any) -> None:
        """Write attributes of a trial down."""
        for name, value in attributes.items():
            self._study._storage.set_trial_user_attr(frozen._trial_id, name, value)

    def report(self, trial: Trial, measurement: Measurement) -> bool:
        """Write an epoch down; tell whether that is news: one that was told is not told again."""
        if measurement.epoch in self.frozen(trial.number).intermediate_values:
            return False
        with self._journal.adding(measured=measured_in(measurement)):
            trial.report(measurement.metrics[OBJECTIVE], measurement.epoch)
        return True

    def finish(self, number: int, status: Status, value: float | None, outcome: Mapping[str, Any]) -> None:
        """Close a trial, and what waits for its result; add what it answered besides."""
        metrics = {name: float(x) for name, x in outcome.get("metrics", {}).items() if math.isfinite(x)}
        whole = {"epochs": 0, "seconds": 0.0, "reason": "", **outcome, "metrics": metrics, "status": status}
        self.note(self.frozen(number), outcome=whole)
        self._tell(number, status, value)
        if "duplicate_of" not in asked_of(self.frozen(number)):
            self._finished.append(number)
        for other in map(self.frozen, self.index.copies.pop(number, ())):
            if other.state is TrialState.RUNNING:
                self.settle_duplicate(other)
        if status == "complete":
            self._tell_siblings(self.frozen(number))

    def settle_duplicate(self, frozen: FrozenTrial) -> None:
        """Give a duplicate its twin's result, when the twin has one."""
        twin = self.frozen(asked_of(frozen)["duplicate_of"])
        if twin.state is TrialState.RUNNING:
            return
        outcome = {**twin.user_attrs["outcome"], "seconds": 0.0, "reason": duplicate_reason(asked_of(frozen))}
        if outcome["status"] == "pruned" and OBJECTIVE in outcome["metrics"]:
            last = Measurement(outcome["epochs"], outcome["metrics"], trained=False)
            self.report(self.attach(frozen), last)
        self.finish(frozen.number, outcome["status"], outcome["metrics"].get(OBJECTIVE), outcome)

    def _tell_siblings(self, parent: FrozenTrial) -> None:
        """Add what a complete trial answered besides; what is there already is not added again."""
        if not parent.user_attrs["outcome"].get("siblings") or is_confirming(parent):
            return
        known = set(self.index.digests) | {config.digest for _, config in self._spec.experiment_configs()}
        with self._journal.without_waiting():  # the parent's outcome, which has them all, is on the disk
            for sibling in sibling_trials(parent, self._spec, self.distributions, known):
                self.add(sibling)

    def _tell(self, number: int, status: Status, value: float | None) -> None:
        self._study.tell(number, value if status == "complete" else None, STATES[status])

    def settle_the_past(self) -> list[int]:
        """Close what a dead driver left half told; return the numbers of unfinished trials."""
        unfinished = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            outcome = trial.user_attrs.get("outcome")
            if "asked" not in trial.user_attrs:
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif outcome is not None:
                self._tell(trial.number, outcome["status"], outcome["metrics"].get(OBJECTIVE))
            elif "duplicate_of" not in asked_of(trial):
                unfinished.append(trial.number)
        for trial in self.known():
            if trial.state is TrialState.RUNNING and "duplicate_of" in asked_of(trial):
                self.settle_duplicate(trial)
            elif trial.state is TrialState.COMPLETE:
                self._tell_siblings(trial)
        return unfinished
