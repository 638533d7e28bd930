"""The end of a sweep before its time: what it has found so far is tested and registered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from carcls.errors import InputError
from sweeps.cli.exits import FAILED
from sweeps.cli.folder import end_all
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import Streams, answering
from sweeps.cli.run import carry_out

# So long whoever runs it has to close it.
_WAIT_SECONDS = 120.0


@click.command("finish")
@click.argument("name", type=SWEEP)
@options("out", "known-tracking-uri")
@answering
def finish(streams: Streams, name: str, out: Path, tracking_uri: str | None) -> int:
    """End the sweep NAME now: test and register the best trial so far.

    A sweep that runs is stopped after the epochs that run, for which it has 20 seconds. No other trial is run; those
    that did not end are kept, and carsweep resume goes on with them. Exit codes as of carsweep run.
    """
    from sweeps.results.leaderboard import Leaderboard
    from sweeps.run.remembered import recall
    from sweeps.study.records import read_history

    command = recall(out, name, tracking_uri)
    if command.is_job:
        sweeps = ", ".join(str(spec.name) for spec in command.specs)
        raise InputError(f"NAME must be of one sweep, got the job {name!r}. Finish each of its sweeps: {sweeps}.")
    folder, (spec,) = out / name, command.specs
    if Leaderboard(tuple(read_history(folder).records), goals=spec.goals).best is None:
        raise InputError(
            f"NAME must have a trial that is complete and keeps the constraints, got {name!r} without one: there is "
            f"nothing to register. Let it run, or stop it: carsweep stop {name}."
        )
    if end_all(name, [folder], now=False, wait=_WAIT_SECONDS) is False:
        return FAILED
    return carry_out(replace(command, runs_trials=False), streams)
