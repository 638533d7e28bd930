"""The way from challenger to champion: judged, recorded, moved (docs/promotion.md)."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient

from carcls.errors import InputError
from carcls.evaluation.significance import PairedComparison
from sweeps.tracking.gates import Judgement, Refusal, judge
from sweeps.tracking.registry import CHALLENGER, UPLOAD_SECONDS, model_name
from sweeps.tracking.store import Tracking, explained, patience

CHAMPION = "champion"
PROMOTION_TAG, REFUSAL_TAG = "carsweep.promotion", "carsweep.refusal"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a challenger.

    Attributes:
        family, model: whose; the name of the registered model.
        verdict: ``first champion``, ``better``, ``no difference shown`` or ``already champion``; otherwise ``worse``
            or ``refused``.
        reason: one sentence, with the remedy where there is one.
        accepted: whether the challenger may be champion, or is.
        moved: whether the alias was moved; never in a dry run.
        challenger, champion: versions before the move; None where there is none.
        comparison: the challenger (first) with the champion (second) on the same test images.
        dry_run: whether nothing was to be changed.
    """

    family: str
    model: str
    verdict: str
    reason: str
    accepted: bool
    moved: bool
    challenger: str | None
    champion: str | None
    comparison: PairedComparison | None
    dry_run: bool


class _Aliases(NamedTuple):
    challenger: str | None
    champion: str | None


def promote(tracking: Tracking, family: str, *, dry_run: bool = False) -> Promotion:
    """Move the alias ``champion`` of a family's model to its challenger, if that one holds up.

    Judged by the answers that each sweep stored when it read the test split; no test image is read again. Every move
    and every refusal is recorded in a tag of the registered model. Sets MLflow's global URIs, and runs the challenger's
    own code in another process.

    Args:
        tracking: from ``open_tracking``.
        family: whose challenger.
        dry_run: judge, but neither move nor record.

    Raises:
        InputError: the family has no registered model here.
        TrackingError: the store does not answer.
    """
    name = model_name(family)
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    with patience(UPLOAD_SECONDS, 2):
        aliases = _read_aliases(tracking, name)
        if aliases is None:
            raise InputError(
                f"FAMILY must have a registered model, got {family!r}, and {tracking.shown_uri} has no {name}. "
                f"Run `carsweep run {family}` first, or name its store with --out or --tracking-uri."
            )
        accepted, moves = True, aliases.challenger != aliases.champion and not dry_run
        try:
            judgement = _judge(tracking, family, aliases)
            if moves and _read_aliases(tracking, name) != aliases:
                raise Refusal("Another challenger or champion was set meanwhile. Run the same command again.")
        except Refusal as refusal:
            judgement, accepted = refusal.judgement, False
        promotion = Promotion(
            family=family,
            model=name,
            verdict=judgement.verdict,
            reason=judgement.reason,
            accepted=accepted,
            moved=accepted and moves,
            challenger=aliases.challenger,
            champion=aliases.champion,
            comparison=judgement.comparison,
            dry_run=dry_run,
        )
        if not dry_run:
            _carry_out(tracking, promotion)
    return promotion


def _judge(tracking: Tracking, family: str, aliases: _Aliases) -> Judgement:
    name = model_name(family)
    if aliases.challenger is None:
        raise Refusal(f"{name} has no challenger. Run `carsweep run {family}`, whose winner becomes it.")
    if aliases.challenger == aliases.champion:
        return Judgement("already champion", f"Version {aliases.challenger} of {name} is the champion already.")
    return judge(tracking, name, aliases.challenger, aliases.champion)


def _read_aliases(tracking: Tracking, name: str) -> _Aliases | None:
    with explained(tracking):
        client = tracking.client()
        # Searching finds nothing where getting raises, whatever the store.
        if not client.search_registered_models(f"name = '{name}'"):
            return None
        aliases = client.get_registered_model(name).aliases
    held = {alias: str(version) for alias, version in aliases.items()}
    return _Aliases(held.get(CHALLENGER), held.get(CHAMPION))


def _carry_out(tracking: Tracking, promotion: Promotion) -> None:
    """Record a move, then make it: a record without its move can be seen, a move without its record cannot."""
    client, name, version = tracking.client(), promotion.model, str(promotion.challenger)
    with explained(tracking):
        if not promotion.accepted:
            _record(client, REFUSAL_TAG, promotion)
        elif promotion.moved:
            at = _record(client, PROMOTION_TAG, promotion)
            client.set_registered_model_alias(name, CHAMPION, version)
            client.set_model_version_tag(name, version, "promoted_at", at)
            client.set_model_version_tag(name, version, "promoted_over", promotion.champion or "none")


def _record(client: MlflowClient, kind: str, promotion: Promotion) -> str:
    """Add a tag to the registered model, since MLflow keeps no history of aliases; return the time in it."""
    now = datetime.now(UTC)
    entry = {
        "at": now.isoformat(timespec="seconds"),
        "by": _user(),
        "from": promotion.champion,
        "to": promotion.challenger,
        "verdict": promotion.verdict,
        "why": promotion.reason,
        "numbers": asdict(promotion.comparison) if promotion.comparison else None,
    }
    # To the microsecond, so that no record takes another's place.
    client.set_registered_model_tag(promotion.model, f"{kind}.{now:%Y%m%dT%H%M%S.%fZ}", json.dumps(entry))
    return str(entry["at"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may know no name for its user
        return "unknown"
