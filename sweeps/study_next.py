"""What a study asks for next: documented experiments, then starts, then what is drawn, and when nothing new is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState, create_trial

from carcls.config import TrialConfig
from sweeps.space_conditions import fits, parameters_of
from sweeps.study_book import Book
from sweeps.study_confirm import searched
from sweeps.study_sampling import draw, draw_new
from sweeps.study_trials import asked_value
from sweeps.study_twins import near_twin

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

Costs = Callable[[TrialConfig], Mapping[str, float]]


class Proposals:
    """Makes trials that are not in the book yet; what they are to be added to it as says what becomes of them.

    Args:
        book: of the study.
        spec: of the sweep.
        costs: returns what is known of a trial's metrics before it runs.
    """

    def __init__(self, book: Book, spec: SweepSpec, costs: Costs) -> None:
        self._book = book
        self._spec = spec
        self._costs = costs
        self._prepared: dict[int, list[FrozenTrial]] = {}

    def next(self) -> FrozenTrial:
        """Return the next trial; it may be a twin of another one, or break a limit, and then is not to be run."""
        done = self._book.index.begun
        for name, config in self._spec.experiment_configs():
            if name not in done:
                return self._given(config, name)
        for place, settings in enumerate(self._spec.starts):
            if f"starts[{place}]" not in done:
                return self._given(self._spec.trial_config(settings), None, start=f"starts[{place}]")
        trials, book = searched(self._book.known()), self._book
        drawn = draw(trials, book.distributions, self._spec.seed, book.place(), self._spec.goals, self._prepared)
        return self._given(self._spec.searched_config(drawn), None)

    def at_random(self) -> FrozenTrial | None:
        """Return a trial that nobody has answered, where the sampler names only what is known; or None."""
        known, spec = searched(self._book.known()), self._spec

        def is_useless(config: TrialConfig) -> bool:
            near = near_twin(known, config, spec.search, spec.near)
            return config.digest in self._book.index.digests or near is not None or self._is_refused(config)

        config = draw_new(spec, is_useless, self._book.place())
        return None if config is None else self._given(config, None)

    def _given(self, config: TrialConfig, experiment: str | None, start: str | None = None) -> FrozenTrial:
        settings = parameters_of(config, self._spec.search)
        known = {key: value for key, value in settings.items() if fits(self._spec.search[key], value)}
        twin, is_near = self._book.index.digests.get(config.digest), False
        if twin is None and experiment is None and start is None:
            twin = near_twin(searched(self._book.known()), config, self._spec.search, self._spec.near)
            is_near = twin is not None
        asked = asked_value(experiment, settings, config, twin, is_near=is_near)
        if twin is None and self._is_refused(config):
            asked["refused"] = dict(self._costs(config))
        trial = create_trial(
            state=TrialState.RUNNING,
            params=known,
            distributions={key: self._book.distributions[key] for key in known},
            user_attrs={"asked": asked if start is None else {**asked, "start": start}},
        )
        trial.datetime_start = datetime.now()
        return trial

    def _is_refused(self, config: TrialConfig) -> bool:
        """Tell whether a trial breaks a limit by what is known before it runs."""
        goals = self._spec.goals
        return bool(goals.constraints and goals.broken_by(self._costs(config)))
