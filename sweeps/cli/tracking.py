"""What MLflow has of the sweeps, brought in line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import Streams, answering, resume_command
from sweeps.text import plural

if TYPE_CHECKING:
    from sweeps.run.tracked import Repaired


@click.group("tracking", no_args_is_help=True)
def tracking() -> None:
    """Keep MLflow in line with the sweeps."""


@tracking.command("repair", short_help="Bring MLflow in line with a sweep.")
@click.argument("name", type=SWEEP)
@options("out", "known-tracking-uri")
@answering
def repair(streams: Streams, name: str, out: Path, tracking_uri: str | None) -> int:
    """Write once more to MLflow what the sweep or job NAME has, after a server was away or a database was lost.

    Each trial has one run then, with every epoch once, under one parent; what is there already stays, and what should
    not be there is ended and marked. Nothing is trained. Exit code 1 where MLflow did not take all of it.
    """
    from sweeps.run.remembered import recall
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import repair as repair_sweep

    out = out.absolute()
    uri = recall(out, name, tracking_uri).tracking_uri
    repaired = [repair_sweep(out / sweep, uri, streams.notify) for sweep in sweeps_in(out, name)]
    streams.answer({"sweeps": list(map(asdict, repaired))}, *(_repaired_line(one, out) for one in repaired))
    return DONE if all(one.written for one in repaired) else FAILED


def _repaired_line(one: Repaired, out: Path) -> str:
    has = f"{plural(one.trials, 'trial')} with {plural(one.epochs, 'epoch')}"
    if not one.written:
        return f"{one.sweep}: MLflow did not take all of {has}; give the command again when it answers."
    if one.lost:
        again = resume_command(one.sweep, out)
        return f"{one.sweep}: MLflow has {has}. The registry does not have the winner; it is registered by:\n  {again}"
    return f"{one.sweep}: MLflow has {has}" + (f", and the winner as {one.version}." if one.version else ".")
