"""Who moved the alias ``champion``, when and why: tags of the registered model, added and never changed.

MLflow keeps no history of aliases, and cannot set one only where it still holds what was seen; so each move is made
under a lock, and recorded before: a record without its move can be seen, a move without its record could not.
"""

from __future__ import annotations

import getpass
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from carcls.errors import InputError, TrackingError
from sweeps.tracking.names import CHALLENGER, CHAMPION
from sweeps.tracking.store import Tracking

PROMOTION, ROLLBACK, REFUSAL = "promotion", "rollback", "refusal"
_MOVING = "carsweep.moving"
# A claim counts when it was written within WRITE_SECONDS of the look that found none, and is still there as long after:
# so whoever looked before it has written by then, and the last one has it. A claim that does not change goes stale.
WRITE_SECONDS, STALE_SECONDS, WAIT_SECONDS = 2.0, 60.0, 180.0
# A tag of a registered model has room for 5,000 characters in MLflow's tables, which PostgreSQL and MySQL insist on.
_ROOM, LONGEST_REASON = 5000, 1000
_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Move:
    """A record of a registered model.

    Attributes:
        kind: ``promotion``, ``rollback`` or ``refusal``, which moved nothing.
        at: ISO time, UTC.
        by: login name.
        before, after: versions, of which the first may be None; of a refusal the champion and who did not become it.
        verdict, gate, why: what was said of it.
        reason: what the user gave.
        forced: gates that refused, where the move was forced.
        numbers: the paired comparison, or None.
        gates: what each gate said, by its name.
    """

    kind: str
    at: str
    by: str
    before: str | None
    after: str | None
    verdict: str = ""
    gate: str = ""
    why: str = ""
    reason: str = ""
    forced: tuple[str, ...] = ()
    numbers: dict[str, Any] | None = None
    gates: dict[str, str] | None = None


def aliases_of(tracking: Tracking, name: str) -> tuple[str | None, str | None]:
    """Return the versions that are challenger and champion."""
    held = {alias: str(version) for alias, version in tracking.client().get_registered_model(name).aliases.items()}
    return held.get(CHALLENGER), held.get(CHAMPION)


def moves_of(client: MlflowClient, name: str) -> tuple[Move, ...]:
    """Return the records of a registered model, the oldest first."""
    return tuple(_move(kind, json.loads(value)) for _, kind, value in _records(client, name))


def _records(client: MlflowClient, name: str) -> list[tuple[str, str, str]]:
    """Return when each record was made, its kind and its JSON, the oldest first."""
    found = []
    for tag, value in client.get_registered_model(name).tags.items():
        kind, _, when = tag.removeprefix("carsweep.").partition(".")
        if kind in (PROMOTION, ROLLBACK, REFUSAL):
            found.append((when, kind, value))
    return sorted(found)


def _move(kind: str, entry: dict[str, Any]) -> Move:
    told = {key: entry.get(key) or "" for key in ("verdict", "gate", "why", "reason")}
    forced, numbers, gates = tuple(entry.get("forced", ())), entry.get("numbers"), entry.get("gates")
    return Move(
        kind, entry["at"], entry["by"], entry["from"], entry["to"], **told, forced=forced, numbers=numbers, gates=gates
    )


def record(client: MlflowClient, name: str, kind: str, entry: dict[str, Any]) -> None:
    """Record a refusal, or a move, and then make it; ``entry`` can be JSON, with ``from``, ``to`` and ``why``."""
    now, user = datetime.now(UTC), "unknown"
    with suppress(OSError, KeyError, ImportError):  # a container may know no name for its user
        user = getpass.getuser()
    entry = {"at": now.isoformat(timespec="seconds"), "by": user, **entry}
    text = json.dumps(entry, ensure_ascii=False)
    if len(text) > _ROOM and entry.get("gates"):
        text = json.dumps({**entry, "gates": {gate: said.partition(":")[0] for gate, said in entry["gates"].items()}})
    # After all that are there, also where another machine's clock was ahead, so that the last record is the last move.
    for when, *_ in _records(client, name)[-1:]:
        now = max(now, datetime.strptime(when, _STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1))
    client.set_registered_model_tag(name, f"carsweep.{kind}.{now:{_STAMP}}", text)
    if kind != REFUSAL:
        version = entry["to"]
        client.set_registered_model_alias(name, CHAMPION, version)
        client.set_model_version_tag(name, version, "promoted_at", entry["at"])
        client.set_model_version_tag(name, version, "promoted_over", entry["from"] or "none")


def require_short(reason: str) -> None:
    """Check that a record has room for what the user gives as the reason.

    Raises:
        InputError: it is too long.
    """
    if len(reason) > LONGEST_REASON:
        raise InputError(f"--reason must have at most {LONGEST_REASON:,} characters, got {len(reason):,}. Shorten it.")


@contextmanager
def moving(tracking: Tracking, name: str) -> Iterator[None]:
    """Hold the right to move the aliases of a registered model: one process at a time, whatever its machine.

    Beside a database file that is a file lock, which ends with its process. A server has a tag as its lock, by
    Fischer's algorithm (Lamport 1987, ACM Transactions on Computer Systems 5), which takes ``WRITE_SECONDS``.

    Raises:
        TrackingError: another process held it too long.
    """
    if tracking.file is not None:
        with FileLock(f"{tracking.file}.{name}.lock", timeout=WAIT_SECONDS):
            yield
        return
    client, own = tracking.client(), uuid.uuid4().hex
    _claim(client, name, own)
    try:
        yield
    finally:
        if _claimed(client, name) == own:
            client.delete_registered_model_tag(name, _MOVING)


def _claim(client: MlflowClient, name: str, own: str) -> None:
    end, seen, since = time.monotonic() + WAIT_SECONDS, "", time.monotonic()
    while time.monotonic() < end:
        looked = time.monotonic()
        found = _claimed(client, name)
        if found != seen:
            seen, since = found, looked
        if found and looked - since < STALE_SECONDS:
            time.sleep(0.2)
            continue
        try:
            client.set_registered_model_tag(name, _MOVING, own)
        except MlflowException:
            if not _claimed(client, name):  # two made the tag at once, of which the database refuses one
                raise
            continue
        if time.monotonic() - looked <= WRITE_SECONDS:
            time.sleep(WRITE_SECONDS)
            if _claimed(client, name) == own:
                return
        seen = ""
    raise TrackingError(f"{name} must be free to move, but others move its aliases. Run the same command again.")


def _claimed(client: MlflowClient, name: str) -> str:
    return str(client.get_registered_model(name).tags.get(_MOVING, ""))
