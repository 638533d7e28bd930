"""MLflow as a view of the records: each trial's run says what its record says, whatever happened to MLflow."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carcls.errors import TrackingError
from sweeps.spec.sweep_file import read_file, text_with_id
from sweeps.tracking.runs import EXPERIMENT, REASON, STATE, KnownRun, Points, SweepRuns, Update
from sweeps.tracking.store import Tracking
from sweeps.tracking.writer import Writer
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.spec.spec import SweepSpec

# Few on purpose: comparing a hundred runs in MLflow's UI is slow in the number of metric names.
LOGGED_METRICS = (
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_top5",
    "val_precision",
    "val_recall",
    "val_f1",
    "val_f1_macro",
    "val_classifier_accuracy",
    "val_recall_at_1",
    "val_recall_at_5",
    "val_map_at_r",
    "val_r_precision",
    "predict_seconds",
    "ms_per_query",
    "predict_ms",
    "parameters",
    "seconds",
)
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_SWEEP_STATUS = {"complete": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_INTERRUPTED = "the sweep stopped first; it goes on when the sweep is run again"


def mirror(record: TrialRecord, runs: SweepRuns, *, runs_now: bool = False) -> None:
    """Bring a trial's run in line with its record; saying it twice changes nothing.

    Args:
        record: of the trial.
        runs: of its sweep.
        runs_now: whether a driver runs the trial; one that it does not run and that has not ended is interrupted.

    Raises:
        Exception: what MLflow raises; some of it may be written, and saying it again writes the rest.
    """
    run, wanted = runs.trial(record.number), _wanted(record, runs, runs_now=runs_now)
    if run is None or not wanted.mark or (run.mark, run.status) != (wanted.mark, wanted.status):
        runs.write(record.number, replace(wanted, points=_points(record, run)))


def _wanted(record: TrialRecord, runs: SweepRuns, *, runs_now: bool) -> Update:
    """Return what the trial's run ought to say, but for its epochs."""
    state, reason = record.status, record.reason
    if state == "running" and not runs_now:
        state, reason = "interrupted", _INTERRUPTED  # type: ignore[assignment]
    tags = {STATE: state, REASON: reason, EXPERIMENT: record.experiment or "", "carsweep.precision": record.precision}
    for name, other in (("confirms", record.confirms), ("sibling_of", record.sibling_of)):
        tags[f"carsweep.{name}"] = "" if other is None else str(other)
    return Update(
        record.experiment or f"trial-{record.number:04d}",
        tags={name: text for name, text in tags.items() if text or name in (STATE, REASON)},
        params=record.config,
        status="RUNNING" if state == "running" else _STATUS.get(state, "KILLED"),
        seconds=record.seconds,
        mark="" if state == "running" else _mark(record, tags, runs),
    )


def _mark(record: TrialRecord, tags: Mapping[str, str], runs: SweepRuns) -> str:
    """Return a digest of all that a run says of a trial that nothing runs, by which one in line is known."""
    parent = runs.parent.run_id if runs.parent else ""
    said = [parent, dict(tags), record.epochs, _logged(record.metrics)]
    return hashlib.blake2s(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def _points(record: TrialRecord, run: KnownRun | None) -> Points:
    """Return the epochs that the run does not have for certain, and what the end of the trial adds to the last one."""
    told = {measurement.epoch: _logged(measurement.metrics) for measurement in record.history}
    last = told.get(record.epochs, {})
    added = {name: value for name, value in _logged(record.metrics).items() if last.get(name) != value}
    fresh = [(epoch, metrics) for epoch, metrics in told.items() if run is None or epoch > run.epochs]
    return (*fresh, *([(record.epochs, added)] if added else []))


def mirror_of(
    spec: SweepSpec, folder: Path, tracking: Tracking, data: DataSummary, warn: Callable[[str], None]
) -> Mirror:
    """Return the mirror of the sweep in ``folder``; ``warn`` gets one line, perhaps from another thread."""
    known = read_file(folder).id
    return Mirror(
        tracking,
        family=spec.family,
        sweep_id=known,
        name=str(spec.name),
        spec_yaml=text_with_id(spec, known),
        details={"data": data.name, "data_digest": data.digest, "seed": spec.seed, "spec_digest": spec.digest},
        warn=warn,
        note=spec.note,
    )


class Mirror:
    """Keeps one parent run for the sweep and one child run for each trial in line with the records; an observer.

    Runs are found again by their tags, so a sweep that is run again goes on in the same runs. Everything is written
    by a thread of its own; when MLflow stops answering, ``warn`` is called once and the sweep goes on.

    A server's store is opened by ``open``; a database when the first trial begins, or something else needs it. If it
    cannot be, whatever tells the mirror something next raises the TrackingError; ``flush`` and ``close`` return False.

    Args:
        tracking: from ``check_tracking`` or ``open_tracking``.
        family: the experiment is ``carsweep-<family>``.
        sweep_id: what makes it the same sweep; no quotes.
        name: of the parent run.
        spec_yaml: kept as the artifact ``spec.yaml``.
        details: parameters of the parent run: data set, digest, seed, …
        warn: gets one line; may be called from another thread.
        note: shown on the parent's page.
    """

    def __init__(
        self,
        tracking: Tracking,
        *,
        family: str,
        sweep_id: str,
        name: str,
        spec_yaml: str,
        details: Mapping[str, Any],
        warn: Callable[[str], None],
        note: str | None = None,
    ) -> None:
        self._runs = SweepRuns(tracking, family=family, sweep_id=sweep_id, name=name)
        self._running: dict[int, TrialRecord] = {}
        tags = {"carsweep.family": family, STATE: "running"} | ({"mlflow.note.content": note} if note else {})
        self._sweep = Update(name, tags=tags, params=details, status="RUNNING")
        start = replace(self._sweep, files={"spec.yaml": spec_yaml})
        self._writer = Writer(tracking, self._runs, partial(self._runs.write, None, start), warn)
        self._is_server = tracking.file is None

    def open(self) -> None:
        """Open a server's store now; a database is opened when there is something to write.

        Raises:
            TrackingError: a server's parent run cannot be made, or its artifacts cannot be written.
        """
        if self._is_server:
            self._writer.begin()

    def trial_changed(self, record: TrialRecord) -> None:
        """Bring the trial's run in line with a trial that this process runs, or has run."""
        if record.status == "running":
            self._running[record.number] = record
        else:
            self._running.pop(record.number, None)
        self._writer.post(record.number, partial(mirror, record, self._runs, runs_now=True))

    def bring_in_line(self, records: Iterable[TrialRecord], *, winner: int | None = None) -> None:
        """Bring MLflow in line with all records; what else it has of this sweep is closed by ``close``.

        Trials that have not ended are left as they are if this process runs them; else they are interrupted. Siblings
        have no run but for the ``winner``: there may be hundreds, and MLflow's pages are slow with hundreds.
        """
        self._writer.begin()
        for record in records:
            if (record.sibling_of is None or record.number == winner) and record.number not in self._running:
                self._writer.post(record.number, partial(mirror, record, self._runs))

    def summarise(
        self,
        records: Iterable[TrialRecord],
        *,
        best: int | None,
        metrics: Mapping[str, float] | None = None,
        leaderboard: Path | None = None,
    ) -> None:
        """Write the sweep's result to its parent run.

        Args:
            records: all trials.
            best: number of the best trial by validation accuracy.
            metrics: more numbers to show, such as the winner's ``test_accuracy``.
            leaderboard: a text file that is kept as an artifact.
        """
        trials = list(records)
        counts: Counter[str] = Counter(
            record.status for record in trials if record.sibling_of is None and record.confirms is None
        )
        shown = {f"trials_{status}": float(counts[status]) for status in _STATUS}
        winner = next((record for record in trials if record.number == best), None)
        if winner is not None:
            shown["best_val_accuracy"] = winner.metrics.get("val_accuracy", float("nan"))
        tags = {**self._sweep.tags, "carsweep.best_trial": "" if best is None else str(best)}
        run = None if best is None else self._runs.trial(best)
        if run is not None:
            tags["carsweep.best_run_id"] = run.run_id
        files = {leaderboard.name: leaderboard.read_text(encoding="utf-8")} if leaderboard else {}
        # The step counts finished trials, so that a sweep that was extended shows both results.
        points = ((sum(counts[status] for status in _STATUS), {**shown, **(metrics or {})}),)
        self._sweep = replace(self._sweep, tags=tags, points=points, files=files)
        self._writer.post(None, partial(self._runs.write, None, self._sweep))

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything is written or an attempt has failed; return whether everything is."""
        return self._writer.flush(seconds)

    def close(self, status: Literal["complete", "interrupted", "failed"], seconds: float = 30.0) -> bool:
        """Close all runs and stop writing; return whether everything was written. Takes ``seconds`` or so at most.

        When nothing has happened yet, nothing is written.
        """
        with suppress(TrackingError):  # another call has raised it, or will when the sweep is run again
            for number, record in self._running.items():
                self._writer.post(number, partial(mirror, record, self._runs))
        self._sweep = replace(self._sweep, tags={**self._sweep.tags, STATE: status}, status=_SWEEP_STATUS[status])
        return self._writer.close(self._write_end, seconds)

    def _write_end(self) -> None:
        if self._writer.failures:
            self._runs.read()  # closes runs that MLflow made twice, perhaps after it was asked again
        # What an earlier driver left, and this one had no time to go on with.
        self._runs.close_open(_INTERRUPTED)
        self._runs.write(None, self._sweep)


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in LOGGED_METRICS if name in metrics}
