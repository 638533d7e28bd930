"""``carsweep resume``: the rest of a sweep, or more of it, perhaps with other settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.family import SettingsCommand
from sweeps.cli.streams import Streams

if TYPE_CHECKING:
    from sweeps.remembered import Command

_EPILOG = """\b
Examples:
  carsweep resume cars                                        after Ctrl-C, a crash, a power cut
  carsweep resume cars --trials +20 --hours +2                more of the same
  carsweep resume cars --set space.dropout.high=0.8           a wider search; what was run stays
  carsweep resume cars --set early_stopping.enabled=false --concurrency 1"""


@click.command("resume", cls=SettingsCommand, epilog=_EPILOG)
@click.argument("name")
@click.option("--trials", metavar="N|+N", help="How many trials in all, or how many more.")
@click.option("--hours", metavar="H|+H", help="Start no trial after so many hours from now.")
@click.option("--set", "sets", metavar="KEY=VALUE …", multiple=True, help="Change a setting; space.X is the search's.")
@click.option("--concurrency", type=int, help="Trials at the same time.")
@click.option("--cpus-per-trial", type=float, help="CPU cores for each trial.")
@click.option("--gpus-per-trial", type=float, help="GPUs for each trial: 0, 1 or 1/n (0.5, 0.25).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store or server. Default: the one it was run with.")
@click.option("--address", metavar="ADDRESS", help="Run on the Ray cluster at this address. Default: this machine.")
@click.option("--dry-run", is_flag=True, help="Print what would change, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to stderr.")
def resume(
    name: str,
    trials: str | None,
    hours: str | None,
    sets: tuple[str, ...],
    concurrency: int | None,
    cpus_per_trial: float | None,
    gpus_per_trial: float | None,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Go on with the sweep or job NAME, wherever it was stopped.

    Unfinished trials go on from their last epoch, and so do those that failed because the disk was full or their
    process or machine was lost; nothing that ended otherwise is run twice. A finished sweep can be extended, and its
    search changed: the trials there are stay on the leaderboard, and those that lie in the changed space still teach
    the search. The images, the seed and the family stay what they were.
    """
    from sweeps.remembered import extended, recall

    out = out.expanduser()
    resources = {"concurrency": concurrency, "cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}
    command, changes = extended(
        recall(out, name, tracking_uri), trials=trials, hours=hours, sets=sets, resources=resources
    )
    with Streams(as_json) as streams:
        for change in changes:
            streams.progress.print(f"changed: {change}", markup=False, soft_wrap=True)
        if dry_run:
            return _print_changes(name, changes, streams)
        return _run(command, changes, out, address, streams)


def _print_changes(name: str, changes: list[str], streams: Streams) -> int:
    if streams.as_json:
        streams.write_json({"name": name, "changes": changes})
    elif not changes:
        click.echo(f"{name} would go on as it is.")
    return 0


def _run(command: Command, changes: list[str], out: Path, address: str | None, streams: Streams) -> int:
    match command.kind:
        case "all":
            from sweeps.cli.run_all import run_job

            return run_job(command.specs, command.name, out, command.tracking_uri, address, streams, changes)
        case "reproduce":
            from sweeps.cli.reproduce import run_experiments

            return run_experiments(command.specs, command.name, out, command.tracking_uri, address, streams, changes)
    from sweeps.cli.family import run_one

    return run_one(command.specs[0], out, command.tracking_uri, address, streams, changes)
