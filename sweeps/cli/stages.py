"""``carsweep stages``: what trials share, and what that is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps import text
from sweeps.cli.exits import DONE
from sweeps.cli.options import options

if TYPE_CHECKING:
    from sweeps.stage_uses import KindUse

_EPILOG = """\b
Examples:
  carsweep stages
  carsweep stages --out /shared/runs --json"""

_HEAD = ("kind", "stages", "size", "made in", "hits", "saved")


@click.command("stages", epilog=_EPILOG)
@options("out", "json")
def stages(out: Path, as_json: bool) -> int:
    """List the stages that trials share, by kind: their size, how often they were found, and the seconds that saved.

    A hit is a trial that found what another one had made, also in another sweep, and saves the seconds of the making.
    """
    from carcls.errors import InputError
    from sweeps.cli.streams import Streams
    from sweeps.stage_uses import use_by_kind

    if not out.is_dir():
        raise InputError(f"--out must be a folder of runs, got {str(out)!r}. Name the one that carsweep run wrote to.")
    with Streams(as_json) as streams:
        kinds = use_by_kind(out.absolute())
        if as_json:
            totals = {"bytes": sum(k.bytes for k in kinds), "saved": round(sum(k.saved for k in kinds), 3)}
            streams.write_json({"kinds": [asdict(kind) for kind in kinds], **totals})
        else:
            click.echo("\n".join(lines_of(kinds)))
    return DONE


def lines_of(kinds: list[KindUse]) -> list[str]:
    """Return what a person reads."""
    if not kinds:
        return ["No stages yet."]
    rows = [
        (k.kind, str(k.stages), text.size_text(k.bytes), text.duration(k.seconds), str(k.hits), text.duration(k.saved))
        for k in kinds
    ]
    lines = text.lines_of(text.Grid(_HEAD, rows, words=("kind",)))
    unfinished = sum(k.unfinished for k in kinds)
    if unfinished:
        lines.append(f"Besides, {unfinished} unfinished: being made, or to go on with.")
    saved, size = sum(k.saved for k in kinds), sum(k.bytes for k in kinds)
    return [*lines, f"{text.size_text(size)} on disk; sharing saved {text.duration(saved)}."]
