"""``carsweep runs``: the sweeps of a folder, the newest first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.errors import InputError
from sweeps.cli.options import options
from sweeps.cli.streams import Streams
from sweeps.text import table_of

if TYPE_CHECKING:
    from sweeps.run.status import SweepStatus

# The width of a terminal from which it shows all columns.
_WIDE = 110


@click.command("runs")
@options("out", "json")
def runs(out: Path, as_json: bool) -> None:
    """List the sweeps under --out: their status and what came of them, the last written to first."""
    from sweeps.run.status import COLUMNS, sweep_status, sweeps_in

    found: list[SweepStatus] = []
    for name in sweeps_in(out):
        try:
            found.append(sweep_status(out, name))
        except InputError as error:  # one damaged sweep must not hide the others
            click.echo(f"{name}: {error}", err=True)
    with Streams(as_json) as streams:
        if as_json:
            streams.write_json({"sweeps": [sweep.as_dict() for sweep in found]})
        elif found:
            wide = streams.result.width >= _WIDE
            columns = [column for column in COLUMNS if column.title and (wide or column.room != "wide")]
            streams.result.print(table_of(columns, found, fold=("name",)))
        else:
            click.echo(f"No sweeps in {out}.", err=True)
