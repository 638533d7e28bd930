"""The way from challenger to champion: asked by gates, recorded, moved (docs/promotion.md).

A gate is one row of ``GATES``: its name, what it asks in words, and the function that asks it. What is cheap to ask
comes first.
"""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from carcls.errors import CarsweepError, InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison, compare_hits
from sweeps.tracking.store import Tracking, explained, one_line, patience
from sweeps.tracking.updates import CHALLENGER, PREDICTIONS, TEST_IMAGES, model_name

CHAMPION = "champion"
PROMOTION_TAG, REFUSAL_TAG = "carsweep.promotion", "carsweep.refusal"
PROBE_SECONDS = 300
_ANEW = "Run its sweep again under another --name; nothing is trained twice."
_BY_HAND = "Set the alias yourself, as docs/promotion.md says."
# For a process of its own: a registered model brings its own copy of carcls, which must not meet the installed one.
_PROBE = """
import json, sys
import mlflow, numpy as np
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(np.zeros((64, 64, 3), np.uint8))
print(json.dumps([list(answer.columns), len(answer), float(answer["probability"].iloc[0])]))
"""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a challenger.

    Attributes:
        family, model: whose; the name of the registered model.
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


class Refusal(CarsweepError):  # noqa: N818 - the answer of a gate, not an error of the program
    """The challenger may not become champion: why, with the remedy, and the verdict of the ``Promotion``."""

    def __init__(self, reason: str, verdict: str = "refused") -> None:
        super().__init__(reason)
        self.verdict = verdict


class Contest:
    """A challenger, and what a gate may ask of it and of its champion; each is read when it is first asked for.

    Args:
        tracking: from ``check_tracking``.
        model: name of the registered model.
        challenger, champion: its versions; there may be no champion.
    """

    def __init__(self, tracking: Tracking, model: str, challenger: str, champion: str | None) -> None:
        self.tracking, self.model, self.challenger, self.champion = tracking, model, challenger, champion

    def signature_of(self, version: str) -> ModelSignature:
        """Return what a version answers; raises a Refusal where that cannot be read."""
        try:
            signature = Model.load(f"models:/{self.model}/{version}").signature
        except Exception as error:  # a file that is gone or damaged raises whatever its store does
            why = f"cannot be read ({one_line(error)})"
            raise Refusal(f"Version {version} of {self.model} {why}. {self._remedy(version)}") from error
        if signature is None or signature.outputs is None:
            raise Refusal(f"Version {version} of {self.model} has no signature. {self._remedy(version)}")
        return signature

    @cached_property
    def comparison(self) -> PairedComparison:
        """The challenger's stored answers beside the champion's; raises a Refusal where there are no such two."""
        client = self.tracking.client()
        versions = [client.get_model_version(self.model, version) for version in (self.challenger, self.champion)]
        ours, theirs = map(self._answers_of, versions)
        tested = [version.tags.get(TEST_IMAGES, "unknown") for version in versions]
        if tested[0] != tested[1] or "unknown" in tested or not ours.same_images(theirs):
            said = " and ".join(
                f"{version.tags.get('data', 'unnamed data')} (test images {images})"
                for version, images in zip(versions, tested, strict=True)
            )
            raise Refusal(
                f"Versions {self.challenger} and {self.champion} must be tested on the same images, got {said}. Run a "
                "sweep on the champion's data, or set the alias yourself, as docs/promotion.md says."
            )
        return compare_hits(ours.hits, theirs.hits)

    def _answers_of(self, version: ModelVersion) -> StoredPredictions:
        client, remedy = self.tracking.client(), self._remedy(str(version.version))
        try:
            files = {file.path for file in client.list_artifacts(version.run_id)}
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # otherwise the run was deleted for good
                raise
            files = set()
        if PREDICTIONS not in files:
            raise Refusal(f"The test predictions of version {version.version} are missing. {remedy}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                return read_predictions(Path(client.download_artifacts(version.run_id, PREDICTIONS, folder)))
            except InputError as error:
                raise Refusal(f"Version {version.version}: {error} {remedy}") from error

    def _remedy(self, version: str) -> str:
        return _ANEW if version == self.challenger else _BY_HAND


class Gate(NamedTuple):
    """Something that is asked of a challenger.

    Attributes:
        name: in JSON and in docs/promotion.md.
        asks: the same in words.
        check: raises a ``Refusal``, or lets the challenger pass.
        of_first: whether it is asked also where there is no champion.
    """

    name: str
    asks: str
    check: Callable[[Contest], None]
    of_first: bool = False


def _same_signature(contest: Contest) -> None:
    ours, theirs = map(contest.signature_of, (contest.challenger, str(contest.champion)))
    if ours != theirs:
        raise Refusal(
            f"Version {contest.challenger} answers {_written(ours)}, the champion, version {contest.champion}, answers "
            f"{_written(theirs)}: whoever uses the champion could not use it. {_BY_HAND}"
        )


def _written(signature: ModelSignature) -> str:
    takes = "" if signature.inputs is None else f" to {signature.inputs.to_dict()}"
    return ", ".join(f"{column.name} ({column.type})" for column in signature.outputs) + takes


def _not_worse(contest: Contest) -> None:
    if contest.comparison.p_value <= LEVEL and contest.comparison.difference < 0:
        raise Refusal(
            f"The champion, version {contest.champion}, has significantly more of the test images right than version "
            f"{contest.challenger}. Sweep on, with more trials or other settings.",
            "worse",
        )


def _answers(contest: Contest) -> None:
    uri = f"models:/{contest.model}/{contest.challenger}"
    wanted = [column.name for column in contest.signature_of(contest.challenger).outputs]
    # The stores come from the environment, so that no password stands on a command line.
    stores = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"), contest.tracking.uri)
    command = [sys.executable, "-P", "-c", _PROBE, uri]
    run = partial(subprocess.run, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = run(command, env={**os.environ, **stores}, cwd=folder)
        columns, rows, probability = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise Refusal(f"{uri} must load and answer an image within {PROBE_SECONDS} s. {_ANEW}") from None
    except (IndexError, ValueError, TypeError):
        said = one_line(Exception((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]))
        raise Refusal(f"{uri} must load and answer an image, got: {said}. {_ANEW}") from None
    if (columns, rows) != (wanted, 1) or not 0.0 <= probability <= 1.0:
        raise Refusal(
            f"{uri} must answer one image with one row of {', '.join(wanted)} and a probability in 0..1, got {rows} of "
            f"{', '.join(map(str, columns))} and {probability}. {_ANEW}"
        )


GATES: list[Gate] = [
    Gate("signature", "Its signature equals the champion's.", _same_signature),
    Gate("not worse", "It is not shown to be worse than the champion on the same test images.", _not_worse),
    Gate("answer", "It loads, and answers a small image as its signature says.", _answers, of_first=True),
]


def promote(tracking: Tracking, family: str, *, dry_run: bool = False) -> Promotion:
    """Move the alias ``champion`` of a family's model to its challenger, if all ``GATES`` let it pass.

    Judged by the answers that each sweep stored when it read the test split; no test image is read again. Every move
    and every refusal is recorded in a tag of the registered model. Sets MLflow's global URIs, and runs the challenger's
    own code in another process.

    Args:
        tracking: from ``check_tracking``.
        family: whose challenger.
        dry_run: judge, but neither move nor record.

    Raises:
        InputError: the family has no registered model here.
        TrackingError: the store does not answer.
    """
    name = model_name(family)
    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    with explained(tracking), patience():
        aliases = _read_aliases(tracking, name)
        if aliases is None:
            raise InputError(
                f"FAMILY must have a registered model, got {family!r}, and {tracking.shown_uri} has no {name}. "
                f"Run `carsweep run {family}` first, or name its store with --out or --tracking-uri."
            )
        asked = Promotion(family, name, *aliases, dry_run)
        promotion = _judge(tracking, asked)
        if promotion.accepted and not dry_run and len(set(aliases)) > 1:
            promotion = replace(promotion, moved=True)
            if _read_aliases(tracking, name) != aliases:
                why = "Another challenger or champion was set meanwhile. Run the same command again."
                promotion = replace(asked, reason=why)
        if not dry_run and (promotion.moved or not promotion.accepted):
            _carry_out(tracking.client(), promotion)
    return promotion


def _read_aliases(tracking: Tracking, name: str) -> tuple[str | None, str | None] | None:
    """Return the versions that are challenger and champion; None where there is no such model."""
    client = tracking.client()
    # Searching finds nothing where getting raises, whatever the store.
    if not client.search_registered_models(f"name = '{name}'"):
        return None
    held = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
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
    if contest.comparison.p_value <= LEVEL:
        why = f"Version {challenger} has significantly more of the test images right than version {champion}."
        return passed(verdict="better", reason=why, comparison=contest.comparison)
    why = f"No difference shown between version {challenger} and the champion, version {champion}."
    return passed(verdict=NO_DIFFERENCE, reason=why, comparison=contest.comparison)


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
