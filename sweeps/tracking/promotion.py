"""The way from challenger to champion, and back: asked by gates, recorded, moved (docs/promotion.md)."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from carcls.errors import InputError
from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison
from sweeps.tracking.contest import Contest, Demands
from sweeps.tracking.gates import GATES, GateAnswer, ask
from sweeps.tracking.moves import (
    PROMOTION,
    REFUSAL,
    ROLLBACK,
    Move,
    aliases_of,
    moves_of,
    moving,
    record,
    require_short,
)
from sweeps.tracking.naming import newest_model
from sweeps.tracking.store import Tracking, explained, patience

if TYPE_CHECKING:
    from sweeps.tracking.models import ModelFiles


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a challenger.

    Attributes:
        family, model: whose; the name of the registered model, the newest of the family's.
        challenger, champion: versions before the move; None where there is none.
        dry_run: whether nothing was to be changed.
        verdict: ``first champion``, ``better``, ``no difference shown``, ``within the margin``, ``forced`` or ``already
            champion``; otherwise ``worse`` or ``refused``.
        reason: one sentence, with the remedy where there is one.
        gate: name of the first gate that refused; empty where none did.
        comparison: the challenger (first) with the champion (second) on the same test images; None where there is none.
        accepted: whether the challenger may be champion, or is.
        moved: whether the alias was moved; never in a dry run.
        gates: what each gate said; empty where none was asked.
        forced: why it was to move whatever the gates say, in the user's words; empty otherwise.
    """

    family: str
    model: str
    challenger: str | None
    champion: str | None
    dry_run: bool
    verdict: str = "refused"
    reason: str = ""
    gate: str = ""
    comparison: PairedComparison | None = None
    accepted: bool = False
    moved: bool = False
    gates: tuple[GateAnswer, ...] = ()
    forced: str = ""


@dataclass(frozen=True, slots=True)
class Rollback:
    """The champion before is champion again; nothing moved where ``before`` is ``after``.

    Attributes:
        model: name of the registered model.
        before, after: the versions that were and are champion; there may have been none.
        reason: in the user's words; may be empty.
    """

    model: str
    before: str | None
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChampionHistory:
    """What a family's model went through.

    Attributes:
        model: its name.
        champion: the version that is it now, or None.
        moves: the oldest first.
        by_hand: whether the champion is another one than the last move made it.
    """

    model: str
    champion: str | None
    moves: tuple[Move, ...]
    by_hand: bool


def promote(
    tracking: Tracking,
    family: str,
    files: ModelFiles,
    *,
    dry_run: bool = False,
    limits: Demands | None = None,
    forced: str = "",
) -> Promotion:
    """Move the alias ``champion`` of a family's model to its challenger, if all ``GATES`` let it pass.

    Judged by the answers that each sweep stored when it evaluated its winner on the test set; of data that has grown
    the champion is evaluated on the new test images, once and counted, also in a dry run. Every move and every refusal
    is recorded in a tag of the registered model. Sets MLflow's global URIs, and runs the challenger's own code in
    another process.

    Args:
        tracking: from ``check_tracking``.
        family: whose challenger.
        files: of the models.
        dry_run: judge, but neither move nor record.
        limits: what is asked beyond what is always asked.
        forced: why it moves whatever the gates say but those with ``always``; empty asks them.

    Raises:
        InputError: the family has no registered model here, or the reason is too long.
        TrackingError: the store does not answer.
    """
    require_short(forced)
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    with explained(tracking), patience(), tempfile.TemporaryDirectory() as scratch:
        name = newest_model(tracking, family)
        aliases = aliases_of(tracking, name)
        asked = Promotion(family, name, *aliases, dry_run, forced=forced)
        promotion = asked
        if asked.challenger is None:
            why = f"{name} has no challenger. Run `carsweep run {asked.family}`, whose winner becomes it."
            promotion = replace(asked, reason=why)
        elif asked.challenger == asked.champion:
            promotion = _already(asked)
        else:
            contest = Contest(tracking.client(), name, asked.challenger, asked.champion, Path(scratch), limits, files)
            promotion = _judge(asked, contest)
        if not dry_run and promotion.verdict != _already(asked).verdict:
            promotion = _carry_out(tracking, asked, promotion)
    return promotion


def rollback(
    tracking: Tracking, family: str, files: ModelFiles, *, to: str | None = None, reason: str = ""
) -> Rollback:
    """Move the alias ``champion`` back to the version that was champion before, or to another one; recorded.

    Args:
        tracking: from ``check_tracking``.
        family: whose champion.
        files: of the models.
        to: version; None for the one before, by the records.
        reason: recorded.

    Raises:
        InputError: there is no such version, its files are gone or changed, it does not load, or the reason is too
            long.
        TrackingError: the store does not answer.
    """
    require_short(reason)
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    with explained(tracking), patience(), tempfile.TemporaryDirectory() as scratch:
        client, name = tracking.client(), newest_model(tracking, family)
        champion = aliases_of(tracking, name)[1]
        version = to or _before(tracking, name, champion)
        if version is None:
            had = (
                f"{name} has no champion" if champion is None else f"no champion before version {champion} is recorded"
            )
            raise InputError(f"rollback must have a champion to go back to, but {had}. Name a version with --to.")
        if version == champion:
            return Rollback(name, champion, version, reason)
        try:
            client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise InputError(
                f"--to must be a version of {name}, got {version!r}, which it does not have. Name another."
            ) from error
        contest = Contest(client, name, version, None, Path(scratch), files=files)
        for answer in ask(contest, [gate for gate in GATES if gate.always]):
            if answer.state == "refused":
                raise InputError(f"Version {version} cannot be champion again: {answer.said}")
        with moving(tracking, name):
            if aliases_of(tracking, name)[1] != champion:
                raise InputError(
                    "Another champion was set meanwhile. Look at `carsweep history`, then roll back again."
                )
            record(client, name, ROLLBACK, {"from": champion, "to": version, "why": "rolled back", "reason": reason})
    return Rollback(name, champion, version, reason)


def history(tracking: Tracking, family: str) -> ChampionHistory:
    """Return every recorded move and refusal of a family's newest registered model.

    Raises:
        InputError: the family has no registered model here.
        TrackingError: the store does not answer.
    """
    with explained(tracking), patience():
        name = newest_model(tracking, family)
        champion = aliases_of(tracking, name)[1]
        moves = moves_of(tracking.client(), name)
    made = [move.after for move in moves if move.kind != REFUSAL]
    return ChampionHistory(name, champion, moves, champion != (made[-1] if made else None))


def _before(tracking: Tracking, name: str, champion: str | None) -> str | None:
    """Return the champion before: whom it replaced when it was promoted, or the last one recorded if set by hand."""
    moves = [move for move in moves_of(tracking.client(), name) if move.kind != REFUSAL]
    if moves and moves[-1].after != champion:
        return moves[-1].after
    promoted = [move.before for move in moves if move.kind == PROMOTION and move.after == champion]
    return promoted[-1] if promoted else None


def _already(asked: Promotion) -> Promotion:
    reason = f"Version {asked.challenger} of {asked.model} is the champion already."
    return replace(asked, accepted=True, verdict="already champion", reason=reason)


def _judge(asked: Promotion, contest: Contest) -> Promotion:
    """Return what the gates say of the challenger; all are asked."""
    answers = tuple(ask(contest, GATES))
    asked, refusals = replace(asked, gates=answers), [answer for answer in answers if answer.state == "refused"]
    compared = contest.comparison if "comparison" in vars(contest) else None
    if refusals:
        first = next((one for one in refusals if one.always), refusals[0]) if asked.forced else refusals[0]
        if not asked.forced or first.always:
            verdict, reason = first.verdict, first.said
            return replace(asked, verdict=verdict, reason=reason, gate=first.gate, comparison=compared)
        names = ", ".join(one.gate for one in refusals)
        why = f"Forced, although refused by {names}: {asked.forced}"
        return replace(asked, accepted=True, verdict="forced", reason=why, gate=first.gate, comparison=compared)
    passed = partial(replace, asked, accepted=True, comparison=compared)
    challenger, champion = asked.challenger, asked.champion
    if champion is None or compared is None:
        return passed(
            verdict="first champion", reason=f"{asked.model} had no champion, and version {challenger} answers."
        )
    verdict, why = NO_DIFFERENCE, f"No difference shown between version {challenger} and the champion, {champion}."
    if compared.p_value <= LEVEL and compared.difference > 0:
        verdict = "better"
        why = f"Version {challenger} has significantly more of the test images right than version {champion}."
    elif compared.p_value <= LEVEL and compared.difference < 0:
        verdict = "within the margin"
        why = f"Version {challenger} has fewer of the test images right than version {champion}, within --margin."
    return passed(verdict=verdict, reason=why)


def _carry_out(tracking: Tracking, asked: Promotion, judged: Promotion) -> Promotion:
    """Record a refusal, or make the move, if the aliases still are what was judged."""
    client, name = tracking.client(), asked.model
    if not judged.accepted:
        record(client, name, REFUSAL, _entry(judged))
        return judged
    with moving(tracking, name):
        now = aliases_of(tracking, name)
        if now == (asked.challenger, asked.champion):
            moved = replace(judged, moved=True)
            record(client, name, PROMOTION, _entry(moved))
            return moved
        if now[1] == asked.challenger:
            return _already(asked)
        meanwhile = "Another challenger or champion was set meanwhile. Run the same command again."
        late = replace(asked, reason=meanwhile)
        record(client, name, REFUSAL, _entry(late))
        return late


def _entry(promotion: Promotion) -> dict[str, object]:
    """Return what the record of a promotion says."""
    refused = [answer.gate for answer in promotion.gates if answer.state == "refused"]
    return {
        "from": promotion.champion,
        "to": promotion.challenger,
        "verdict": promotion.verdict,
        "gate": promotion.gate,
        "why": promotion.reason,
        "reason": promotion.forced,
        "forced": refused if promotion.verdict == "forced" else [],
        "numbers": asdict(promotion.comparison) if promotion.comparison else None,
        "gates": {answer.gate: f"{answer.state}: {answer.said}".rstrip(": ") for answer in promotion.gates},
    }
