"""``carsweep compare``: leaderboards of sweeps side by side."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from sweeps.cli.exits import DONE
from sweeps.cli.options import options
from sweeps.cli.output import Streams, callable_name, say
from sweeps.text import Column, counts_text, settings_text, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.results.leaderboard import Row
    from sweeps.run.comparison import Comparison, DataGroup, Pair

_EPILOG = """\b
Examples:
  carsweep compare
  carsweep compare cars-resnet cars-densenet --top 3

`carsweep ui` shows the same runs in MLflow."""

_WIDE = 110
_ALWAYS = ("sweep", "family", "status", "val_accuracy", "test_accuracy")
_WHERE_WIDE = ("trials", "test_f1", "seconds", "registered")
# Columns of a sweep's best rows, and one more for what else a leaderboard tells of them.
_OF_ROWS = ("rank", "number", "accuracy")
_WHAT: Column[Row] = Column(
    "what", lambda row: f"{row.trial.name}  {settings_text(row.settings)}".rstrip(), "what", is_word=True
)
_SHOWN_PAIRS = 20


@click.command("compare", epilog=_EPILOG)
@click.argument("sweeps", metavar="[SWEEP]…", nargs=-1)
@options("out", "json")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Rows of each leaderboard to show."
)
def compare(sweeps: tuple[str, ...], out: Path, top: int, as_json: bool) -> int:
    """Show sweeps side by side: all under --out, or those that are named.

    Winners that were tested on the same images are compared in pairs: difference of accuracies with its 95% interval,
    and an exact McNemar test, corrected for the number of pairs. Different data sets are never ranked together.
    """
    from sweeps.run.comparison import compare_sweeps

    with Streams(as_json) as streams:
        comparison = compare_sweeps(out, sweeps)
        streams.answer(comparison.as_dict(top), *_parts(comparison, top, wide=streams.result.width >= _WIDE))
        say(streams.result, *_rest(comparison, out))
    return DONE


def _parts(comparison: Comparison, top: int, *, wide: bool) -> Iterator[RenderableType]:
    """Yield each data set's sweeps, the pairs of their winners, and their best rows."""
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


def pair_lines(pairs: Sequence[Pair]) -> list[str]:
    """Return what the tests of pairs say; nothing where there are none."""
    if not pairs:
        return []
    images = pairs[0].numbers.images
    corrected = f", Holm's correction over {len(pairs)} pairs" if len(pairs) > 1 else ""
    title = f"\nWinners on the same {images} test images, in points (exact McNemar test{corrected}):"
    left_out = len(pairs) - _SHOWN_PAIRS
    more = [f"  … and {left_out} more pairs; --json has them all."] if left_out > 0 else []
    return [title, *(f"  {pair}" for pair in pairs[:_SHOWN_PAIRS]), *more]


def _rest(comparison: Comparison, out: Path) -> list[str]:
    lines = [f"{name}: unfinished, no result yet." for name in comparison.unfinished]
    ui = shlex.join([callable_name("carsweep"), "ui", "--out", str(out)])
    return [*lines, *comparison.unreadable, "", f"The same runs in MLflow: {ui}"]
