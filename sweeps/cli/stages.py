"""The stages that trials share: what they are worth, and how room is made on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.errors import InputError
from sweeps.cli.exits import DONE
from sweeps.cli.options import existing, options
from sweeps.cli.output import Streams
from sweeps.text import Column, duration, lines_of, parse_size, plural, size_text, table_of

if TYPE_CHECKING:
    from sweeps.run.cleaning import Cleared
    from sweeps.run.status import KindUse

_STAGES_EPILOG = """\b
Examples:
  carsweep stages
  carsweep stages --out /shared/runs --json"""
_GC_EPILOG = """\b
Examples:
  carsweep gc --dry-run
  carsweep gc --disk 20GB
  carsweep gc --disk 20GB --keep 2

Nothing that goes is lost for good: a stage that is needed again is made again."""

_COLUMNS: tuple[Column[KindUse], ...] = (
    Column("kind", lambda use: use.kind, "kind", is_word=True),
    Column("stages", lambda use: use.stages, "stages"),
    Column("bytes", lambda use: use.bytes, "size", size_text),
    Column("seconds", lambda use: use.seconds, "made in", duration),
    Column("hits", lambda use: use.hits, "hits"),
    Column("saved", lambda use: use.saved, "saved", duration),
)


@click.command("stages", epilog=_STAGES_EPILOG)
@options("out", "json")
def stages(out: Path, as_json: bool) -> int:
    """List the stages that trials share, by kind: their size, how often they were found, and the seconds that saved.

    A hit is a trial that found what another one had made, also in another sweep, and saves the seconds of the making.
    """
    from sweeps.run.status import use_by_kind

    kinds = use_by_kind(existing(out))
    size, saved = sum(kind.bytes for kind in kinds), sum(kind.saved for kind in kinds)
    lines = lines_of(table_of(_COLUMNS, kinds)) if kinds else ["No stages yet."]
    if unfinished := sum(kind.unfinished for kind in kinds):
        lines.append(f"Besides, {unfinished} unfinished: being made, or to go on with.")
    if kinds:
        lines.append(f"{size_text(size)} on disk; sharing saved {duration(saved)}.")
    with Streams(as_json) as streams:
        streams.answer({"kinds": list(map(asdict, kinds)), "bytes": size, "saved": round(saved, 3)}, *lines)
    return DONE


@click.command("gc", epilog=_GC_EPILOG)
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
    from sweeps.run.cleaning import KEEP, clear

    try:
        size = None if disk is None else parse_size("--disk", disk)
    except ValueError as error:
        raise InputError(str(error)) from None
    if keep is not None and (size is None or keep < 1):
        raise InputError(f"--keep must be at least 1 and come with --disk, got {keep}. Give --disk, such as 20GB.")
    with Streams(as_json) as streams:
        cleared = clear(existing(out), disk=size, keep=KEEP if keep is None else keep, dry_run=dry_run)
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
