"""``carsweep runs``: the sweeps of a folder, the newest first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.errors import InputError
from sweeps.cli.listing import print_columns
from sweeps.cli.running import write_share
from sweeps.cli.status import when
from sweeps.cli.streams import Streams

if TYPE_CHECKING:
    from sweeps.status import SweepStatus


@click.command("runs")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def runs(out: Path, as_json: bool) -> None:
    """List the sweeps under --out: how they stand and what came of them, the last written to first."""
    from sweeps.status import sweep_status, sweeps_in

    found: list[SweepStatus] = []
    for name in sweeps_in(out):
        try:
            found.append(sweep_status(out, name))
        except InputError as error:  # one damaged sweep must not hide the others
            click.echo(f"{name}: {error}", err=True)
    if as_json:
        with Streams(as_json) as streams:
            streams.write_json({"sweeps": [sweep.as_dict() for sweep in found]})
    elif found:
        header = ("sweep", "family", "state", "trials", "best val", "test", "registered as", "last written")
        print_columns([header, *(_cells(sweep) for sweep in found)])
    else:
        click.echo(f"No sweeps in {out}.", err=True)


def _cells(sweep: SweepStatus) -> tuple[str, ...]:
    return (
        sweep.name,
        sweep.family,
        sweep.state,
        f"{sweep.ended}/{sweep.trials}",
        write_share(sweep.best_accuracy),
        write_share(sweep.test_accuracy),
        sweep.registered or "–",
        when(sweep.changed),
    )
