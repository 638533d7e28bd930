"""Log a sweep to MLflow: an observer of the trials, used in the driver only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from carcls.errors import TrackingError
from carcls.outcome import Measurement
from sweeps.record import TrialRecord
from sweeps.tracking_runs import REASON, STATE, SweepRuns, Update
from sweeps.tracking_store import Tracking, check_tracking, open_tracking
from sweeps.tracking_writer import RunWriter

__all__ = ["LOGGED_METRICS", "SweepTracker", "Tracking", "check_tracking", "open_tracking"]

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
_INTERRUPTED = {STATE: "interrupted", REASON: "the sweep stopped first; it goes on when the sweep is run again"}


class SweepTracker:
    """An observer that keeps one parent run for the sweep and one child run for each trial.

    Runs are found again by their tags, so a sweep that is run again goes on in the same runs. Everything is written
    by a thread of its own; when MLflow stops answering, ``warn`` is called once and the sweep goes on.

    A server's store is opened by ``open``; a database when the first trial begins, or something else needs it. If it
    cannot be, whatever tells the tracker something next raises the TrackingError; ``flush`` and ``close`` return False.

    Args:
        tracking: from ``check_tracking`` or ``open_tracking``.
        family: the experiment is ``carsweep-<family>``.
        sweep_id: what makes it the same sweep; no quotes.
        name: of the parent run.
        spec_yaml: kept as the artifact ``spec.yaml``.
        details: parameters of the parent run: data set, digest, seed, …
        config_of: returns the whole config of a trial from its settings and its documented experiment.
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
        config_of: Callable[[Mapping[str, Any], str | None], Mapping[str, Any]],
        warn: Callable[[str], None],
        note: str | None = None,
    ) -> None:
        self._name, self._config_of = name, config_of
        self._names: dict[int, str] = {}
        # Whether the run of a trial is open, of trials that the tracker was told of.
        self._open: dict[int, bool] = {}
        self._runs = SweepRuns(tracking, family=family, sweep_id=sweep_id, name=name)
        tags = {"carsweep.family": family, STATE: "running"} | ({"mlflow.note.content": note} if note else {})
        start = Update(name, tags=tags, params=details, files={"spec.yaml": spec_yaml}, status="RUNNING")
        self._writer = RunWriter(tracking, self._runs, start, warn)
        self._is_server = tracking.file is None

    def open(self) -> None:
        """Open a server's store now; a database is opened when there is something to write.

        Raises:
            TrackingError: a server's parent run cannot be made, or its artifacts cannot be written.
        """
        if self._is_server:
            self._writer.begin()

    def trial_started(self, number: int, experiment: str | None, settings: Mapping[str, Any]) -> None:
        """Open the trial's run, or open it again."""
        self._names[number] = experiment or f"trial-{number:04d}"
        self._open[number] = True
        params = _flat(self._config_of(settings, experiment))
        tags = {STATE: "running", REASON: ""} | ({"carsweep.experiment": experiment} if experiment else {})
        self._post(number, tags=tags, params=params, status="RUNNING")

    def epoch_finished(self, number: int, measurement: Measurement) -> None:
        """Log one epoch; an epoch that is reported again is stored once."""
        self._post(number, points=((measurement.epoch, _logged(measurement.metrics)),))

    def trial_finished(self, record: TrialRecord) -> None:
        """Close the trial's run: FINISHED, KILLED when pruned, FAILED with its reason."""
        self._open[record.number] = False
        self._settle(record)

    def rebuild(self, records: Iterable[TrialRecord]) -> None:
        """Bring MLflow in line with the study after a kill or an outage: make missing runs, close open ones.

        Runs of unfinished trials stay as they are: those trials are started again. An open run that the study does not
        know is closed. Siblings have no run: there may be hundreds, and MLflow's pages are slow with hundreds.
        """
        self._writer.begin()
        self._writer.flush()
        runs, numbers = dict(self._runs.trials), set()
        for record in records:
            numbers.add(record.number)
            if record.sibling_of is not None:
                continue
            run = runs.get(record.number)
            if record.status in _STATUS and (run is None or run.status != _STATUS[record.status]):
                self.trial_finished(record)
        for number in self._all_open() - numbers:
            self._post(number, tags={STATE: "interrupted", REASON: "the study does not know it"}, status="KILLED")
            self._open[number] = False

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
        tags = {"carsweep.best_trial": "" if best is None else str(best)}
        run = None if best is None else self._runs.trials.get(best)
        if run is not None:
            tags["carsweep.best_run_id"] = run.run_id
        files = {leaderboard.name: leaderboard.read_text(encoding="utf-8")} if leaderboard else {}
        # The step counts finished trials, so that a sweep that was extended shows both results.
        step = sum(counts[status] for status in _STATUS)
        self._post(None, tags=tags, points=((step, {**shown, **(metrics or {})}),), files=files)

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything is written or an attempt has failed; return whether everything is."""
        return self._writer.flush(seconds)

    def close(self, status: Literal["complete", "interrupted", "failed"], seconds: float = 30.0) -> bool:
        """Close all runs and stop writing; return whether everything was written. Takes ``seconds`` or so at most.

        When nothing has happened yet, nothing is written.
        """
        if self._writer.cancel():
            return True
        with suppress(TrackingError):  # another call has raised it, or will when the sweep is run again
            self._writer.begin(seconds)
            for number in sorted(self._all_open()):
                self._post(number, tags=_INTERRUPTED, status="KILLED")
                self._open[number] = False
            self._post(None, tags={STATE: status}, status=_SWEEP_STATUS[status])
        return self._writer.close(seconds)

    def _all_open(self) -> set[int]:
        """Return the trials whose runs are open: of this sitting, and what an earlier one left in MLflow."""
        left = {number: run.status == "RUNNING" for number, run in dict(self._runs.trials).items()}
        return {number for number, is_open in {**left, **self._open}.items() if is_open}

    def _settle(self, record: TrialRecord) -> None:
        self._names.setdefault(record.number, record.experiment or f"trial-{record.number:04d}")
        tags = {STATE: record.status, REASON: record.reason}
        if record.experiment:
            tags["carsweep.experiment"] = record.experiment
        if record.sibling_of is not None:
            tags["carsweep.sibling_of"] = str(record.sibling_of)
        if record.confirms is not None:
            tags["carsweep.confirms"] = str(record.confirms)
        if record.duplicate_of is not None:
            tags["carsweep.duplicate_of"] = str(record.duplicate_of)
        if record.precision:
            tags["carsweep.precision"] = record.precision
        self._post(
            record.number,
            tags=tags,
            params=_flat(record.config),
            points=((record.epochs, _logged(record.metrics)),) if record.metrics else (),
            status=_STATUS.get(record.status, "KILLED"),
            seconds=record.seconds,
        )

    def _post(self, number: int | None, **changes: Any) -> None:
        name = self._name if number is None else self._names.get(number, f"trial-{number:04d}")
        self._writer.post(number, Update(name, **changes))


def _logged(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in LOGGED_METRICS if name in metrics}


def _flat(config: Any) -> dict[str, Any]:
    """Return the settings of a config given as a mapping or as a frozen model."""
    return dict(config) if isinstance(config, Mapping) else dict(config.model_dump())
