"""The MLflow runs of one sweep: a parent run, and a child run for each trial, found again by their tags."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from carcls.errors import TrackingError, mask_secrets
from sweeps.tracking.compat import one_transaction
from sweeps.tracking.names import NOTE, REASON, ROLE, STATE, SWEEP_ID, TRIAL, WRITTEN, experiment_name, of_sweep
from sweeps.tracking.store import Tracking
from sweeps.tracking.updates import Update, Ways, points_of, to_mlflow, update_of
from sweeps.tracking.views import VIEW, SavedView, saved_in, show
from sweeps.tracking.words import SweepLine, experiment_text
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Experiment, Run

# MLflow takes at most 1,000 metrics, parameters and tags in one request.
_METRICS_A_BATCH = 700
# What a run is for: its role, and the number of the trial.
_Key = tuple[str, int]
_SWEEP: _Key = ("sweep", -1)
_SURPLUS = "surplus"
# So many sweeps of a family the page of its experiment lists.
_LISTED = 50
ALL_WAYS = Ways()


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that MLflow has.

    Attributes:
        run_id, name, status: MLflow's.
        start: in milliseconds since 1970.
        has_params: whether it has parameters, which cannot be changed.
        mark: of the ``Update`` that it was last brought in line with, as a whole.
        epochs: the last epoch that this process has written; there may be more.
        has_reason: whether it says why it ended; MLflow's pages show a tag that is empty, too.
    """

    run_id: str
    name: str
    status: str
    start: int
    has_params: bool
    mark: str = ""
    epochs: int = 0
    has_reason: bool = False


class SweepRuns:
    """Read and write the runs of one sweep; every method asks MLflow and raises what it raises.

    The first one opens the store. Until ``read``, no runs are known.

    Args:
        tracking: where the runs are.
        family, sweep_id: the sweep; ``sweep_id`` must not hold quotes.
        name: of the parent run.
        ways: by what its trials differ.
    """

    def __init__(self, tracking: Tracking, *, family: str, sweep_id: str, name: str, ways: Ways = ALL_WAYS) -> None:
        assert not set("'\"`") & set(sweep_id), sweep_id
        self._ways = ways
        self.tracking, self._family, self._sweep_id, self._name = tracking, family, sweep_id, name
        self._experiment = ""
        self._known: dict[_Key, KnownRun] = {}

    @cached_property
    def _client(self) -> MlflowClient:
        return self.tracking.client()

    def trial(self, number: int) -> KnownRun | None:
        """Return the run of a trial, if MLflow has one."""
        return self._known.get(("trial", number))

    def read(self) -> None:
        """Find the parent, making it if need be, and all other runs that MLflow has of the sweep.

        Of several runs for the same the one in use is kept, or the first that is complete; the others are closed and
        marked. MLflow makes them when a request is sent again because its answer was lost.
        """
        self._experiment = self._experiment or self.tracking.experiment(self._family)
        found: defaultdict[_Key, list[Run]] = defaultdict(list)
        for run in runs_of(self._client, self._experiment, self._sweep_id):
            found[run.data.tags.get(ROLE, _SURPLUS), int(run.data.tags.get(TRIAL, -1))].append(run)
        self._known = {key: self._the_one(key, runs) for key, runs in found.items() if key[0] != _SURPLUS}
        if _SWEEP not in self._known:
            self._make(_SWEEP, Update(self._name))

    def mirror(self, record: TrialRecord, *, runs_now: bool = False, derived: Sequence[TrialRecord] = ()) -> None:
        """Bring a trial's run in line with its record, as ``update_of`` says; saying it twice changes nothing.

        What fails may be written in part; saying it again writes the rest.
        """
        parent = self._known[_SWEEP].run_id
        run = self.trial(record.number)
        wanted = update_of(record, parent, self._ways, runs_now=runs_now, derived=derived)
        if run is None or not wanted.mark or (run.mark, run.status) != (wanted.mark, wanted.status):
            self.write(record.number, replace(wanted, points=points_of(record, run.epochs if run else 0)))

    def write(self, number: int | None, update: Update) -> None:
        """Bring one run in line; None is the parent. A run that is missing is made."""
        key = _SWEEP if number is None else ("trial", number)
        run = self._known.get(key)
        if run is None or (number is not None and run.status == update.status == "RUNNING"):
            # With a run come its tags: each request, and each part of one, is a transaction of its own in MLflow.
            run, update = run or self._make(key, update), replace(update, tags={})
        elif number is not None:
            said = {name: text for name, text in update.tags.items() if text or run.has_reason}
            update = replace(update, tags={**said, **self._place_of(key)})
        self._log(run, update)
        has_params, epochs = run.has_params or bool(update.params), max((run.epochs, *(e for e, _ in update.points)))
        status = update.status or run.status
        name, has_reason = update.name or run.name, bool(update.tags.get(REASON)) or run.has_reason
        self._known[key] = KnownRun(run.run_id, name, status, run.start, has_params, update.mark, epochs, has_reason)

    def close_open(self, reason: str) -> None:
        """Close the runs of trials that are open, since nothing runs them."""
        tags = {STATE: "interrupted", REASON: reason}
        for (role, number), run in list(self._known.items()):
            if role == "trial" and run.status == "RUNNING":
                self.write(number, Update("", tags=tags, status="KILLED"))

    def log_data(self, data: DatasetInput) -> None:
        """Say which images the sweep uses; saying it twice changes nothing."""
        self._client.log_inputs(self._known[_SWEEP].run_id, datasets=[data])

    def describe(self, view: SavedView) -> None:
        """Tell the page of the experiment how it opens, its view of the sweep, and which sweeps there are."""
        found = self._client.get_experiment(self._experiment)
        show(self._client, found, view, _note(self._client, found, saved_in(found) | {view.key}))

    def write_together(self, writes: Iterable[Callable[[], None]]) -> bool:
        """Call what writes to many runs, for all at once, or none of them; return whether that was done.

        It is not where MLflow has no such requests, or refuses one of them: then call them one by one.
        """
        before = dict(self._known)
        try:
            with one_transaction(self._client):
                for write in writes:
                    write()
        except Exception:  # one by one they say which it was, and why
            self._known = before
            return False
        return True

    def run_of_model(self, number: int, *, refit: bool) -> KnownRun:
        """Return the run that gets a trial's model; its refit is another model, whose run is made when it is missing.

        Raises:
            TrackingError: MLflow does not have the trial.
        """
        self.read()
        key = ("refit" if refit else "trial", number)
        if self.trial(number) is None:
            raise TrackingError(
                f"trial {number} must have a run in {self.tracking.shown_uri}, got none. "
                "Run the sweep again: nothing is trained twice, and MLflow is brought in line."
            )
        if key not in self._known:
            made = self._make(key, Update(f"trial {number} · refit"))
            self._log(made, Update("", status="FINISHED"))
        return self._known[key]

    def _the_one(self, key: _Key, runs: Sequence[Run]) -> KnownRun:
        """Return the run to use of those for the same; close and mark the others."""
        used = self._known.get(key)
        kept = min(runs, key=lambda run: (used is None or run.info.run_id != used.run_id, WRITTEN not in run.data.tags))
        said = {ROLE: _SURPLUS, STATE: _SURPLUS, REASON: f"run {kept.info.run_id} is used in its place"}
        for run in runs:
            if run is not kept:
                self._log(_known(run), Update("", tags=said, status="KILLED"))
        return _known(kept)

    def _log(self, run: KnownRun, update: Update) -> None:
        metrics, params, tags = to_mlflow(update, run.start)
        params = [] if run.has_params else params
        while len(metrics) > _METRICS_A_BATCH:
            self._client.log_batch(run.run_id, metrics[:_METRICS_A_BATCH], params)
            metrics, params = metrics[_METRICS_A_BATCH:], []
        # The mark comes last: what it stands for is there. MLflow writes a batch's tags after its metrics.
        if metrics or params or tags:
            self._client.log_batch(run.run_id, metrics, params, tags)
        for file, text in update.files.items():
            self._client.log_text(run.run_id, mask_secrets(text), file)
        if update.name not in ("", run.name):
            self._client.update_run(run.run_id, name=update.name)
        if update.status not in (None, run.status):
            if update.status == "RUNNING":
                self._client.update_run(run.run_id, update.status)
            else:
                end = run.start + int(1000 * update.seconds) if update.seconds else None
                self._client.set_terminated(run.run_id, update.status, end)

    def _place_of(self, key: _Key) -> dict[str, str]:
        """Return the tags by which a run is found again, and MLflow's own for the run that it is shown under."""
        role, number = key
        below = {TRIAL: str(number), "mlflow.parentRunId": self._known[_SWEEP].run_id} if key != _SWEEP else {}
        return {SWEEP_ID: self._sweep_id, ROLE: role, **below}

    def _make(self, key: _Key, update: Update) -> KnownRun:
        said = {name: text for name, text in update.tags.items() if text}
        tags = {"mlflow.source.name": "carsweep", **said, **self._place_of(key)}
        run = self._client.create_run(
            self._experiment,
            start_time=int(1000 * (update.began or time.time())),
            tags={tag.key: tag.value for tag in to_mlflow(Update("", tags=tags), 0)[2]},
            run_name=update.name,
        )
        self._known[key] = _known(run)
        return self._known[key]


def runs_of(client: MlflowClient, experiment: str, sweep_id: str) -> Iterator[Run]:
    """Yield all runs of a sweep, the oldest first."""
    token: str | None = None
    while token != "":
        page = client.search_runs(
            [experiment], of_sweep(sweep_id), order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token or ""


def hide(client: MlflowClient, experiment: str, sweep_id: str) -> None:
    """Take a sweep whose runs are gone from the page of its experiment: its line, and its saved view."""
    found = client.get_experiment(experiment)
    client.set_experiment_tag(experiment, NOTE, _note(client, found, saved_in(found)))
    with suppress(Exception):  # a server that cannot keeps a name in a menu
        client.delete_experiment_tag(experiment, VIEW + sweep_id)


def _note(client: MlflowClient, experiment: Experiment, saved: Container[str]) -> str:
    """Return what stands on top of the page of a family's experiment; ``saved`` are the keys of its views."""
    latest = client.search_runs([experiment.experiment_id], f"tags.`{ROLE}` = 'sweep'", max_results=_LISTED)
    return experiment_text(experiment.name.removeprefix(experiment_name("")), (_line(run, saved) for run in latest))


def _line(run: Run, saved: Container[str]) -> SweepLine:
    """Return a sweep's line; one of an older version has no saved view, and its page only its runs."""
    tags, metrics, place = run.data.tags, run.data.metrics, f"#/experiments/{run.info.experiment_id}/runs"
    known = tags[SWEEP_ID]
    asked = {"viewStateShareKey": known} if known in saved else {"searchFilter": of_sweep(known)}
    page = f"{place}?{urlencode(asked, quote_via=quote)}"
    best, tested = metrics.get("best_val_accuracy"), metrics.get("test_accuracy")
    return SweepLine(run.info.run_name, page, f"{place}/{run.info.run_id}", tags.get(STATE, ""), best, tested)


def _known(run: Run) -> KnownRun:
    mark = run.data.tags.get(WRITTEN, "")
    info = run.info
    has_params, has_reason = bool(run.data.params), bool(run.data.tags.get(REASON))
    return KnownRun(info.run_id, info.run_name, info.status, info.start_time, has_params, mark, has_reason=has_reason)
