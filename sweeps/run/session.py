"""One session of a sweep: what it works on, and what it computes in the processes of trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.stages import StageStore, write_json
from sweeps.results.environment import environment_here
from sweeps.results.evaluations import find_evaluation
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import RESULT, TEST_PREDICTIONS, SweepResult, TestEvaluation, spent_dict
from sweeps.study.confirmation import Repeat, repeats_of
from sweeps.trial import TrialRecord, stage_use
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.engine.engine import EngineResult
    from sweeps.engine.session import RaySession
    from sweeps.engine.task import Work
    from sweeps.run.command import Command
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.store import Tracking

MODEL, LEADERBOARD, TEST = "model", "leaderboard.json", "test.json"


@dataclass(frozen=True, slots=True)
class SweepSession:
    """One session of a sweep, which may take several.

    Attributes:
        spec: with its name, as it fits the images.
        command: that the sweep is run by.
        tracking: the MLflow store, checked and perhaps not opened yet.
        stages: shared by all sweeps of the command's folder.
        dataset: read and packed.
        ray: runs the trials.
        tell: gets what a person should know, a sentence each.
        before: what the sweep left when it ended last; None where that is nothing, or damaged.
        started: when, on time.monotonic's clock.
    """

    spec: SweepSpec
    command: Command
    tracking: Tracking
    stages: StageStore
    dataset: Dataset
    ray: RaySession
    tell: Callable[[str], None]
    before: SweepResult | None
    started: float

    @property
    def folder(self) -> Path:
        """The sweep's own folder, absolute."""
        return self.command.root / str(self.spec.name)

    @property
    def work(self) -> Work:
        """What the processes of the sweep work on."""
        from sweeps.engine.task import Work

        images = self.dataset.counts["train"] + self.dataset.counts["validation"]
        return Work(self.spec, self.folder, self.folder / "dataset.json", self.stages.root, self.ray, images)

    def compute(self, function: str, trains: TrialRecord | None = None, /, **arguments: Any) -> Any:
        """Return what a function returns, in a trial's process; raises as ``sweeps.engine.task.run_task``.

        Args:
            function: ``module:function``.
            trains: the trial whose model it may have to train; None where it trains none.
            arguments: of the function.
        """
        from sweeps.engine.task import run_task

        config = trains.config if trains else {"batch_size": 1}
        size = config.get("micro_batch") or math.ceil(config["batch_size"] / config.get("processes", 1))
        return run_task(self.work, function, arguments, batch_size=size, notify=self.tell)

    def evaluate_on_test(
        self,
        record: TrialRecord,
        *,
        refit: bool = False,
        files: tuple[str, str] = (TEST, TEST_PREDICTIONS),
        details: Mapping[str, Any] | None = None,
    ) -> TestEvaluation:
        """Return the test score of a complete trial; what is known already is not computed again.

        Args:
            record: of the trial.
            refit: evaluate its settings, trained on the validation images too.
            files: names in the sweep's folder of the score and of the answers to the images.
            details: of the exported model, which is what answers; None where its folder is not kept.

        Raises:
            TrialFailure: the model is gone and cannot be made again.
            OSError: there is no room, or the process died.
        """
        path, predictions = (self.folder / name for name in files)
        test = find_evaluation(record, self.dataset, path, refit=refit)
        folder = None if details is None else self.folder / MODEL
        work: dict[str, Any] = {"record": record, "refit": refit, "folder": folder, "details": details}
        work |= {"path": path, "predictions": predictions}
        notes: list[str] = []
        if test is None:
            self.tell(f"evaluating trial {record.number} on the {len(self.dataset.splits.test)} test images")
            test, notes = self.compute("sweeps.results.evaluations:evaluate", record, **work)
        elif folder is not None:
            with Waiting(self.tell, "exporting its model …"):
                test, notes = self.compute("sweeps.results.evaluations:export", **work)
        for note in notes:
            self.tell(note)
        return test

    def summarize(self, engine: EngineResult) -> SweepResult:
        """Return the result of the trials, without a test evaluation and a registered model."""
        trials, data = tuple(sorted(engine.records, key=lambda trial: trial.number)), self.dataset.summary
        base, by_seeds = self.spec.trial_config({}).model_dump(), self.spec.confirm is not None
        board = Leaderboard(trials, base, data.validation, self.spec.goals, by_seeds)
        seconds = time.monotonic() - self.started + (self.before.seconds if self.before else 0.0)
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
            interrupted=engine.interrupted,
            spent=spent_dict(trials, self.spec.prices),
            **stage_use(trials),
            environment=environment_here(),
        )

    def save(self, result: SweepResult) -> None:
        """Write ``leaderboard.json`` and ``result.json``."""
        write_json(self.folder / LEADERBOARD, result.board.as_dict())
        result.save(self.folder / RESULT)


def repeats_wanted(spec: SweepSpec, records: Sequence[TrialRecord]) -> list[Repeat]:
    """Return the runs that confirm a search: the N best trials, with M fresh seeds each; best first.

    Of a trial and those derived from it the best is the candidate: they share one training, and one network under three
    names would be no choice. So would be one settings under two numbers.

    Args:
        spec: says how many.
        records: all trials, earlier confirming runs among them.
    """
    extent = spec.extent
    if not extent.runs:
        return []
    search = tuple(record for record in records if record.confirms is None)
    best: dict[str, tuple[int, TrialConfig]] = {}
    for row in Leaderboard(search, goals=spec.goals).networks:
        config = TrialConfig.model_validate(dict(row.trial.config))
        best.setdefault(config.digest, (row.trial.number, config))
    chosen = list(best.values())[: extent.top]
    return [repeat for number, config in chosen for repeat in repeats_of(number, config, spec.seed, extent.seeds)]
