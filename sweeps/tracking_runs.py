"""The MLflow runs of one sweep: a parent run, and a child run for each trial, found again by their tags.

carsweep.sweep_id   which sweep; on the parent and on every child
carsweep.role       "sweep", "trial", or "refit" of a trial
carsweep.trial      the trial's number
carsweep.state      complete, pruned, failed or interrupted, because MLflow knows only FINISHED, KILLED and FAILED
carsweep.reason     why, when there is a reason
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carcls.errors import mask_secrets
from sweeps.tracking_store import Tracking
from sweeps.tracking_together import Requests

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run

SWEEP_ID, ROLE, TRIAL, STATE, REASON = (
    "carsweep.sweep_id",
    "carsweep.role",
    "carsweep.trial",
    "carsweep.state",
    "carsweep.reason",
)
_PARENT, _NOTE = "mlflow.parentRunId", "mlflow.note.content"
# MLflow takes at most 1,000 metrics, parameters and tags in one request.
_METRICS_A_BATCH = 700
_TAG_LENGTH, _PARAM_LENGTH = 4000, 1000

Points = tuple[tuple[int, Mapping[str, float]], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """What a run ought to say from now on.

    Attributes:
        name: shown in MLflow.
        tags, params: text by name; parameters are written only to a run that has none, for they cannot change.
        points: pairs of (step, metrics); writing the same point again changes nothing.
        files: text artifacts by name.
        status: MLflow's RUNNING, FINISHED, KILLED or FAILED; None leaves it.
        seconds: how long ago the run began, for a run that has to be made afterwards.
    """

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    points: Points = ()
    files: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    seconds: float = 0.0

    def then(self, later: Update) -> Update:
        """Return one update that does what this one and then ``later`` would do."""
        return Update(
            name=later.name,
            tags={**self.tags, **later.tags},
            params={**self.params, **later.params},
            points=self.points + later.points,
            files={**self.files, **later.files},
            status=later.status or self.status,
            seconds=max(self.seconds, later.seconds),
        )


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that MLflow has. ``start`` is in milliseconds since 1970."""

    run_id: str
    status: str
    start: int
    has_params: bool


class SweepRuns:
    """Read and write the runs of one sweep; every method asks MLflow and raises what it raises.

    The first one opens the store. Until ``read``, no runs are known.

    Args:
        tracking: where the runs are.
        family, sweep_id: the sweep; ``sweep_id`` must not hold quotes.
        name: of the parent run.
    """

    def __init__(self, tracking: Tracking, *, family: str, sweep_id: str, name: str) -> None:
        assert not set("'\"`") & set(sweep_id), sweep_id
        self._tracking, self._family, self._sweep_id, self._name = tracking, family, sweep_id, name
        self._experiment = ""
        self.parent: KnownRun | None = None
        self.trials: dict[int, KnownRun] = {}

    @cached_property
    def _requests(self) -> Requests:
        return Requests(self._tracking)

    def read(self) -> None:
        """Find the parent, making it if need be, and all trials that MLflow has. An earlier run of a trial wins."""
        self._experiment = self._experiment or self._tracking.experiment(self._family)
        sweeps = self._search("sweep")
        self.parent = known(sweeps[0]) if sweeps else self._make(Update(self._name), {ROLE: "sweep"})
        found: dict[int, KnownRun] = {}
        for run in self._search("trial"):
            found.setdefault(int(run.data.tags[TRIAL]), known(run))
        self.trials = found

    def write(self, number: int | None, update: Update) -> None:
        """Bring one run in line; None is the parent. A run that is missing is made."""
        run = self.parent if number is None else self.trials.get(number)
        if run is None:
            assert self.parent is not None
            tags = {ROLE: "trial", TRIAL: str(number), _PARENT: self.parent.run_id}
            # With the run come its tags: each request, and each part of one, is a transaction of its own in MLflow.
            run, update = self._make(update, {**as_tags(update.tags), **tags}), replace(update, tags={})
        self._remember(number, run)
        self._log(run, update)
        status = update.status or run.status
        if status != run.status:
            self._set_status(run.run_id, status)
        self._remember(number, KnownRun(run.run_id, status, run.start, run.has_params or bool(update.params)))

    def write_together(self, updates: Mapping[int | None, Update]) -> bool:
        """Bring many runs in line at once, or none of them; return whether that was done.

        It is not where MLflow has no such requests, or refuses one of the updates: then write them one by one.
        """
        if len(updates) < 2 or not self._requests.can_be_together:
            return False
        parent, trials = self.parent, dict(self.trials)
        try:
            with self._requests.together():
                for number, update in updates.items():
                    self.write(number, update)
        except Exception:  # one by one they will tell which it was, and why
            self.parent, self.trials = parent, trials
            return False
        return True

    def refit_of(self, number: int) -> KnownRun:
        """Return the run of a trial's refit, made when it is missing: another model than the trial's own."""
        for run in self._search("refit"):
            if run.data.tags[TRIAL] == str(number):
                return known(run)
        assert self.parent is not None
        tags = {ROLE: "refit", TRIAL: str(number), _PARENT: self.parent.run_id}
        made = self._make(Update(f"refit of trial {number}"), tags)
        self._set_status(made.run_id, "FINISHED")
        return made

    def _remember(self, number: int | None, run: KnownRun) -> None:
        if number is None:
            self.parent = run
        else:
            self.trials[number] = run

    def _log(self, run: KnownRun, update: Update) -> None:
        from mlflow.entities import RunTag

        client = self._requests.client
        metrics = as_metrics(update.points, run.start)
        params = [] if run.has_params else as_params(update.params)
        tags = [RunTag(name, value) for name, value in as_tags(update.tags).items()]
        for first in range(0, max(len(metrics), 1), _METRICS_A_BATCH):
            if metrics or params or tags:
                client.log_batch(run.run_id, metrics[first : first + _METRICS_A_BATCH], params, tags)
            params, tags = [], []
        for file, text in update.files.items():
            client.log_text(run.run_id, mask_secrets(text), file)

    def _set_status(self, run_id: str, status: str) -> None:
        if status == "RUNNING":
            self._requests.client.update_run(run_id, status=status)
        else:
            self._requests.client.set_terminated(run_id, status)

    def _make(self, update: Update, tags: Mapping[str, str]) -> KnownRun:
        run = self._requests.client.create_run(
            self._experiment,
            start_time=int((time.time() - update.seconds) * 1000),
            tags={SWEEP_ID: self._sweep_id, "mlflow.source.name": "carsweep", **tags},
            run_name=update.name,
        )
        return known(run)

    def _search(self, role: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        query = f"tags.`{SWEEP_ID}` = '{self._sweep_id}' and tags.`{ROLE}` = '{role}'"
        while True:
            page = self._requests.client.search_runs(
                [self._experiment], query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs


def known(run: Run) -> KnownRun:
    """Reduce MLflow's answer to what is needed."""
    return KnownRun(run.info.run_id, run.info.status, run.info.start_time, bool(run.data.params))


def as_metrics(points: Points, start: int) -> list[Metric]:
    """Convert points to MLflow's metrics, leaving out what is not finite.

    The timestamp is a function of the step: a point that is reported again has the same one, and is stored once.
    """
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), start + 1000 * step, step)
        for step, metrics in points
        for name, value in metrics.items()
        if math.isfinite(value)
    ]


def as_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as MLflow takes them, with passwords masked."""
    return {name: mask_secrets(str(value))[:_TAG_LENGTH] for name, value in tags.items()}


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Convert settings to MLflow's parameters, with passwords masked."""
    from mlflow.entities import Param

    return [Param(name, mask_secrets(str(value))[:_PARAM_LENGTH]) for name, value in params.items()]
