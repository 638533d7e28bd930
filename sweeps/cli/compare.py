"""``carsweep compare``: leaderboards of sweeps side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from sweeps.cli.exits import DONE
from sweeps.cli.options import options
from sweeps.cli.output import Streams, answering, carsweep_command, say
from sweeps.text import Column, counts_text, settings_text, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.results.leaderboard import Row
    from sweeps.run.comparison import Comparison, DataGroup

_EPILOG = """\b
Examples:
  carsweep compare
  carsweep compare cars-resnet cars-densenet --top 3

`carsweep ui` shows the same runs in MLflow."""

_ALWAYS = ("sweep", "family", "status", "val_accuracy", "test_accuracy")
_WHERE_WIDE = ("trials", "test_f1", "seconds", "registered")
# Columns of a sweep's best rows, and one more for what else a leaderboard tells of them.
_OF_ROWS = ("rank", "number", "accuracy")
_WHAT: Column[Row] = Column(
    "what", lambda row: f"{row.trial.name}  {settings_text(row.settings)}".rstrip(), "what", is_word=True
)


@click.command("compare", epilog=_EPILOG)
@click.argument("sweeps", metavar="[SWEEP]…", nargs=-1)
@options("out")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Rows of each leaderboard to show."
)
@answering
def compare(streams: Streams, sweeps: tuple[str, ...], out: Path, top: int) -> int:
    """Show sweeps side by side: all under --out, or those that are named.

    Winners that were tested on the same images are compared in pairs: difference of accuracies with its 95% interval,
    and an exact McNemar test, corrected for the number of pairs. Different data sets are never ranked together.
    """
    from sweeps.run.comparison import compare_sweeps

    comparison = compare_sweeps(out, sweeps)
    streams.answer(comparison.as_dict(top), *_parts(comparison, top, wide=streams.is_wide))
    say(streams.result, *_rest(comparison, out))
    return DONE


def _parts(comparison: Comparison, top: int, *, wide: bool) -> Iterator[RenderableType]:
    """Yield each data set's sweeps, the pairs of their winners, and their best rows."""
    from sweeps.cli.summary import pair_lines
    from sweeps.results.leaderboard import COLUMNS
    from sweeps.run.comparison import columns_of, sweep_json

    keys = (*_ALWAYS, *_WHERE_WIDE) if wide else _ALWAYS
    of_rows = [*(column for column in COLUMNS if column.key in _OF_ROWS), _WHAT]
    for group in comparison.groups:
        yield _title(group)
        yield table_of(columns_of(*keys), group.sweeps, fold=("sweep",))
        for result in group.sweeps:
            reason = sweep_json(result)["reason"]
            if result.status == "failed" and reason:
                yield f"{result.sweep} failed: {reason}"
        yield from pair_lines(group.pairs)
        for result in group.sweeps:
            if result.trials:
                yield Text(f"\n{result.sweep}", style="bold")
                yield table_of(of_rows, group.top(result, top), fold=("what",))


def _title(group: DataGroup) -> Text:
    data = group.data
    title = f"{data.name} ({data.classes} classes, {counts_text(data.splits)} images, digest {data.digest[:8]})"
    return Text(f"\n{title}", style="bold")


def _rest(comparison: Comparison, out: Path) -> list[str]:
    lines = [f"{name}: unfinished, no result yet." for name in comparison.unfinished]
    ui = carsweep_command("ui", "--out", str(out))
    return [*lines, *comparison.unreadable, "", f"The same runs in MLflow: {ui}"]
