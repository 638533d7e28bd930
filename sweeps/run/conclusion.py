"""The end of a sweep: its winner is compared, evaluated on the test images, exported and registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import TrackingError, TrialFailure
from carcls.stages import write_text
from sweeps.results.result import TEST_PREDICTIONS, Registered, SweepResult
from sweeps.run.session import LEADERBOARD, MODEL, SweepSession
from sweeps.spec.sweep_file import read_file
from sweeps.text import command_text, percent, plural
from sweeps.tracking.names import TEST_READINGS, VALIDATION, VALIDATION_IMAGES
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from sweeps.engine.engine import EngineResult
    from sweeps.tracking.mirror import Mirror
    from sweeps.tracking.registry import TrialModel
    from sweeps.trial import TrialRecord

# What of a sweep's folder its run in MLflow has, too.
SHOWN = (LEADERBOARD, "report.html", "curves.svg", "confusion.csv", "model-card.md")
_DESCRIPTION = 4000
"""Characters of a card that describe a version in MLflow, which has room for 5,000."""


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
