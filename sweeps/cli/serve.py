"""Registered models on one page and behind one HTTP API."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.catalog import FAMILIES
from carcls.errors import InputError
from carcls.serving.hosts import is_loopback
from sweeps.cli.exits import DONE
from sweeps.cli.options import options
from sweeps.cli.output import Streams, answering
from sweeps.cli.store import open_store

if TYPE_CHECKING:
    from carcls.serving.served import Served
    from sweeps.tracking.found import FoundModel

# So long requests that are being answered may take when the server ends.
_LAST_SECONDS = 5
_SCORES = {"val_accuracy": "validation accuracy", "test_accuracy": "test accuracy"}


@click.command("serve")
@click.argument("families", type=click.Choice(list(FAMILIES)), metavar="[FAMILY…]", nargs=-1)
@click.option("--model", "named", metavar="NAME", multiple=True, help="NAME@alias, NAME/VERSION or an export's folder.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need a token.")
@click.option("--token", envvar="CARSWEEP_TOKEN", help="What requests must bring. Better: the variable CARSWEEP_TOKEN.")
@options("out", "tracking-uri")
@answering
def serve(
    streams: Streams,
    families: tuple[str, ...],
    named: tuple[str, ...],
    port: int,
    host: str,
    token: str | None,
    out: Path,
    tracking_uri: str | None,
) -> int:
    """Serve models on a page, to which a photograph is dropped, and by HTTP.

    Of each FAMILY the champion, and the challenger beside it; without FAMILY those of all families. --model names
    others. Ends with Ctrl-C or SIGTERM. docs/serving.md has the endpoints.
    """
    _require_token(host, token)
    listening = _listen(host, port)
    with listening:
        found = _found(streams, families, named, out, tracking_uri)
        streams.notify(f"Loading {', '.join(map(str, found))} …")
        _run(streams, _served(found), listening, host, token or "")
    return DONE


def _require_token(host: str, token: str | None) -> None:
    if token is not None and not (token.isascii() and token.isprintable() and len(token.strip()) >= 8):
        raise InputError("--token must have at least 8 letters, digits and signs. Take a longer one.")
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host} can be reached by others, so a token is needed. Set CARSWEEP_TOKEN, for example to what "
            "`openssl rand -hex 16` prints, or leave --host out."
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before anything is loaded."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=kind, backlog=128)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0].lower()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise InputError(f"--port must be free on {host}, got {port}: {why}. Name another, or 0.") from error
        raise InputError(f"--host must be an address of this machine, got {host!r}: {why}. Correct it.") from error


def _found(
    streams: Streams, families: Sequence[str], named: Sequence[str], out: Path, uri: str | None
) -> list[FoundModel]:
    """Return the models that are served, each once."""
    from sweeps.tracking.found import export_at

    exported = {name: export_at(name) for name in named}
    if not families and exported and all(exported.values()):
        return [one for one in exported.values() if one]
    store = open_store(streams, out, uri)
    from sweeps.tracking.models import find_model, models_in_use

    wanted = [*models_in_use(store, families or ([] if named else list(FAMILIES))), *named]
    if not wanted:
        whose = " or ".join(families or FAMILIES)
        raise InputError(
            f"FAMILY must have a registered model, and {store.shown_uri} has none of {whose}. Run `carsweep run "
            f"{(families or ('all',))[0]}` first, or name the store with --out or --tracking-uri."
        )
    found = [exported.get(name) or find_model(store, name, out=out) for name in wanted]
    return list({one.folder: one for one in found}.values())


def _served(found: Sequence[FoundModel]) -> list[Served]:
    """Load the models; folders of one name, as sweeps have, are told apart by a number."""
    from carcls.serving.served import Served

    models: dict[str, Served] = {}
    for one in found:
        scores = {about: one.tags[name] for name, about in _SCORES.items() if name in one.tags}
        about = {name: f"{float(score):.1%}" for name, score in scores.items()}
        own = f"{one.name}/{one.version}" if one.version else one.name
        key = next(key for place in count(1) if (key := own if place == 1 else f"{own}-{place}") not in models)
        models[key] = Served(key, str(one) if one.version else key, one.load(), about)
    return list(models.values())


def _run(streams: Streams, models: Sequence[Served], listening: socket.socket, host: str, token: str) -> None:
    """Serve until a signal comes."""
    import uvicorn

    from carcls.serving.app import make_app

    app = make_app(models, token=token)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_LAST_SECONDS
    )
    server = uvicorn.Server(config)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    told = {"address": address, "models": [model.key for model in models]}
    streams.answer(told, f"Serving on {address} until Ctrl-C.")
    # uvicorn ends well on both signals, then sends them again to whoever handled them before.
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
