"""A sweep that somebody runs is stopped from outside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from sweeps.cli.exits import DONE, FAILED, echo
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import resume_command

# How often it is looked whether a sweep has stopped.
_LOOK_SECONDS = 0.2


@click.command("stop")
@click.argument("name", type=SWEEP)
@click.option("--now", is_flag=True, help="Do not wait for the epochs that run.")
@click.option("--wait", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait for it.")
@options("out")
def stop(name: str, now: bool, wait: float, out: Path) -> int:
    """Stop the sweep or job NAME, which somebody runs in another terminal or on another machine.

    Each running trial ends after its epoch, or without it after 20 seconds; everything is kept. Exit code 0 once
    nothing runs any more, 1 when it still runs after --wait seconds.
    """
    from sweeps.run.status import sweeps_in

    sweeps = [out / sweep for sweep in sweeps_in(out, name)]
    ended = end_all(name, sweeps, now=now, wait=wait)
    if ended is None:
        echo(f"{name} is not running.")
    elif ended:
        echo(f"Stopped. To go on:\n  {resume_command(name, out)}")
    return FAILED if ended is False else DONE


def end_all(name: str, sweeps: Sequence[Path], *, now: bool, wait: float) -> bool | None:
    """Ask whoever runs the sweeps in these folders to stop, and wait for it.

    Args:
        name: what they are called together.
        sweeps: their folders.
        now: do not wait for the epochs that run.
        wait: at most so many seconds.

    Returns:
        Whether nothing runs any more; None where nothing did.
    """
    from sweeps.lock import ask_to_stop, holder_of

    running = {folder: holder for folder in sweeps if (holder := holder_of(folder)) is not None}
    if not running:
        return None
    for folder, holder in running.items():
        ask_to_stop(folder, now=now)
        echo(f"Asked {holder} to stop {folder.name}; waiting for it.", err=True)
    end = time.monotonic() + wait
    while any(map(holder_of, running)):
        if time.monotonic() > end:
            echo(
                f"{name} still runs after {wait:g} s: it reads images or closes the sweep, and stops as soon as it is "
                f"through. {' and '.join(map(str, running.values()))} can be killed without loss.",
                err=True,
            )
            return False
        time.sleep(_LOOK_SECONDS)
    return True
