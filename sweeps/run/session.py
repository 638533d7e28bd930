"""One run of a sweep: what it works with, and what is done once its trials are over, whatever it was run for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.stages import StageStore, write_json
from sweeps.results.holdout import Subject, find_reading
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import RESULT, SweepResult, TestReading, find_result
from sweeps.results.spending import spent_dict

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.engine.resources import Share
    from sweeps.engine.session import RaySession
    from sweeps.run.command import Command
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.store import Tracking
    from sweeps.trial import TrialRecord

TEST_PREDICTIONS, LEADERBOARD = "test-predictions.npz", "leaderboard.json"


@dataclass(frozen=True, slots=True)
class SweepSession:
    """One run of a sweep, which may take several.

    Attributes:
        spec: with its name, as it fits the images.
        command: that the sweep is run by.
        tracking: the MLflow store, checked and perhaps not opened yet.
        share: of a trial.
        stages: shared by all sweeps of the command's folder.
        dataset: read and packed.
        ray: runs the trials.
        tell: gets what a person should know, a sentence each.
        started: when, on time.monotonic's clock.
    """

    spec: SweepSpec
    command: Command
    tracking: Tracking
    share: Share
    stages: StageStore
    dataset: Dataset
    ray: RaySession
    tell: Callable[[str], None]
    started: float

    @property
    def folder(self) -> Path:
        """The sweep's own folder, absolute."""
        return self.command.root / str(self.spec.name)

    def compute(self, function: str, **arguments: Any) -> Any:
        """Return what a function returns, in a trial's process; raises as ``sweeps.engine.task.run_task``."""
        from sweeps.engine.task import run_task

        return run_task(function, arguments, self.spec, self.folder, self.stages.root, self.ray)

    def evaluate_on_test(
        self, record: TrialRecord, *, refit: bool = False, files: tuple[str, str] = ("test.json", TEST_PREDICTIONS)
    ) -> TestReading:
        """Return the test score of a complete trial; what is known already is not computed again.

        Args:
            record: of the trial.
            refit: evaluate its settings, trained on the validation images too.
            files: names in the sweep's folder of the score and of the answers to the images.

        Raises:
            TrialFailure: the model is gone and cannot be made again.
            OSError: there is no room, or the process died.
        """
        path, predictions = (self.folder / name for name in files)
        known = find_reading(Subject.of(record, self.dataset, refit=refit), path)
        if known is not None:
            return known
        self.tell(f"evaluating trial {record.number} on the {len(self.dataset.splits.test)} test images")
        work = {"record": record, "refit": refit, "path": path, "predictions": predictions}
        test: TestReading
        test, notes = self.compute("sweeps.results.holdout:evaluate", **work)
        for note in notes:
            self.tell(note)
        return test

    def summarize(self, records: Sequence[TrialRecord], *, interrupted: bool) -> SweepResult:
        """Return the result without a test reading and a registered model."""
        trials = tuple(sorted(records, key=lambda trial: trial.number))
        data, before = self.dataset.summary, find_result(self.folder)
        board = Leaderboard(trials, self.spec.trial_config({}).model_dump(), data.validation, self.spec.goals)
        seconds = time.monotonic() - self.started + (before.seconds if before else 0.0)
        return SweepResult(
            sweep=str(self.spec.name),
            family=self.spec.family,
            out=str(self.command.root),
            data=data,
            board=board,
            winner=board.best.number if board.best else None,
            test=None,
            registered=None,
            tracking_uri=self.tracking.shown_uri,
            seconds=round(seconds, 3),
            interrupted=interrupted,
            spent=spent_dict(records, self.spec.prices),
            saved_seconds=round(sum(record.saved for record in records), 3),
        )

    def save(self, result: SweepResult) -> None:
        """Write ``leaderboard.json`` and ``result.json``."""
        write_json(self.folder / LEADERBOARD, result.board.as_dict())
        result.save(self.folder / RESULT)
