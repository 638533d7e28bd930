"""One session of a sweep, and what comes after its trials: the winner tested, exported, registered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.errors import TrackingError, TrialFailure
from carcls.stages import StageStore, write_json, write_text
from sweeps.results.environment import environment_here
from sweeps.results.evaluations import find_evaluation
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import RESULT, TEST_PREDICTIONS, Registered, SweepResult, TestEvaluation, spent_dict
from sweeps.spec.sweep_file import read_file
from sweeps.study.confirmation import Repeat, repeats_of
from sweeps.text import command_text, percent, plural
from sweeps.tracking.names import TEST_READINGS, VALIDATION, VALIDATION_IMAGES
from sweeps.trial import TrialRecord, stage_use
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.engine.engine import EngineResult
    from sweeps.engine.session import RaySession
    from sweeps.engine.task import Work
    from sweeps.run.command import Command
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.mirror import Mirror
    from sweeps.tracking.registry import TrialModel
    from sweeps.tracking.store import Tracking

# What of a sweep's folder its run in MLflow has, too.
SHOWN = ("leaderboard.json", "report.html", "curves.svg", "confusion.csv", "model-card.md")
_DESCRIPTION = 4000
"""Characters of a card that describe a version in MLflow, which has room for 5,000."""
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


def metrics_of(result: SweepResult) -> Mapping[str, float]:
    """Return what the sweep's run in MLflow shows besides its counts."""
    found = dict(result.test.metrics) if result.test else {}
    winner = result.board.best_confirmed
    if winner is not None and winner.mean is not None:
        found["best_confirmed_accuracy"] = winner.mean
    if result.spent.get("cost") is not None:
        found["cost"] = float(result.spent["cost"])
    return found


def outcome_of(result: SweepResult) -> str:
    """Return what came of a sweep in one line; empty without a winner."""
    row = next((row for row in result.board.rows if row.trial.number == result.winner), None)
    if row is None:
        return ""
    tested = "" if result.test is None else f", {percent(result.tested())} on the test images"
    where = f"; registered as {result.registered}" if result.registered else ""
    return f"trial {row.trial.number} · {row.trial.name} wins with {row.accuracy_text} on validation{tested}{where}"


def conclude(session: SweepSession, engine: EngineResult, mirror: Mirror) -> SweepResult:
    """Return the result and write it down; an interrupted sweep has no test evaluation and registers nothing yet.

    What fails once the trials are over costs no result: a winner that MLflow does not take, or that cannot be trained
    once more, is told, and can be registered by running the sweep again.

    The model that is registered is the winner's own; after ``--confirm`` the run with a fresh seed that is nearest to
    the mean of its settings (``sweeps.study.confirmation.typical_run``); with ``--refit`` a new one of those settings.
    """
    result, before, refit = session.summarize(engine), session.before, session.spec.refit
    if before is not None and not engine.interrupted and _same_outcome(before, result, refit=refit):
        # The trials are those that it was concluded with, and the journal's records know where their models are.
        # What older versions did not count, they know too.
        counted = replace(before, stage_hits=result.stage_hits, saved_seconds=result.saved_seconds)
        result = _as_registered(session, replace(counted, board=result.board), mirror)
    elif result.winner is not None and not engine.interrupted:
        result = _publish(session, result, mirror)
    session.save(result)
    summarise(mirror, engine.records, result, session.folder)
    return result


def summarise(mirror: Mirror, records: Sequence[TrialRecord], result: SweepResult, folder: Path) -> None:
    """Write what came of a sweep to its run in MLflow, with the files that its folder has."""
    files = [folder / name for name in SHOWN]
    best, said = result.winner, outcome_of(result)
    mirror.summarise(records, best=best, metrics=metrics_of(result), outcome=said, files=files)


def _same_outcome(before: SweepResult, now: SweepResult, *, refit: bool) -> bool:
    """Tell whether nothing was computed since the sweep was concluded, nor is to be."""
    if before.winner is not None and (before.test is None or before.registered is None or before.test.refit != refit):
        return False
    told, tells = before.as_dict(), now.as_dict()
    same = all(told[what] == tells[what] for what in ("trials", "best", "tracking_uri"))
    return same and before.data.digest == now.data.digest and not before.interrupted


def _as_registered(session: SweepSession, before: SweepResult, mirror: Mirror) -> SweepResult:
    """Return a concluded sweep's result as the registry has it now; a winner that is missing there is registered."""
    if before.winner is None:
        return before
    try:
        with Waiting(session.tell, "asking the model registry …"):
            found = _model_of(session, before.winner).find()
    except TrackingError as error:
        session.tell(f"Whether the winner is registered is not known: {error} {_then(session)}")
        return replace(before, registered=None)
    if found is not None:
        return replace(before, registered=found)
    session.tell("The model registry does not have the winner any more, or not by this name; it is registered again.")
    return _publish(session, replace(before, registered=None), mirror)


def _publish(session: SweepSession, result: SweepResult, mirror: Mirror) -> SweepResult:
    """Compare the winner, evaluate it on the test images, once, and register it."""
    winner, refit, tell = result.best, session.spec.refit, session.tell
    assert winner is not None
    session.save(replace(result, interrupted=True))  # should this process die, something is left to do
    if winner.derived_from is not None:
        mirror.trial_changed(winner)  # derived trials have no run; a registered model needs one
    try:
        with Waiting(tell, f"comparing trial {winner.number} with its rivals …"):
            compared = session.compute(
                "sweeps.results.models:compare_winner", result=result, answers=session.folder / VALIDATION
            )
        result = replace(result, comparison=compared)
        if refit:
            length = plural(winner.config["epochs"], "epoch")
            tell(f"refit: training trial {winner.number} anew on training and validation images, {length}")
        details = {**_origin(session), "trial": winner.number}
        result = replace(result, test=session.evaluate_on_test(winner, refit=refit, details=details))
        card = _write_card(session, result)
        tell(f"registering trial {winner.number} in {session.tracking.shown_uri}")
        return replace(result, registered=_register(session, result, mirror, card))
    except TrackingError as error:
        tell(f"The winner is not registered: {error} {_then(session)}")
    except (TrialFailure, OSError) as failure:
        why = " ".join(str(failure).split()).rstrip(".")
        tell(f"The winner is not registered: its model could not be made, tested or written ({why}). {_then(session)}")
    return result


def _write_card(session: SweepSession, result: SweepResult) -> str:
    """Write the model card into the sweep's folder and the exported model; return it as short as descriptions are."""
    from sweeps.report.card import CARD, model_card, short_card

    model = session.folder / MODEL
    size = sum(file.stat().st_size for file in model.iterdir() if file.name != CARD)
    card = model_card(result, session.dataset, session.folder, size)
    for folder in (session.folder, model):
        write_text(folder / CARD, card)
    return short_card(card, _DESCRIPTION)


def _register(session: SweepSession, result: SweepResult, mirror: Mirror, card: str) -> Registered:
    """Make the winner the registry's challenger; a trial that is registered keeps its version.

    Tags say how often the test images were evaluated, and what the winner's validation score is worth.
    """
    winner, test, confirmed = result.best, result.test, result.board.best_confirmed
    assert winner is not None
    assert test is not None
    tags = {TEST_READINGS: str(test.evaluations), "test_models_read": str(test.models)}
    if confirmed is not None:
        spread = "" if confirmed.spread is None else f" ±{confirmed.spread:.4f}"
        tags["confirmed_val_accuracy"] = f"{confirmed.mean:.4f}{spread} over {len(confirmed.runs)} fresh seeds"
    data = session.dataset
    about = {"backbone": winner.config["backbone"], "test_images": data.test_digest}
    about[VALIDATION_IMAGES] = data.validation_digest
    mirror.flush()
    return _model_of(session, winner.number).register(
        session.folder / MODEL,
        metrics={} if test.refit else winner.metrics,
        test=test.metrics,
        details={**_origin(session), **about, **tags},
        predictions=session.folder / TEST_PREDICTIONS,
        card=card,
    )


def _model_of(session: SweepSession, number: int) -> TrialModel:
    from sweeps.tracking.registry import TrialModel

    spec = session.spec
    return TrialModel(session.tracking, spec.family, read_file(session.folder).id, number, spec.refit, spec.model_name)


def _origin(session: SweepSession) -> dict[str, str]:
    return {"sweep": str(session.spec.name), "data": session.dataset.name, "data_digest": session.dataset.digest}


def _then(session: SweepSession) -> str:
    verb = "resume" if session.command.runs_trials else "finish"
    return f"Then: {command_text(verb, session.command.name, out=session.command.root)}"
