"""``carsweep resume``: the rest of a sweep, or more of it, perhaps with other settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sweeps.cli.execute import run_and_show
from sweeps.cli.exits import DONE
from sweeps.cli.options import SettingsCommand, options
from sweeps.cli.streams import Streams

_EPILOG = """\b
Examples:
  carsweep resume cars                                after Ctrl-C, or a crash
  carsweep resume cars --trials +20 --hours +2        more of the same
  carsweep resume cars --set space.dropout.high=0.8   a wider search
  carsweep resume cars --set early_stopping.enabled=false --concurrency 1"""


@click.command("resume", cls=SettingsCommand, epilog=_EPILOG)
@click.argument("name")
@click.option("--trials", metavar="N|+N", help="How many trials in all, or how many more.")
@click.option("--hours", metavar="H|+H", help="Start no trial after so many hours from now.")
@click.option("--set", "sets", metavar="KEY=VALUE …", multiple=True, help="Change a setting; space.X is the search's.")
@options("concurrency", "cpus-per-trial", "gpus-per-trial", "out", "known-tracking-uri", "address", "dry-run", "json")
def resume(
    name: str,
    trials: str | None,
    hours: str | None,
    sets: tuple[str, ...],
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    dry_run: bool,
    as_json: bool,
    **resources: Any,
) -> int:
    """Go on with the sweep or job NAME, wherever it was stopped.

    Unfinished trials go on from their last epoch, and so do those that failed because the disk was full or their
    process or machine was lost; nothing that ended otherwise is run twice. A finished sweep can be extended, and its
    search changed: the trials there are stay on the leaderboard, and those that lie in the changed space still teach
    the search. The images, the seed and the family stay what they were.
    """
    from sweeps.run.remembered import extended, recall

    known = replace(recall(out, name, tracking_uri), address=address)
    command = extended(known, trials=trials, hours=hours, sets=sets, resources=resources)
    changes = command.changes or ()
    with Streams(as_json) as streams:
        for change in changes:
            streams.tell(f"changed: {change}")
        if not dry_run:
            return run_and_show(command, streams)
        if as_json:
            streams.write_json({"name": name, "changes": list(changes)})
        elif not changes:
            click.echo(f"{name} would go on as it is.")
    return DONE
