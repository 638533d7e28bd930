"""``carsweep stages``: what trials share, and what that is worth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE
from sweeps.cli.options import existing, options
from sweeps.text import Column, duration, size_text, table_of
from sweeps.text import lines_of as lines_of_grid

if TYPE_CHECKING:
    from sweeps.run.stages import KindUse

_EPILOG = """\b
Examples:
  carsweep stages
  carsweep stages --out /shared/runs --json"""

_COLUMNS: tuple[Column[KindUse], ...] = (
    Column("kind", lambda use: use.kind, "kind", is_word=True),
    Column("stages", lambda use: use.stages, "stages"),
    Column("bytes", lambda use: use.bytes, "size", size_text),
    Column("seconds", lambda use: use.seconds, "made in", duration),
    Column("hits", lambda use: use.hits, "hits"),
    Column("saved", lambda use: use.saved, "saved", duration),
)


@click.command("stages", epilog=_EPILOG)
@options("out", "json")
def stages(out: Path, as_json: bool) -> int:
    """List the stages that trials share, by kind: their size, how often they were found, and the seconds that saved.

    A hit is a trial that found what another one had made, also in another sweep, and saves the seconds of the making.
    """
    from sweeps.cli.streams import Streams
    from sweeps.run.stages import use_by_kind

    kinds = use_by_kind(existing(out))
    with Streams(as_json) as streams:
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
    lines = lines_of_grid(table_of(_COLUMNS, kinds))
    unfinished = sum(k.unfinished for k in kinds)
    if unfinished:
        lines.append(f"Besides, {unfinished} unfinished: being made, or to go on with.")
    saved, size = sum(k.saved for k in kinds), sum(k.bytes for k in kinds)
    return [*lines, f"{size_text(size)} on disk; sharing saved {duration(saved)}."]
