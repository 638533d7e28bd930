"""``carsweep submit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from carcls.errors import mask_secrets
from sweeps.cli.exits import DONE, FAILED, INTERRUPTED

_EPILOG = """\b
Examples:
  carsweep submit transfer --address http://head:8265 --out /shared/runs
  carsweep submit all --address http://head:8265 --no-wait --out /shared/runs

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
    from sweeps.engine.jobs import follow_job, job_command, submit_job
    from sweeps.waits import Waiting

    words = [family, *options, *_own_name(family, _parsed(family, options))]
    with Waiting(_tell, "waiting for the cluster to take the job …"):
        job = submit_job(address, words, working_dir=working_dir)
    shown = mask_secrets(address)
    _tell(f"Job {job} runs: {mask_secrets(job_command(words))}\nIts page: {shown}/#/jobs/{job}")
    look = f"ray job logs --address {shown} --follow {job}"
    if not wait:
        _tell(f"To follow it: {look}")
        click.echo(job)
        return DONE
    try:
        code, reason = follow_job(address, job, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        _tell(f"No longer following; the job goes on. To follow it again:\n  {look}")
        _tell(f"To stop it:\n  ray job stop --address {shown} {job}")
        return INTERRUPTED
    except ConnectionError as error:
        _tell(f"carsweep: lost sight of job {job}: {mask_secrets(str(error))} To follow it again: {look}")
        return FAILED
    if code:
        _tell(f"carsweep: job {job} failed: {mask_secrets(reason)}")
    return code


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _parsed(family: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Parse the options as ``carsweep run FAMILY`` would, so that a slip is found here and not on the cluster.

    Raises:
        click.UsageError: an option is unknown, or its value is of another kind.
    """
    from sweeps.cli.run import run

    command = run.commands[family]
    given = command.make_context(f"carsweep run {family}", list(options)).params
    if given["as_json"]:
        raise click.UsageError(
            "--json is of carsweep run: a job's log has all it prints; OUT/NAME/result.json is there."
        )
    return given


def _own_name(family: str, given: dict[str, Any]) -> list[str]:
    """Return the ``--name`` that the job gets where it has none: what goes on with the sweep, should the job die.

    Raises:
        SpecError: the settings make no sweep; those in a file are left for the cluster, which has it.
    """
    from sweeps.cli.run import command_of

    if given["spec_file"] is not None and family != "all":
        return []
    command = command_of(family, given)
    return [] if given["name"] else ["--name", command.name]
