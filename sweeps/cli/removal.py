"""Room on disk: stages that no sweep needs any more, and whole sweeps, removed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carcls.errors import InputError
from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import Streams, answering
from sweeps.text import parse_size, plural, size_text

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from sweeps.run.cleaning import Cleared
    from sweeps.run.tracked import Remains

_GC_EPILOG = """\b
Examples:
  carsweep gc --dry-run
  carsweep gc --disk 20GB
  carsweep gc --disk 20GB --keep 2

Nothing that goes is lost for good: a stage that is needed again is made again."""


@click.command("gc", epilog=_GC_EPILOG)
@options("out")
@click.option(
    "--disk", metavar="SIZE", help="Room for all cached stages, such as 20GB: remove more until the rest fits."
)
@click.option("--keep", type=int, help="With --disk: models to keep of each sweep, the best first. Default: 5.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@answering
def gc(streams: Streams, out: Path, disk: str | None, keep: int | None, dry_run: bool) -> int:
    """Remove cached stages that no sweep needs any more.

    These are checkpoints of trials that have ended, stages that no sweep under --out refers to, and what processes that
    died left behind. With --disk, models of trials that are not among a sweep's best and stages not used for longest go
    too, until the rest fits. Sweeps may run meanwhile.
    """
    from sweeps.run.cleaning import KEEP, clear

    try:
        size = None if disk is None else parse_size("--disk", disk)
    except ValueError as error:
        raise InputError(str(error)) from None
    if keep is not None and (size is None or keep < 1):
        raise InputError(f"--keep must be at least 1 and come with --disk, got {keep}. Give --disk, such as 20GB.")
    if not out.is_dir():
        raise InputError(f"--out must be a folder of runs, got {str(out)!r}. Name the one that carsweep run wrote to.")
    cleared = clear(out.absolute(), disk=size, keep=KEEP if keep is None else keep, dry_run=dry_run)
    streams.answer(cleared.as_dict(), *_cleared_lines(cleared))
    return DONE


def _cleared_lines(cleared: Cleared) -> list[str]:
    from sweeps.run.cleaning import removed_text

    verb = "Would remove" if cleared.dry_run else "Removed"
    lines = [f"{verb} {text}" for text in removed_text(cleared)] or ["Nothing to remove."]
    if len(lines) > 1:
        lines.append(f"{verb} {size_text(cleared.size)} in all.")
    if cleared.kept:
        lines.append(f"Kept: {plural(len(cleared.kept), 'stage')}, {size_text(sum(cleared.kept))}.")
    if cleared.is_too_much and cleared.disk is not None:
        lines.append(
            f"That is more than {size_text(cleared.disk)}: best, documented and unfinished trials need these stages. "
            "Lower --keep, or move sweeps away that are not needed any more."
        )
    return lines


@click.command("delete")
@click.argument("name", type=SWEEP)
@options("out", "known-tracking-uri")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@answering
def delete(streams: Streams, name: str, out: Path, tracking_uri: str | None, yes: bool, dry_run: bool) -> int:
    """Remove the sweep or job NAME: its folder, its runs in MLflow, and its models but those that an alias holds.

    Asks first. A champion or challenger stays, with the run that it came from. How often the winner was evaluated on
    the test set stays known. Cached stages stay for other sweeps; carsweep gc removes what none needs any more.
    """
    from sweeps.lock import holder_of
    from sweeps.run.remembered import recall
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import find_remains, remove

    out = out.absolute()
    uri = recall(out, name, tracking_uri).tracking_uri
    folders = [out / sweep for sweep in sweeps_in(out, name)]
    holder = next(filter(None, map(holder_of, folders)), None)
    if holder is not None:
        raise InputError(
            f"NAME must be of a sweep that nothing runs, got {name!r}: {holder} runs it. Stop it first "
            f"(carsweep stop {name})."
        )
    found = [find_remains(folder, uri) for folder in folders]
    if not streams.as_json or not dry_run:
        for remains in found:
            streams.notify("\n".join(_remains_lines(remains)))
    if not dry_run:
        if not yes and not _agrees(name):
            return FAILED
        for remains in found:
            remove(remains)
        if out / name not in folders:
            shutil.rmtree(out / name)
    streams.answer(
        {"name": name, "removed": not dry_run, "sweeps": list(map(_remains_json, found))},
        f"{name} would be removed." if dry_run else f"{name} is removed.",
    )
    return DONE


def _agrees(name: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(f"--yes must be given where nobody can be asked whether {name!r} may go. Nothing was removed.")
    return click.confirm(f"Remove {name}?", default=False, err=True)


def _remains_lines(remains: Remains) -> list[str]:
    of_mlflow = {"run": remains.runs, "model version": remains.versions, "uploaded model": remains.models}
    counts = ", ".join(plural(len(found), what) for what, found in of_mlflow.items())
    where = f" in {remains.tracking.shown_uri}" if remains.tracking else ""
    return [
        f"{remains.folder}: {size_text(remains.size)}; {counts}{where}.",
        *(
            f"stays: {version.name} version {version.version}, which is {' and '.join(aliases)}, and its run."
            for version, aliases in remains.kept
        ),
    ]


def _remains_json(remains: Remains) -> dict[str, Any]:
    def named(version: ModelVersion) -> dict[str, Any]:
        return {"name": version.name, "version": str(version.version)}

    return {
        "folder": str(remains.folder),
        "bytes": remains.size,
        "tracking_uri": remains.tracking.shown_uri if remains.tracking else None,
        "runs": [run.info.run_id for run in remains.runs],
        "models": [model.model_id for model in remains.models],
        "versions": list(map(named, remains.versions)),
        "kept": [{**named(version), "aliases": list(aliases)} for version, aliases in remains.kept],
    }
