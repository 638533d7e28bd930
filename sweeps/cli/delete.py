"""``carsweep delete``: a sweep goes, with what MLflow has of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import options
from sweeps.cli.streams import Streams

if TYPE_CHECKING:
    from sweeps.run.tracked import Remains

_EPILOG = """\b
Examples:
  carsweep delete cars --dry-run
  carsweep delete cars
  carsweep delete cars --yes

What trials share stays for other sweeps; carsweep gc removes what none needs any more."""


@click.command("delete", epilog=_EPILOG)
@click.argument("name")
@options("out", "known-tracking-uri", "json")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
def delete(name: str, out: Path, tracking_uri: str | None, yes: bool, dry_run: bool, as_json: bool) -> int:
    """Remove the sweep or job NAME: its folder, its runs in MLflow, and its models but those that an alias holds.

    Asks first. A champion or challenger stays, with the run that it came from. How often test images were looked at
    stays known.
    """
    from carcls.errors import InputError
    from sweeps.lock import holder_of
    from sweeps.run.remembered import recall
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import find_remains, remove

    out = out.absolute()
    uri = recall(out, name, tracking_uri).tracking_uri
    folders = [out / sweep for sweep in sweeps_in(out, name)]
    for folder in folders:
        holder = holder_of(folder)
        if holder is not None:
            raise InputError(
                f"NAME must be of a sweep that nothing runs, got {name!r}: {holder} runs it. Stop it first "
                f"(carsweep stop {name})."
            )
    with Streams(as_json) as streams:
        found = [find_remains(folder, uri) for folder in folders]
        if not as_json or not dry_run:
            for remains in found:
                streams.tell("\n".join(_lines(remains)))
        if not dry_run:
            if not yes and not _agrees(name):
                return FAILED
            for remains in found:
                remove(remains)
            if name not in {folder.name for folder in folders}:
                shutil.rmtree(out / name)
        if as_json:
            streams.write_json({"name": name, "removed": not dry_run, "sweeps": [_plain(one) for one in found]})
        else:
            click.echo(f"{name} would be removed." if dry_run else f"{name} is removed.")
    return DONE


def _agrees(name: str) -> bool:
    from carcls.errors import InputError

    if not sys.stdin.isatty():
        raise InputError(f"--yes must be given where nobody can be asked whether {name!r} may go. Nothing was removed.")
    return click.confirm(f"Remove {name}?", default=False, err=True)


def _lines(remains: Remains) -> list[str]:
    from sweeps.text import plural, size_text

    counts = [
        plural(len(remains.runs), "run"),
        plural(len(remains.versions), "model version"),
        plural(len(remains.models), "uploaded model"),
    ]
    where = f" in {remains.tracking.shown_uri}" if remains.tracking else ""
    lines = [f"{remains.folder}: {size_text(remains.size)}; {', '.join(counts)}{where}."]
    for version, aliases in remains.kept:
        lines.append(f"stays: {version.name} version {version.version}, which is {' and '.join(aliases)}, and its run.")
    return lines


def _plain(remains: Remains) -> dict[str, Any]:
    return {
        "folder": str(remains.folder),
        "bytes": remains.size,
        "tracking_uri": remains.tracking.shown_uri if remains.tracking else None,
        "runs": [run.info.run_id for run in remains.runs],
        "models": [model.model_id for model in remains.models],
        "versions": [{"name": version.name, "version": str(version.version)} for version in remains.versions],
        "kept": [
            {"name": version.name, "version": str(version.version), "aliases": list(aliases)}
            for version, aliases in remains.kept
        ],
    }
