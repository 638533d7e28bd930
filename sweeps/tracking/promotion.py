"""The way from challenger to champion: asked by gates, recorded, moved (docs/promotion.md)."""

from __future__ import annotations

import getpass
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import mlflow

from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison
from sweeps.tracking.gates import GATES, Contest, Refusal
from sweeps.tracking.names import CHALLENGER, CHAMPION
from sweeps.tracking.naming import newest_model
from sweeps.tracking.store import Tracking, explained, patience

PROMOTION_TAG, REFUSAL_TAG = "carsweep.promotion", "carsweep.refusal"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a challenger.

    Attributes:
        family, model: whose; the name of the registered model, the newest of the family's.
        challenger, champion: versions before the move; None where there is none.
        dry_run: whether nothing was to be changed.
        verdict: ``first champion``, ``better``, ``no difference shown`` or ``already champion``; otherwise ``worse``
            or ``refused``.
        reason: one sentence, with the remedy where there is one.
        gate: name of the gate that refused; empty where none did.
        comparison: the challenger (first) with the champion (second) on the same test images; None for ``refused``.
        accepted: whether the challenger may be champion, or is.
        moved: whether the alias was moved; never in a dry run.
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


def promote(tracking: Tracking, family: str, *, dry_run: bool = False) -> Promotion:
    """Move the alias ``champion`` of a family's model to its challenger, if all ``GATES`` let it pass.

    Judged by the answers that each sweep stored when it evaluated its winner on the test set; nothing is evaluated
    again. Every move and every refusal is recorded in a tag of the registered model. Sets MLflow's global URIs, and
    runs the challenger's own code in another process.

    Args:
        tracking: from ``check_tracking``.
        family: whose challenger.
        dry_run: judge, but neither move nor record.

    Raises:
        InputError: the family has no registered model here.
        TrackingError: the store does not answer.
    """
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    with explained(tracking), patience():
        name = newest_model(tracking, family)
        aliases = _read_aliases(tracking, name)
        asked = Promotion(family, name, *aliases, dry_run)
        promotion = _judge(tracking, asked)
        if promotion.accepted and not dry_run and len(set(aliases)) > 1:
            meanwhile = "Another challenger or champion was set meanwhile. Run the same command again."
            is_same = _read_aliases(tracking, name) == aliases
            promotion = replace(promotion, moved=True) if is_same else replace(asked, reason=meanwhile)
        if not dry_run and (promotion.moved or not promotion.accepted):
            _carry_out(tracking.client(), promotion)
    return promotion


def _read_aliases(tracking: Tracking, name: str) -> tuple[str | None, str | None]:
    """Return the versions that are challenger and champion."""
    held = {alias: str(version) for alias, version in tracking.client().get_registered_model(name).aliases.items()}
    return held.get(CHALLENGER), held.get(CHAMPION)


def _judge(tracking: Tracking, asked: Promotion) -> Promotion:
    """Return what the gates say of the challenger."""
    name, challenger, champion = asked.model, asked.challenger, asked.champion
    if challenger is None:
        why = f"{name} has no challenger. Run `carsweep run {asked.family}`, whose winner becomes it."
        return replace(asked, reason=why)
    passed = partial(replace, asked, accepted=True)
    if challenger == champion:
        return passed(verdict="already champion", reason=f"Version {challenger} of {name} is the champion already.")
    contest = Contest(tracking, name, challenger, champion)
    for gate in GATES:
        try:
            if gate.of_first or champion is not None:
                gate.check(contest)
        except Refusal as refusal:
            numbers = contest.comparison if refusal.verdict == "worse" else None
            return replace(asked, verdict=refusal.verdict, reason=str(refusal), gate=gate.name, comparison=numbers)
    if champion is None:
        return passed(verdict="first champion", reason=f"{name} had no champion, and version {challenger} answers.")
    verdict, why = NO_DIFFERENCE, f"No difference shown between version {challenger} and the champion, {champion}."
    if contest.comparison.p_value <= LEVEL:
        verdict = "better"
        why = f"Version {challenger} has significantly more of the test images right than version {champion}."
    return passed(verdict=verdict, reason=why, comparison=contest.comparison)


def _carry_out(client: mlflow.MlflowClient, promotion: Promotion) -> None:
    """Record a refusal, or a move, since MLflow keeps no history of aliases; then move.

    So a record without its move can be seen; a move without its record could not.
    """
    now, user, name = datetime.now(UTC), "unknown", promotion.model
    with suppress(OSError, KeyError, ImportError):  # a container may know no name for its user
        user = getpass.getuser()
    entry: dict[str, Any] = {
        "at": now.isoformat(timespec="seconds"),
        "by": user,
        "from": promotion.champion,
        "to": promotion.challenger,
        "verdict": promotion.verdict,
        "gate": promotion.gate,
        "why": promotion.reason,
        "numbers": asdict(promotion.comparison) if promotion.comparison else None,
    }
    kind = PROMOTION_TAG if promotion.moved else REFUSAL_TAG
    # To the microsecond, so that no record takes another's place.
    client.set_registered_model_tag(name, f"{kind}.{now:%Y%m%dT%H%M%S.%fZ}", json.dumps(entry))
    if promotion.moved:
        client.set_registered_model_alias(name, CHAMPION, promotion.challenger)
        client.set_model_version_tag(name, promotion.challenger, "promoted_at", entry["at"])
        client.set_model_version_tag(name, promotion.challenger, "promoted_over", promotion.champion or "none")
