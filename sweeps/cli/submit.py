"""``carsweep submit``."""

from __future__ import annotations

from pathlib import Path

import click

from sweeps.cli.exits import DONE, FAILED, INTERRUPTED

_EPILOG = """\b
Examples:
  carsweep submit transfer --address http://127.0.0.1:8265 --data /shared/cars --out /shared/runs
  carsweep submit all --address http://127.0.0.1:8265 --no-wait --out /shared/runs --trials 60

All other options are those of carsweep run; paths are paths on the cluster. carsweep must be installed there."""


@click.command("submit", epilog=_EPILOG, context_settings={"ignore_unknown_options": True})
@click.argument("family", type=click.Choice(["transfer", "retrieval", "scratch", "all"]))
@click.option("--address", required=True, metavar="URL", help="Dashboard of the cluster: http://HOST:8265.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow the job until it ends.")
@click.option("--working-dir", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder to upload.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF run]…")
def submit(family: str, address: str, wait: bool, working_dir: Path | None, options: tuple[str, ...]) -> int:
    """Run a sweep as a job on a Ray cluster.

    The cluster's head runs carsweep run FAMILY with these options on all of the cluster. --out must be a folder that
    every machine of the cluster sees.
    """
    _check_options(family, options)
    from sweeps.submit import follow_job, submit_job, why_it_failed

    submission = submit_job(address, [family, *options], working_dir=working_dir)
    click.echo(f"Job {submission.job} runs: {submission.command}", err=True)
    look = f"ray job logs --address {address} --follow {submission.job}"
    if not wait:
        click.echo(f"To follow it: {look}", err=True)
        click.echo(submission.job)
        return DONE
    try:
        succeeded = follow_job(submission, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(
            f"No longer following; the job goes on. To follow it again:\n  {look}\n"
            f"To stop it:\n  ray job stop --address {address} {submission.job}",
            err=True,
        )
        return INTERRUPTED
    if not succeeded:
        click.echo(f"carsweep: job {submission.job} failed: {why_it_failed(submission)}", err=True)
    return DONE if succeeded else FAILED


def _check_options(family: str, options: tuple[str, ...]) -> None:
    """Parse the options as ``carsweep run FAMILY`` would, so that a slip is found here and not on the cluster.

    Raises:
        click.UsageError: an option is unknown, or its value is of another kind.
    """
    from sweeps.cli.run import run

    command = run.get_command(click.Context(run), family)
    assert command is not None
    command.make_context(f"carsweep run {family}", list(options), resilient_parsing=False)
