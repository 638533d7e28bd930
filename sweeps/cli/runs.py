"""``carsweep runs``: the sweeps of a folder, the newest first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.errors import InputError
from sweeps.cli.streams import Streams
from sweeps.text import table_of

if TYPE_CHECKING:
    from sweeps.status import SweepStatus

_FOLD = ("name", "registered", "changed")


@click.command("runs")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def runs(out: Path, as_json: bool) -> None:
    """List the sweeps under --out: how they stand and what came of them, the last written to first."""
    from sweeps.status import COLUMNS, sweep_status, sweeps_in

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
            streams.result.print(table_of([column for column in COLUMNS if column.title], found, fold=_FOLD))
        else:
            click.echo(f"No sweeps in {out}.", err=True)
