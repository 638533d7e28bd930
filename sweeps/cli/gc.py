"""``carsweep gc``: make room on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE
from sweeps.cli.options import existing, options

if TYPE_CHECKING:
    from sweeps.run.cleaning import Cleared

_EPILOG = """\b
Examples:
  carsweep gc --dry-run
  carsweep gc --disk 20GB
  carsweep gc --disk 20GB --keep 2

Nothing that goes is lost for good: a stage that is needed again is made again."""


@click.command("gc", epilog=_EPILOG)
@options("out", "json")
@click.option("--disk", metavar="SIZE", help="Room for all stages, such as 20GB: remove more until the rest fits.")
@click.option("--keep", type=int, help="With --disk: models to keep of each sweep, the best first. Default: 5.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
def gc(out: Path, disk: str | None, keep: int | None, dry_run: bool, as_json: bool) -> int:
    """Remove stages that no sweep needs any more.

    These are checkpoints of trials that have ended, stages that no sweep under --out refers to, and what processes that
    died left behind. With --disk, models of trials that are not among a sweep's best and stages not used for longest go
    too, until the rest fits. Sweeps may run meanwhile.
    """
    from carcls.errors import InputError
    from sweeps.cli.streams import Streams
    from sweeps.run.cleaning import KEEP, clear

    size = None if disk is None else _bytes(disk)
    if keep is not None and (size is None or keep < 1):
        raise InputError(f"--keep must be at least 1 and come with --disk, got {keep}. Give --disk, such as 20GB.")
    with Streams(as_json) as streams:
        cleared = clear(existing(out), disk=size, keep=KEEP if keep is None else keep, dry_run=dry_run)
        if as_json:
            streams.write_json(cleared.as_dict())
        else:
            click.echo("\n".join(lines_of(cleared)))
    return DONE


def lines_of(cleared: Cleared) -> list[str]:
    """Return what a person reads."""
    from sweeps.run.cleaning import removed_text
    from sweeps.text import plural, size_text

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


def _bytes(text: str) -> int:
    from carcls.errors import InputError
    from sweeps.text import parse_size

    try:
        return parse_size("--disk", text)
    except ValueError as error:
        raise InputError(str(error)) from None
