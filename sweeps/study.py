"""The durable study: what was asked, what came of it, and what to try next. With its parts, all there is of optuna.

Everything is in one journal file beside the sweep. Whoever opens it again finds every trial, finished or not: trials
that a dead driver left running are handed out first, then documented experiments not yet run, then new ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from carcls.config import TrialConfig
from sweeps.confirm import Repeat
from sweeps.holding import give_back, take
from sweeps.record import Status, TrialRecord
from sweeps.space_conditions import fits, parameters_of
from sweeps.study_confirm import Confirming, confirming_trial, is_confirming, searched
from sweeps.study_goals import refused_of
from sweeps.study_history import JOURNAL, mend, note_spec
from sweeps.study_index import Index
from sweeps.study_parts import (
    OBJECTIVE,
    STATES,
    Journal,
    asked_of,
    from_distribution,
    load,
    record_of,
    to_distribution,
    what_is_broken,
)
from sweeps.study_rungs import is_beaten
from sweeps.study_sampling import draw, draw_new
from sweeps.study_siblings import sibling_trials
from sweeps.study_trials import Asked, Live, asked_value, duplicate_reason, last_of
from sweeps.study_twins import near_twin

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

Costs = Callable[[TrialConfig], Mapping[str, float]]
# So many deaths in a row without a new epoch mean that the trial is to blame.
MAX_ATTEMPTS = 3
# So many duplicates in a row mean that the sampler names only what is known.
MAX_DUPLICATES = 20

__all__ = ["Asked", "Status", "Study", "TrialRecord", "fits", "from_distribution", "to_distribution"]


class Study:
    """The study of one sweep. Use ``Study.open``; close it, or use it as a context manager.

    One driver, one thread: the sweep's lock keeps a second driver out (see sweeps.holding).
    """

    def __init__(self, study: optuna.Study, spec: SweepSpec, journal: Journal, costs: Costs = lambda _: {}) -> None:
        self._study = study
        self._spec = spec
        self._lock: tuple[Path, FileLock | None] | None = None
        self._journal = journal
        self._distributions = {name: to_distribution(domain) for name, domain in spec.search.items()}
        self._live: dict[int, Live] = {}
        self._finished: list[int] = []
        self._costs = costs
        self._index = Index.of(study.get_trials(deepcopy=False), spec.goals)
        self._prepared: dict[int, list[FrozenTrial]] = {}
        self._confirming: Confirming | None = None
        self._unfinished = [n for n in self._settle_the_past() if not is_confirming(self._frozen(n))]

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
            costs: returns what is known of a trial's metrics before it runs; what breaks a limit is not run.

        Raises:
            InputError: another process drives this sweep, the folder holds a sweep of another spec, or its journal is
                damaged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = take(folder)
        try:
            mend(folder / JOURNAL)
            journal = Journal(folder / JOURNAL)
            study = load(journal)
            note_spec(study, spec, folder, edits)
            opened = cls(study, spec, journal, costs)
            opened._lock = (folder, lock)
            return opened
        except BaseException:
            give_back(folder, lock)
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process drive this sweep."""
        if self._lock is not None:
            self._journal.sync()
            give_back(*self._lock)
            self._lock = None

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
            asked = self._ask_new()
            if asked is not None:
                return asked
        asked = self._begin_any_new()
        if asked is None:
            self._study.set_user_attr("exhausted_at", self._spec.trials)
        return asked

    def left(self) -> int:
        """Return how many new trials the budget still allows. What is free does not count."""
        return int(self._spec.trials) - self._index.counted

    @property
    def has_work(self) -> bool:
        """Whether the search has something to run."""
        return bool(self._unfinished) or (self.left() > 0 and not self._is_exhausted)

    def confirm(self, repeats: Sequence[Repeat]) -> bool:
        """Ask for no trials of the search any more, but for those of ``repeats`` that have not ended; are there any?"""
        known = [self._index.digests.get(repeat.config.digest) for repeat in repeats]
        self._confirming = Confirming(
            unfinished=[n for n in known if n is not None and self._frozen(n).state is TrialState.RUNNING],
            new=[repeat for repeat, number in zip(repeats, known, strict=True) if number is None],
        )
        return bool(self._confirming.unfinished or self._confirming.new)

    def _begin_repeat(self, repeat: Repeat) -> Asked | None:
        return self._begin(self._add(confirming_trial(repeat)), None)

    def _add(self, trial: FrozenTrial) -> FrozenTrial:
        """Add a trial to the journal; return it as the journal has it."""
        self._study.add_trial(trial)
        added = self._frozen(self._index.total)
        self._index.add(added)
        return added

    @property
    def _is_exhausted(self) -> bool:
        """Whether the space held nothing new for this budget; a larger one looks again."""
        exhausted_at: int = self._study.user_attrs.get("exhausted_at", 0)
        return exhausted_at >= self._spec.trials

    def _ask_new(self) -> Asked | None:
        done = self._index.begun
        for name, config in self._spec.experiment_configs():
            if name not in done:
                return self._begin_given(config, name)
        for place, settings in enumerate(self._spec.starts):
            if f"starts[{place}]" not in done:
                return self._begin_given(self._spec.trial_config(settings), None, start=f"starts[{place}]")
        return self._begin_search_trial()

    def _begin_given(self, config: TrialConfig, experiment: str | None, start: str | None = None) -> Asked | None:
        settings = parameters_of(config, self._spec.search)
        known = {key: value for key, value in settings.items() if fits(self._spec.search[key], value)}
        twin, is_near = self._index.digests.get(config.digest), False
        if twin is None and experiment is None and start is None:
            twin = near_twin(searched(self._known()), config, self._spec.search, self._spec.near)
            is_near = twin is not None
        asked = asked_value(experiment, settings, config, twin, is_near=is_near)
        if twin is None and self._refusal(config):
            asked["refused"] = dict(self._costs(config))
        template = create_trial(
            state=TrialState.RUNNING,
            params=known,
            distributions={key: self._distributions[key] for key in known},
            user_attrs={"asked": asked if start is None else {**asked, "start": start}},
        )
        template.datetime_start = datetime.now()
        return self._begin(self._add(template), twin)

    def _begin_search_trial(self) -> Asked | None:
        trials = searched(self._known())
        drawn = draw(trials, self._distributions, self._spec.seed, self._place(), self._spec.goals, self._prepared)
        return self._begin_given(self._spec.searched_config(drawn), None)

    def _begin_any_new(self) -> Asked | None:
        """Begin a trial at random that nobody has answered, where the sampler names only what is known."""
        known, spec = searched(self._known()), self._spec

        def is_useless(config: TrialConfig) -> bool:
            near = near_twin(known, config, spec.search, spec.near)
            return config.digest in self._index.digests or near is not None or bool(self._refusal(config))

        config = draw_new(spec, is_useless, self._place())
        return None if config is None else self._begin_given(config, None)

    def _place(self) -> int:
        """Return the number of trials in the journal, without confirming runs: the search goes on as without them."""
        return self._index.total - self._index.confirming

    def _begin(self, frozen: FrozenTrial, twin: int | None) -> Asked | None:
        if twin is not None:
            self._settle_duplicate(frozen)
            return None
        asked = asked_of(frozen)
        refused = refused_of(asked)
        if refused is not None:
            reason = f"not run, since it breaks a constraint: {self._spec.goals.broken_by(refused)}"
            self._finish(frozen.number, "pruned", None, {"metrics": refused, "reason": reason})
            return None
        config = TrialConfig.model_validate(asked["config"])
        documented = asked["experiment"] is not None
        self._live[frozen.number] = Live(self._attach(frozen), documented, config.epochs, is_confirming(frozen))
        retry = frozen.user_attrs.get("retry", {})
        return Asked(frozen.number, asked["experiment"], asked["settings"], config, retry)

    def _refusal(self, config: TrialConfig) -> str:
        """Return which limits a trial breaks by what is known before it runs, or nothing."""
        goals = self._spec.goals
        return goals.broken_by(self._costs(config)) if goals.constraints else ""

    def _attach(self, frozen: FrozenTrial) -> Trial:
        # A handle on a trial draws parameters that are never used; random ones cost the least.
        self._study.sampler = RandomSampler(seed=0)
        return Trial(self._study, frozen._trial_id)

    def _hand_out_again(self, number: int) -> Asked | None:
        frozen = self._frozen(number)
        epochs = frozen.last_step or 0
        came_further = epochs > frozen.user_attrs.get("epochs_before", 0)
        attempts = 1 if came_further else frozen.user_attrs.get("attempts", 1) + 1
        if attempts > MAX_ATTEMPTS:
            reason = f"its process died {MAX_ATTEMPTS} times without finishing another epoch; see ray.log."
            outcome = {"epochs": epochs, "metrics": record_of(frozen).metrics, "reason": reason, "failure": "lost"}
            self._finish(number, "failed", None, outcome)
            return None
        for name, value in (("epochs_before", epochs), ("attempts", attempts)):
            self._study._storage.set_trial_user_attr(frozen._trial_id, name, value)
        return self._begin(frozen, None)

    # Duplicates

    def _settle_duplicate(self, frozen: FrozenTrial) -> None:
        """Give a duplicate its twin's result, when the twin has one."""
        twin = self._frozen(asked_of(frozen)["duplicate_of"])
        if twin.state is TrialState.RUNNING:
            return
        outcome = {**twin.user_attrs["outcome"], "seconds": 0.0, "reason": duplicate_reason(asked_of(frozen))}
        if outcome["status"] == "pruned" and OBJECTIVE in outcome["metrics"]:
            self._report(self._attach(frozen), outcome["epochs"], outcome["metrics"][OBJECTIVE])
        self._finish(frozen.number, outcome["status"], outcome["metrics"].get(OBJECTIVE), outcome)

    # Telling

    def report(self, number: int, epoch: int, metrics: Mapping[str, float], seconds: float = 0.0) -> bool:
        """Note a measurement; return True when the trial should stop now.

        It should when successive halving says so (then ``tell_pruned`` it), or when a metric is not finite (then it has
        failed already). Documented experiments are never pruned, but others are measured against them; nor is a trial
        that has just finished its last epoch, or a confirming run, against which no other is measured either. Saying
        the same epoch again changes nothing.
        """
        live = self._live.get(number)
        if live is None:
            return True
        broken = what_is_broken(metrics)
        if broken:
            reason = f"{broken} after epoch {epoch}"
            self._finish(number, "failed", None, {**last_of(live), "reason": reason, "failure": "diverged"})
            return True
        live.epochs, live.metrics, live.seconds = epoch, dict(metrics), seconds
        self._report(live.trial, epoch, metrics[OBJECTIVE])
        stopping = self._spec.early_stopping
        is_rung = epoch in stopping.rungs(live.last_epoch) and not (live.documented or live.confirms)
        live.pruned = is_rung and is_beaten(searched(self._known()), number, epoch, live.last_epoch, stopping)
        return live.pruned

    @staticmethod
    def _report(trial: Trial, epoch: int, value: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna warns when a step is reported again
            trial.report(value, epoch)

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
            more: ``reused``, ``model``, ``predictions`` and ``siblings`` of its outcome, as JSON can hold them.
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

    def hand_back(self, number: int, *, counted: bool, retry: Mapping[str, Any] | None = None) -> None:
        """Leave the trial unfinished; ``ask`` returns it again, the next time or when the sweep goes on.

        Args:
            number: of the trial.
            counted: whether this was one of the MAX_ATTEMPTS that it has without a new epoch.
            retry: JSON values that ``ask`` returns with it from now on.
        """
        live = self._live.pop(number)
        if retry is not None:
            live.trial.set_user_attr("retry", dict(retry))
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
        trial_id = self._frozen(number)._trial_id
        metrics = {name: float(x) for name, x in outcome.get("metrics", {}).items() if math.isfinite(x)}
        whole = {"epochs": 0, "seconds": 0.0, "reason": "", **outcome, "metrics": metrics, "status": status}
        self._study._storage.set_trial_user_attr(trial_id, "outcome", whole)
        self._tell(number, status, value)
        self._live.pop(number, None)
        if "duplicate_of" not in asked_of(self._frozen(number)):
            self._finished.append(number)
        for other in map(self._frozen, self._index.copies.pop(number, ())):
            if other.state is TrialState.RUNNING:
                self._settle_duplicate(other)
        if status == "complete":
            self._tell_siblings(self._frozen(number))

    def _tell_siblings(self, parent: FrozenTrial) -> None:
        """Add what a complete trial answered besides; what is there already is not added again."""
        if not parent.user_attrs["outcome"].get("siblings") or is_confirming(parent):
            return
        known = set(self._index.digests) | {config.digest for _, config in self._spec.experiment_configs()}
        with self._journal.without_waiting():  # the parent's outcome, which has them all, is on the disk
            for sibling in sibling_trials(parent, self._spec, self._distributions, known):
                self._add(sibling)

    def _tell(self, number: int, status: Status, value: float | None) -> None:
        self._study.tell(number, value if status == "complete" else None, STATES[status])

    # Reading

    def record(self, number: int) -> TrialRecord:
        """Return what the journal knows of one trial."""
        return record_of(self._frozen(number))

    def records(self, *, duplicates: bool = False) -> list[TrialRecord]:
        """Return every trial, in the order of asking; those that only took over another's result when asked for."""
        return [record_of(trial) for trial in self._known() if duplicates or "duplicate_of" not in asked_of(trial)]

    def take_finished(self) -> list[TrialRecord]:
        """Return the trials finished since the last call, without duplicates."""
        numbers, self._finished = self._finished, []
        return [self.record(number) for number in numbers]

    def _known(self) -> list[FrozenTrial]:
        """Trials that were really asked; a driver that dies in the middle of asking leaves others."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if "asked" in trial.user_attrs]

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    # Waking up

    def _settle_the_past(self) -> list[int]:
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
        for trial in self._known():
            if trial.state is TrialState.RUNNING and "duplicate_of" in asked_of(trial):
                self._settle_duplicate(trial)
            elif trial.state is TrialState.COMPLETE:
                self._tell_siblings(trial)
        return unfinished
