"""What comes after a sweep's trials: its winner compared, evaluated on the test images, exported, registered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from carcls.errors import TrackingError, TrialFailure
from sweeps.results.result import Registered, SweepResult
from sweeps.run.session import LEADERBOARD, TEST_PREDICTIONS, SweepSession, metrics_of
from sweeps.spec.sweep_file import read_file
from sweeps.text import plural

if TYPE_CHECKING:
    from sweeps.engine.engine import EngineResult
    from sweeps.tracking.mirror import Mirror
    from sweeps.tracking.registry import TrialModel

MODEL = "model"


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
        result = _as_registered(session, replace(before, board=result.board), mirror)
    elif result.winner is not None and not engine.interrupted:
        result = _publish(session, result, mirror)
    session.save(result)
    shown, leaderboard = metrics_of(result), session.folder / LEADERBOARD
    mirror.summarise(engine.records, best=result.winner, metrics=shown, leaderboard=leaderboard)
    return result


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
        found = _model_of(session, before.winner).find()
    except TrackingError as error:
        session.tell(f"Whether the winner is registered is not known: {error} {_then(session)}")
        return replace(before, registered=None)
    if found is not None:
        return replace(before, registered=found)
    session.tell("The model registry does not have the winner any more; it is registered again.")
    return _publish(session, replace(before, registered=None), mirror)


def _publish(session: SweepSession, result: SweepResult, mirror: Mirror) -> SweepResult:
    """Compare the winner, evaluate it on the test images, once, and register it."""
    winner, refit, tell = result.best, session.spec.refit, session.tell
    assert winner is not None
    session.save(replace(result, interrupted=True))  # should this process die, something is left to do
    if winner.derived_from is not None:
        mirror.trial_changed(winner)  # derived trials have no run; a registered model needs one
    try:
        compared = session.compute("sweeps.results.models:compare_winner", result=result)
        result = replace(result, comparison=compared)
        if refit:
            length = plural(winner.config["epochs"], "epoch")
            tell(f"refit: training trial {winner.number} anew on training and validation images, {length}")
        result = replace(result, test=session.evaluate_on_test(winner, refit=refit))
        work = {"record": winner, "refit": refit, "folder": session.folder / MODEL}
        details = {**_origin(session), "trial": winner.number}
        for note in session.compute("sweeps.results.models:export", **work, details=details):
            tell(note)
        tell(f"registering trial {winner.number} in {session.tracking.shown_uri}")
        return replace(result, registered=_register(session, result, mirror))
    except TrackingError as error:
        tell(f"The winner is not registered: {error} {_then(session)}")
    except (TrialFailure, OSError) as failure:
        why = " ".join(str(failure).split()).rstrip(".")
        tell(f"The winner is not registered: its model could not be made, tested or written ({why}). {_then(session)}")
    return result


def _register(session: SweepSession, result: SweepResult, mirror: Mirror) -> Registered:
    """Make the winner the registry's challenger; a trial that is registered keeps its version.

    Tags say how often the test images were evaluated, and what the winner's validation score is worth.
    """
    winner, test, confirmed = result.best, result.test, result.board.best_confirmed
    assert winner is not None
    assert test is not None
    tags = {"test_readings": str(test.evaluations), "test_models_read": str(test.models)}
    if confirmed is not None:
        spread = "" if confirmed.spread is None else f" ±{confirmed.spread:.4f}"
        tags["confirmed_val_accuracy"] = f"{confirmed.mean:.4f}{spread} over {len(confirmed.runs)} fresh seeds"
    about = {"backbone": winner.config["backbone"], "test_images": session.dataset.test_digest}
    mirror.flush()
    return _model_of(session, winner.number).register(
        session.folder / MODEL,
        metrics={} if test.refit else winner.metrics,
        test=test.metrics,
        details={**_origin(session), **about, **tags},
        predictions=session.folder / TEST_PREDICTIONS,
    )


def _model_of(session: SweepSession, number: int) -> TrialModel:
    from sweeps.tracking.registry import TrialModel

    spec = session.spec
    return TrialModel(session.tracking, spec.family, read_file(session.folder).id, number, spec.refit)


def _origin(session: SweepSession) -> dict[str, str]:
    return {"sweep": str(session.spec.name), "data": session.dataset.name, "data_digest": session.dataset.digest}


def _then(session: SweepSession) -> str:
    return f"Then: carsweep resume {session.command.name}"
