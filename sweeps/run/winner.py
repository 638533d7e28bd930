"""What comes after a search: the best once more with fresh seeds; the winner read on test, exported and registered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from carcls.errors import TrackingError, TrialFailure
from carcls.stages import write_json
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.models import find_reading
from sweeps.results.result import RESULT, Registered, SweepResult, TestReading, spent_dict
from sweeps.run.session import SweepSession
from sweeps.spec.sweep_file import read_file
from sweeps.study.confirmation import Repeat, repeats_of
from sweeps.text import plural

if TYPE_CHECKING:
    from sweeps.engine.engine import EngineResult
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.mirror import Mirror
    from sweeps.trial import TrialRecord

MODEL, TEST_PREDICTIONS = "model", "test-predictions.npz"


def repeats_wanted(spec: SweepSpec, records: Sequence[TrialRecord]) -> list[Repeat]:
    """Return the runs that confirm a search: the N best trials, with M fresh seeds each; best first.

    Of a trial and the combinations that it answered on its way the best is the candidate: they share one training, and
    one network under three names would be no choice. So would be one settings under two numbers.

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


def conclude(session: SweepSession, engine: EngineResult, mirror: Mirror, tell: Callable[[str], None]) -> SweepResult:
    """Return the result and write it down; an interrupted sweep has no test reading and registers nothing yet.

    What fails once the trials are over costs no result: a winner that MLflow does not take, or that cannot be trained
    once more, is told, and can be registered by running the sweep again.

    The model that is registered is the winner's own; after ``--confirm`` the run with a fresh seed that is nearest to
    the mean of its settings (``sweeps.study.confirmation.typical_run``); with ``--refit`` a new one of those settings.
    """
    records, interrupted = engine.records, engine.interrupted
    result = summarize(session, records, interrupted=interrupted)
    before = session.before
    if before is None and (session.folder / RESULT).is_file():
        tell(f"{RESULT} cannot be read; it is written anew from the sweep's journal.")
    if before is not None and not interrupted and _same_outcome(before, result, refit=session.spec.refit):
        # The trials are those that it was concluded with, and the journal's records know where their models are.
        result = _as_registered(session, replace(before, board=result.board), mirror, tell)
    elif result.winner is not None and not interrupted:
        result = _publish(session, result, mirror, tell)
    write_down(session, result)
    mirror.summarise(
        records,
        best=result.winner,
        metrics=metrics_of(result),
        leaderboard=session.folder / "leaderboard.json",
    )
    return result


def _as_registered(
    session: SweepSession, before: SweepResult, mirror: Mirror, tell: Callable[[str], None]
) -> SweepResult:
    """Return a concluded sweep's result as the registry has it now; a winner that is missing there is registered."""
    from sweeps.tracking.registry import find_registered

    if before.winner is None:
        return before
    try:
        found = find_registered(
            session.tracking,
            family=before.family,
            sweep_id=read_file(session.folder).id,
            number=before.winner,
            refit=session.spec.refit,
        )
    except TrackingError as error:
        tell(f"Whether the winner is registered is not known: {error} Then: carsweep resume {session.called}")
        return replace(before, registered=None)
    if found is not None:
        return replace(before, registered=found)
    tell("The model registry does not have the winner any more; it is registered again.")
    return _publish(session, replace(before, registered=None), mirror, tell)


def _publish(session: SweepSession, result: SweepResult, mirror: Mirror, tell: Callable[[str], None]) -> SweepResult:
    """Compare the winner, read it on the test images, once, and register it; each that is done is written down."""
    winner, refit = result.best, session.spec.refit
    assert winner is not None
    _keep(session, result)
    if winner.sibling_of is not None:
        mirror.trial_changed(winner)  # derived trials have no run; a registered model needs one
    model = {"record": winner, "refit": refit, "folder": session.folder / MODEL}
    details = {**_origin(session), "trial": winner.number}
    try:
        compared = _compute(session, "sweeps.results.models:compare_winner", result=result)
        result = replace(result, comparison=compared)
        _keep(session, result)
        if refit:
            length = plural(winner.config["epochs"], "epoch")
            tell(f"refit: training trial {winner.number} anew on training and validation images, {length}")
        test = evaluate_on_test(session, winner, tell, refit=refit)
        result = replace(result, test=test)
        _keep(session, result)
        for note in _compute(session, "sweeps.results.models:export", **model, details=details):
            tell(note)
    except (TrialFailure, OSError) as failure:
        why = " ".join(str(failure).split()).rstrip(".")
        tell(
            f"The winner is not registered: its model could not be made, tested or written ({why}). "
            f"Then: carsweep resume {session.called}"
        )
        return result
    tell(f"registering trial {winner.number} in {session.tracking.shown_uri}")
    try:
        return replace(result, registered=_register(session, result, winner, test, mirror))
    except TrackingError as error:
        tell(f"The winner is not registered: {error} Then: carsweep resume {session.called}")
        return result


def _keep(session: SweepSession, result: SweepResult) -> None:
    """Write down a result whose winner is not registered yet: should this process die, something is left to do."""
    write_down(session, replace(result, interrupted=True))


def evaluate_on_test(
    session: SweepSession,
    record: TrialRecord,
    tell: Callable[[str], None],
    *,
    refit: bool = False,
    files: tuple[str, str] = ("test.json", TEST_PREDICTIONS),
) -> TestReading:
    """Return the test score of a complete trial; what is known already is not computed again.

    Args:
        session: of its sweep.
        record: of the trial.
        tell: gets what a person should know.
        refit: evaluate its settings, trained on the validation images too.
        files: names in the sweep's folder of the score and of the answers to the images.

    Raises:
        TrialFailure: the model is gone and cannot be made again.
        OSError: there is no room, or the process died.
    """
    path, predictions = (session.folder / name for name in files)
    known = find_reading(record, session.dataset, path, refit=refit)
    if known is not None:
        return known
    tell(f"evaluating trial {record.number} on the {len(session.dataset.splits.test)} test images")
    work = {"record": record, "refit": refit, "path": path, "predictions": predictions}
    test: TestReading
    test, notes = _compute(session, "sweeps.results.models:evaluate", **work)
    for note in notes:
        tell(note)
    return test


def _compute(session: SweepSession, function: str, **arguments: Any) -> Any:
    """Return what a function returns, in a trial's process."""
    from sweeps.engine.task import run_task

    return run_task(function, arguments, session.spec, session.folder, session.stages.root, session.ray)


def files_of(record: TrialRecord) -> tuple[str, str]:
    """Return where the test score of a trial that is no winner is kept, such as a documented experiment."""
    return f"test-{record.number:04d}.json", f"test-predictions-{record.number:04d}.npz"


def summarize(session: SweepSession, records: Sequence[TrialRecord], *, interrupted: bool) -> SweepResult:
    """Return the result without a test reading and a registered model."""
    trials = tuple(sorted(records, key=lambda trial: trial.number))
    data = session.dataset.summary
    board = Leaderboard(trials, session.spec.trial_config({}).model_dump(), data.validation, session.spec.goals)
    before = session.before
    seconds = time.monotonic() - session.started + (before.seconds if before else 0.0)
    return SweepResult(
        sweep=str(session.spec.name),
        family=session.spec.family,
        out=str(session.out),
        data=data,
        board=board,
        winner=board.best.number if board.best else None,
        test=None,
        registered=None,
        tracking_uri=session.tracking.shown_uri,
        seconds=round(seconds, 3),
        interrupted=interrupted,
        spent=spent_dict(records, session.spec.prices),
        saved_seconds=round(sum(record.saved for record in records), 3),
    )


def _same_outcome(before: SweepResult, now: SweepResult, *, refit: bool) -> bool:
    """Tell whether nothing was computed since the sweep was concluded, nor is to be."""
    if before.winner is not None and (before.test is None or before.registered is None or before.test.refit != refit):
        return False
    told, tells = before.as_dict(), now.as_dict()
    same = all(told[what] == tells[what] for what in ("trials", "best", "tracking_uri"))
    return same and before.data.digest == now.data.digest and not before.interrupted


def _register(
    session: SweepSession, result: SweepResult, winner: TrialRecord, test: TestReading, mirror: Mirror
) -> Registered:
    """Make the winner the registry's challenger; a trial that is registered keeps its version."""
    from sweeps.tracking.registry import register_best

    mirror.flush()
    return register_best(
        session.tracking,
        family=result.family,
        sweep_id=read_file(session.folder).id,
        number=winner.number,
        export=session.folder / MODEL,
        metrics={} if test.refit else winner.metrics,
        test=test.metrics,
        details={
            **_origin(session),
            "backbone": winner.config["backbone"],
            "test_images": session.dataset.test_digest,
            **_counted(result, test),
        },
        predictions=session.folder / TEST_PREDICTIONS,
    )


def _origin(session: SweepSession) -> dict[str, str]:
    return {"sweep": str(session.spec.name), "data": session.dataset.name, "data_digest": session.dataset.digest}


def _counted(result: SweepResult, test: TestReading) -> dict[str, str]:
    """Return tags of the version: how often the test images were looked at, and what its validation score is worth."""
    tags = {"test_readings": str(test.readings), "test_models_read": str(test.models)}
    winner = result.board.best_confirmed
    if winner is not None and winner.mean is not None:
        spread = "" if winner.spread is None else f" ±{winner.spread:.4f}"
        tags["confirmed_val_accuracy"] = f"{winner.mean:.4f}{spread} over {len(winner.runs)} fresh seeds"
    return {**tags, "refit": "true"} if test.refit else tags


def metrics_of(result: SweepResult) -> Mapping[str, float]:
    """Return what the sweep's run in MLflow shows besides its counts."""
    winner = result.board.best_confirmed
    confirmed = {"best_confirmed_accuracy": winner.mean} if winner is not None and winner.mean is not None else {}
    cost = {} if result.spent.get("cost") is None else {"cost": float(result.spent["cost"])}
    return {**(result.test.metrics if result.test else {}), **confirmed, **cost}


def write_down(session: SweepSession, result: SweepResult) -> None:
    """Write ``leaderboard.json`` and ``result.json``."""
    write_json(session.folder / "leaderboard.json", result.board.as_dict())
    result.save(session.folder / RESULT)
