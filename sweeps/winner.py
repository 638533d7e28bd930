"""What comes after the trials: the best by validation, read once on test, exported, registered, written down."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.errors import TrackingError
from carcls.stages import StageStore, write_json
from sweeps.leaderboard import find_best, make_leaderboard, pareto_of
from sweeps.result import BestTrial, DataSummary, RegisteredModel, SweepResult, TestReading, TrialSummary

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec
    from sweeps.tracking import SweepTracker
    from sweeps.tracking_store import Tracking

TEST_PREDICTIONS = "test-predictions.npz"


@dataclass(frozen=True, slots=True)
class Sitting:
    """One call of a sweep that may take several.

    Attributes:
        spec: with its name.
        out: folder of all sweeps, absolute.
        tracking: the opened MLflow store.
        stages: shared by all sweeps of ``out``.
        dataset: read and packed.
        started: when, on time.monotonic's clock.
        address: of the Ray cluster that runs the trials; None for this machine.
        edits: what was changed in the spec of a sweep that goes on; None allows no change of its search.
    """

    spec: SweepSpec
    out: Path
    tracking: Tracking
    stages: StageStore
    dataset: Dataset
    started: float
    address: str | None = None
    edits: Sequence[str] | None = None

    @property
    def folder(self) -> Path:
        """The sweep's own folder."""
        return self.out / str(self.spec.name)

    @property
    def before(self) -> SweepResult | None:
        """What earlier sittings left."""
        file = self.folder / "result.json"
        return SweepResult.load(file) if file.is_file() else None


def conclude(
    sitting: Sitting,
    records: Sequence[TrialRecord],
    *,
    interrupted: bool,
    tracker: SweepTracker,
    tell: Callable[[str], None],
) -> SweepResult:
    """Return the result and write it down; an interrupted sweep has no test reading and registers nothing yet.

    What fails once the trials are over costs no result: a winner that MLflow does not take is told, and can be
    registered by running the sweep again.
    """
    result = summarize(sitting, records, interrupted=interrupted)
    before = sitting.before
    if before is not None and not interrupted and _same_outcome(before, result):
        result = before
    elif result.best is not None and not interrupted:
        write_down(sitting, result)
        winner = next(record for record in records if record.number == result.best.number)
        if winner.sibling_of is not None:
            tracker.trial_finished(winner)  # siblings have no run; a registered model needs one
        model = winner.model
        test = read_test_once(sitting, result.best, model)
        result = replace(result, test=test)
        write_down(sitting, result)
        try:
            result = replace(result, registered=_register(sitting, result, test, model, tracker))
        except TrackingError as error:
            tell(f"The winner is not registered: {error} Then run the same command with --name {result.sweep}.")
    write_down(sitting, result)
    tracker.summarise(
        records,
        best=result.best.number if result.best else None,
        metrics=_of_test(result.test),
        leaderboard=sitting.folder / "leaderboard.json",
    )
    return result


def read_test_once(sitting: Sitting, best: BestTrial, model: str) -> TestReading:
    """Return the winner's test score; the test split is not read again for the same trial on the same data."""
    config = TrialConfig.model_validate(dict(best.params))
    return _read_test(sitting, config, best.number, model, "test.json", TEST_PREDICTIONS)


def read_test_of(sitting: Sitting, record: TrialRecord) -> TestReading:
    """Return the test score of a complete trial that is no winner, such as a documented experiment; read once too."""
    config = TrialConfig.model_validate(dict(record.config))
    files = (f"test-{record.number:04d}.json", f"test-predictions-{record.number:04d}.npz")
    return _read_test(sitting, config, record.number, record.model, *files)


def _read_test(
    sitting: Sitting, config: TrialConfig, number: int, model: str, file_name: str, predictions: str
) -> TestReading:
    from carcls.families import evaluate_on_test

    file = sitting.folder / file_name
    subject = {"trial": config.digest, "data": sitting.dataset.digest}
    written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"readings": 0}
    if {name: written.get(name) for name in subject} != subject:
        # Counted before it happens, so that a reading whose score was lost counts too.
        readings = written["readings"] + 1
        write_json(file, {"readings": readings})
        score = evaluate_on_test(config, sitting.dataset, sitting.stages, model, sitting.folder / predictions)
        written = {
            **subject,
            "number": number,
            "metrics": dict(score.metrics),
            "interval": list(score.interval),
            "images": score.images,
            "readings": readings,
        }
        write_json(file, written)
    low, high = written["interval"]
    return TestReading(written["metrics"], (low, high), written["images"], written["readings"])


def summarize_data(dataset: Dataset) -> DataSummary:
    """Count what the trials train, validate and are tested on."""
    splits = dataset.splits
    counts = {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
    return DataSummary(dataset.name, dataset.digest, sum(counts.values()), len(dataset.classes), counts)


def summarize_trial(record: TrialRecord) -> TrialSummary:
    """Return a trial as the result tells it."""
    return TrialSummary(
        number=record.number,
        experiment=record.experiment,
        status=record.status,
        params=dict(record.config),
        metrics=dict(record.metrics),
        epochs=record.epochs,
        seconds=round(record.seconds, 3),
        reason="" if record.sibling_of is not None else record.reason,
        sibling_of=record.sibling_of,
    )


def summarize(sitting: Sitting, records: Sequence[TrialRecord], *, interrupted: bool) -> SweepResult:
    """Return the result without a test reading and a registered model."""
    trials = tuple(sorted((summarize_trial(record) for record in records), key=lambda trial: trial.number))
    goals = sitting.spec.goals
    best = find_best(trials, goals)
    seconds = time.monotonic() - sitting.started + (sitting.before.seconds if sitting.before else 0.0)
    return SweepResult(
        sweep=str(sitting.spec.name),
        family=sitting.spec.family,
        out=str(sitting.out),
        data=summarize_data(sitting.dataset),
        trials=trials,
        best=BestTrial(best.number, best.params, best.metrics) if best else None,
        test=None,
        registered=None,
        tracking_uri=sitting.tracking.shown_uri,
        seconds=round(seconds, 3),
        interrupted=interrupted,
        objectives=sitting.spec.objectives,
        constraints=sitting.spec.constraints,
        pareto=pareto_of(trials, goals),
    )


def _same_outcome(before: SweepResult, now: SweepResult) -> bool:
    """Tell whether nothing was computed since the sweep was concluded."""
    concluded = before.best is None or (before.test is not None and before.registered is not None)
    same = (before.trials, before.tracking_uri, before.data.digest) == (now.trials, now.tracking_uri, now.data.digest)
    return concluded and same and not before.interrupted


def _register(
    sitting: Sitting, result: SweepResult, test: TestReading, model: str, tracker: SweepTracker
) -> RegisteredModel:
    """Export the winner and make it the registry's challenger; a trial that is registered keeps its version."""
    from carcls.families import export_trial
    from sweeps.registry import register_best

    best = result.best
    assert best is not None
    config = TrialConfig.model_validate(dict(best.params))
    dataset = sitting.dataset
    origin = {"sweep": result.sweep, "data": result.data.name, "data_digest": result.data.digest}
    folder = sitting.folder / "model"
    export_trial(config, dataset, sitting.stages, model, folder, {**origin, "trial": best.number})
    tracker.flush()
    registered = register_best(
        sitting.tracking,
        family=result.family,
        sweep_id=sweep_id(sitting.folder),
        number=best.number,
        export=folder,
        metrics=best.metrics,
        test=test.metrics,
        details={**origin, "backbone": config.backbone, "test_images": dataset.test_digest},
        predictions=sitting.folder / TEST_PREDICTIONS,
    )
    return RegisteredModel(registered.name, registered.version, registered.alias, registered.uri)


def _of_test(test: TestReading | None) -> Mapping[str, float] | None:
    return test.metrics if test else None


def sweep_id(folder: Path) -> str:
    """Return what MLflow knows the sweep by: two folders may hold sweeps of one name on one server."""
    file = folder / "sweep_id"
    if not file.is_file():
        write_text(file, f"{folder.name}-{uuid.uuid4().hex[:12]}\n")
    return file.read_text(encoding="utf-8").strip()


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_down(sitting: Sitting, result: SweepResult) -> None:
    """Write ``leaderboard.json`` and ``result.json``."""
    base = sitting.spec.trial_config({}).model_dump()
    images = result.data.splits["validation"]
    board = make_leaderboard(result.trials, base=base, validation_images=images, goals=result.goals)
    write_json(sitting.folder / "leaderboard.json", board.as_dict())
    result.save(sitting.folder / "result.json")
