"""The way from challenger to champion: judged, recorded, moved (docs/promotion.md).

A challenger may become champion if it answers, with the champion's signature, and is not shown to be worse.
"""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from carcls.errors import InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison, compare_hits
from sweeps.tracking.registry import CHALLENGER, PREDICTIONS, TEST_IMAGES, UPLOAD_SECONDS, model_name
from sweeps.tracking.store import Tracking, explained, one_line, patience

CHAMPION = "champion"
PROMOTION_TAG, REFUSAL_TAG = "carsweep.promotion", "carsweep.refusal"
PROBE_SECONDS = 300
_ANEW = "Run its sweep again under another --name; nothing is trained twice."
_BY_HAND = "Set the alias yourself, as docs/promotion.md says."


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


class Judgement(NamedTuple):
    """Why a challenger may become champion, as the first and the last attributes of ``Promotion``."""

    verdict: str
    reason: str
    comparison: PairedComparison | None = None


class _Refusal(Exception):  # noqa: N818 - an answer of the judge, not an error of the program
    """The challenger may not become champion.

    Args:
        reason: why, and what to do.
        comparison: the challenger (first) with the champion (second), when that one is shown to be better.
    """

    def __init__(self, reason: str, comparison: PairedComparison | None = None) -> None:
        super().__init__(reason)
        self.judgement = Judgement("worse" if comparison else "refused", reason, comparison)


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
        (challenger, champion), moves = aliases, not dry_run and len(set(aliases)) > 1
        try:
            judgement, accepted = _judge(tracking, family, name, *aliases), True
            if moves and _read_aliases(tracking, name) != aliases:
                raise _Refusal("Another challenger or champion was set meanwhile. Run the same command again.")
        except _Refusal as refusal:
            judgement, accepted = refusal.judgement, False
        promotion = Promotion(
            family,
            name,
            **judgement._asdict(),
            accepted=accepted,
            moved=accepted and moves,
            challenger=challenger,
            champion=champion,
            dry_run=dry_run,
        )
        if not dry_run:
            _carry_out(tracking, promotion)
    return promotion


def _judge(tracking: Tracking, family: str, name: str, challenger: str | None, champion: str | None) -> Judgement:
    """Return why the challenger may become champion, or why it may not; what is cheap to ask comes first."""
    if challenger is None:
        raise _Refusal(f"{name} has no challenger. Run `carsweep run {family}`, whose winner becomes it.")
    if challenger == champion:
        return Judgement("already champion", f"Version {challenger} of {name} is the champion already.")
    signature = _signature_of(name, challenger, _ANEW)
    if champion is None:
        _require_answer(tracking, name, challenger, signature)
        return Judgement("first champion", f"{name} had no champion, and version {challenger} answers.")
    theirs = _signature_of(name, champion, _BY_HAND)
    if signature != theirs:
        raise _Refusal(
            f"Version {challenger} answers {_written(signature)}, the champion, version {champion}, answers "
            f"{_written(theirs)}: whoever uses the champion could not use it. {_BY_HAND}"
        )
    judgement = _weigh(_compare(tracking, name, challenger, champion), challenger, champion)
    _require_answer(tracking, name, challenger, signature)
    return judgement


def _read_aliases(tracking: Tracking, name: str) -> tuple[str | None, str | None] | None:
    """Return the versions that are challenger and champion; None where there is no such model."""
    with explained(tracking):
        client = tracking.client()
        # Searching finds nothing where getting raises, whatever the store.
        if not client.search_registered_models(f"name = '{name}'"):
            return None
        aliases = client.get_registered_model(name).aliases
    held = {alias: str(version) for alias, version in aliases.items()}
    return held.get(CHALLENGER), held.get(CHAMPION)


def _signature_of(name: str, version: str, remedy: str) -> ModelSignature:
    try:
        signature = Model.load(f"models:/{name}/{version}").signature
    except Exception as error:  # a file that is gone or damaged raises whatever its store does
        raise _Refusal(f"Version {version} of {name} cannot be read ({one_line(error)}). {remedy}") from error
    if signature is None or signature.outputs is None:
        raise _Refusal(f"Version {version} of {name} has no signature. {remedy}")
    return signature


def _written(signature: ModelSignature) -> str:
    takes = "" if signature.inputs is None else f" to {signature.inputs.to_dict()}"
    return ", ".join(f"{column.name} ({column.type})" for column in signature.outputs) + takes


def _compare(tracking: Tracking, name: str, challenger: str, champion: str) -> PairedComparison:
    """Compare the stored answers of two versions; no test image is read."""
    with explained(tracking):
        first, second = map(partial(tracking.client().get_model_version, name), (challenger, champion))
    ours, theirs = _answers_of(tracking, first, _ANEW), _answers_of(tracking, second, _BY_HAND)
    tested = first.tags.get(TEST_IMAGES)
    if tested is None or tested != second.tags.get(TEST_IMAGES) or not ours.same_images(theirs):
        said = " and ".join(
            f"{version.tags.get('data', 'unnamed data')} (test images {version.tags.get(TEST_IMAGES, 'unknown')})"
            for version in (first, second)
        )
        raise _Refusal(
            f"Versions {challenger} and {champion} must be tested on the same images, got {said}. Run a sweep on the "
            "champion's data, or set the alias yourself, as docs/promotion.md says."
        )
    return compare_hits(ours.hits, theirs.hits)


def _answers_of(tracking: Tracking, version: ModelVersion, remedy: str) -> StoredPredictions:
    with tempfile.TemporaryDirectory() as folder:
        file = _download(tracking, version, folder)
        if file is None:
            raise _Refusal(f"The test predictions of version {version.version} are missing. {remedy}")
        try:
            return read_predictions(file)
        except InputError as error:
            raise _Refusal(f"Version {version.version}: {error} {remedy}") from error


def _download(tracking: Tracking, version: ModelVersion, folder: str) -> Path | None:
    client = tracking.client()
    with explained(tracking):
        try:
            if PREDICTIONS not in {file.path for file in client.list_artifacts(version.run_id)}:
                return None
            return Path(client.download_artifacts(version.run_id, PREDICTIONS, folder))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the run was deleted for good
                return None
            raise


def _weigh(comparison: PairedComparison, challenger: str, champion: str) -> Judgement:
    if comparison.p_value > LEVEL:
        reason = f"No difference shown between version {challenger} and the champion, version {champion}."
        return Judgement(NO_DIFFERENCE, reason, comparison)
    if comparison.difference < 0:
        raise _Refusal(
            f"The champion, version {champion}, has significantly more of the test images right than version "
            f"{challenger}. Sweep on, with more trials or other settings.",
            comparison,
        )
    reason = f"Version {challenger} has significantly more of the test images right than version {champion}."
    return Judgement("better", reason, comparison)


def _require_answer(tracking: Tracking, name: str, version: str, signature: ModelSignature) -> None:
    """Load the version in another process and ask it about a small image."""
    answer = _ask(tracking, f"models:/{name}/{version}")
    columns = [column.name for column in signature.outputs]
    if answer["columns"] != columns or answer["rows"] != 1:
        raise _Refusal(
            f"Version {version} must answer one image with one row of {', '.join(columns)}, got {answer['rows']} of "
            f"{', '.join(map(str, answer['columns']))}. {_ANEW}"
        )
    if not 0.0 <= answer["probability"] <= 1.0:
        raise _Refusal(f"Version {version} must answer a probability in 0..1, got {answer['probability']}. {_ANEW}")


def _ask(tracking: Tracking, uri: str) -> dict[str, Any]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking.uri, "MLFLOW_REGISTRY_URI": tracking.uri}
    # -P: the folder of the program, whose modules have everyday names, stays off the path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), uri]
    try:
        with tempfile.TemporaryDirectory() as folder:
            # This interpreter and a file of this package; the address of the model is its only argument.
            done = subprocess.run(  # noqa: S603
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
            )
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        raise _Refusal(f"{uri} must load and answer an image within {PROBE_SECONDS} s. {_ANEW}") from None
    except (IndexError, ValueError):
        said = one_line(Exception((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]))
        raise _Refusal(f"{uri} must load and answer an image, got: {said}. {_ANEW}") from None


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


def _record(client: mlflow.MlflowClient, kind: str, promotion: Promotion) -> str:
    """Add a tag to the registered model, since MLflow keeps no history of aliases; return the time in it."""
    now, user = datetime.now(UTC), "unknown"
    with suppress(OSError, KeyError, ImportError):  # a container may know no name for its user
        user = getpass.getuser()
    entry = {
        "at": now.isoformat(timespec="seconds"),
        "by": user,
        "from": promotion.champion,
        "to": promotion.challenger,
        "verdict": promotion.verdict,
        "why": promotion.reason,
        "numbers": asdict(promotion.comparison) if promotion.comparison else None,
    }
    # To the microsecond, so that no record takes another's place.
    client.set_registered_model_tag(promotion.model, f"{kind}.{now:%Y%m%dT%H%M%S.%fZ}", json.dumps(entry))
    return str(entry["at"])
