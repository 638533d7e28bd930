"""Tell an address on the web how a command ended: one POST of one JSON object (docs/json.md), which never waits long.

Only the standard library sends it. The address is a secret, as Slack's are: it is neither written down nor shown.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit

from carcls.errors import InputError, mask_secrets
from sweeps.interrupts import last_words, uninterrupted
from sweeps.report.page import REPORT
from sweeps.results.result import SweepResult
from sweeps.run.comparison import columns_of, sweep_json
from sweeps.text import duration

if TYPE_CHECKING:
    from sweeps.run.command import Command

Event = Literal["finished", "stopped", "failed"]
# Holds the address where none is given: it would be seen in a command line.
VARIABLE = "CARSWEEP_NOTIFY"
# So long a command waits for an answer, all together.
SECONDS = 3.0
# Takes nothing but a text.
_SLACK = "hooks.slack.com"
_TOLD = columns_of("sweep", "val_accuracy", "test_accuracy", "registered")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a POST would become a GET, and lead anywhere."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as the error that it is."""


@dataclass(slots=True)
class Ending:
    """How a command ends, as far as it is known.

    Attributes:
        results: of the sweeps that are done.
        is_whole: whether all that was asked for is there, a registered model of each sweep.
    """

    results: list[SweepResult] = field(default_factory=list)
    is_whole: bool = False


def check_address(given: str | None) -> str | None:
    """Return the address to notify, or that of the environment; None where nobody is.

    Raises:
        InputError: it is none that JSON can be posted to.
    """
    address = given or os.environ.get(VARIABLE)
    if not address:
        return None
    parts, fits = SplitResult("", "", "", "", ""), False
    with suppress(ValueError):  # a port that is no number
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    if not fits or any(sign.isspace() or not sign.isprintable() or ord(sign) > 127 for sign in address):
        raise InputError(
            f"--notify must be an address such as https://host/path, got {_shown(parts)!r}. Correct it, or leave it "
            f"out{'' if given else f' (it is in {VARIABLE})'}."
        )
    return address


def _shown(parts: SplitResult) -> str:
    """Return what of an address is no secret: neither password nor path."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…" if parts.scheme else "…"


@contextmanager
def notifying(command: Command, tell: Callable[[str], None]) -> Iterator[Ending]:
    """Notify the address of a command of how the body ends: finished, stopped by a person, or failed.

    Args:
        command: that is run; its address is as ``check_address`` returns it.
        tell: gets a sentence where nobody could be notified.
    """
    address, began, ending = command.notify, time.monotonic(), Ending()
    if address is None:
        yield ending
        return

    def send(event: Event, reason: str = "") -> None:
        with uninterrupted():
            _send(address, _payload(command, event, ending, reason, time.monotonic() - began), tell)

    try:
        with last_words(lambda: send("failed", "Ray's servers are gone, or the command hung after a signal.")):
            yield ending
    except KeyboardInterrupt:
        send("stopped")
        raise
    except Exception as error:
        send("failed", " ".join(str(error).split()) or type(error).__name__)
        raise
    if any(result.interrupted for result in ending.results):
        send("stopped")
    elif ending.is_whole:
        send("finished")
    else:
        send("failed", "An experiment has no result." if command.kind == "reproduce" else "No model was registered.")


def _payload(command: Command, event: Event, ending: Ending, reason: str, seconds: float) -> dict[str, Any]:
    """Return the object; its text has a line for each sweep."""
    resume = shlex.join(["carsweep", "resume", command.name, "--out", str(command.root)])
    report, reason = command.root / command.name / REPORT, mask_secrets(reason)
    lines = [f"carsweep: {command.name} {event} after {duration(seconds)}. {reason}".rstrip()]
    lines += [", ".join(f"{one.title} {one.text(result)}" for one in _TOLD) for result in ending.results]
    return {
        "text": "\n".join([*lines, *([] if event == "finished" else [f"To go on: {resume}"])]),
        "event": event,
        "name": command.name,
        "kind": command.kind,
        "reason": reason,
        "seconds": round(seconds, 3),
        "folder": str(report.parent),
        "report": str(report) if report.is_file() else None,
        "resume": None if event == "finished" else resume,
        "sweeps": [sweep_json(result) for result in ending.results],
    }


def _send(address: str, payload: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Post it from a thread of its own, which may hang where no timeout reaches, such as in looking up a name."""
    said = ["no answer came in time"]
    sender = threading.Thread(target=_post, args=(address, payload, said), name="carsweep-notify", daemon=True)
    sender.start()
    sender.join(SECONDS)
    if said[-1]:
        tell(f"{_shown(urlsplit(address))} was not notified: {said[-1]}.")


def _post(address: str, payload: Mapping[str, Any], said: list[str]) -> None:
    """Post the object; say what came of it, nothing where all is well."""
    parts = urlsplit(address)
    headers = {"Content-Type": "application/json", "User-Agent": "carsweep"}
    if "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
        parts = parts._replace(netloc=host)
    body: Mapping[str, Any] = payload
    if parts.hostname == _SLACK:
        body = {"text": payload["text"].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    request = urllib.request.Request(parts.geturl(), json.dumps(body).encode(), headers)  # noqa: S310 - http(s) only
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS):
            said.append("")
    except HTTPError as error:
        said.append(f"it answered {error.code}")
    except Exception as error:
        told = " ".join(str(getattr(error, "reason", error)).split())  # a server's own words may be among it
        said.append("".join(sign for sign in told if sign.isprintable()) or type(error).__name__)
