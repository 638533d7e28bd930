"""``carsweep stop``: from another terminal what Ctrl-C is in the sweep's own."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sweeps.cli.execute import resume_command
from sweeps.cli.options import options

# How often it looks whether the sweep has stopped.
_LOOK_SECONDS = 0.2


@click.command("stop")
@click.argument("name")
@click.option("--now", is_flag=True, help="Do not wait for the epochs that run.")
@click.option("--wait", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait for it.")
@options("out")
def stop(name: str, now: bool, wait: float, out: Path) -> int:
    """Stop the sweep or job NAME, which somebody runs in another terminal or on another machine.

    Each running trial ends after its epoch, or without it after 20 seconds; everything is kept. Exit code 0 once
    nothing runs any more, 1 when it still runs after --wait seconds.
    """
    from sweeps.lock import ask_to_stop, holder_of
    from sweeps.run.status import sweeps_in

    folders = [out / sweep for sweep in sweeps_in(out, name)]
    running = {folder: holder for folder in folders if (holder := holder_of(folder)) is not None}
    if not running:
        click.echo(f"{name} is not running.")
        return 0
    for folder, holder in running.items():
        ask_to_stop(folder, now=now)
        click.echo(f"Asked {holder} to stop {folder.name}; waiting for it.", err=True)
    end = time.monotonic() + wait
    while any(holder_of(folder) for folder in running):
        if time.monotonic() > end:
            click.echo(
                f"{name} still runs after {wait:g} s: it reads images or closes the sweep, and stops as soon as it is "
                f"through. {' and '.join(map(str, running.values()))} can be killed without loss.",
                err=True,
            )
            return 1
        time.sleep(_LOOK_SECONDS)
    click.echo(f"Stopped. To go on:\n  {resume_command(name, out)}")
    return 0
