"""``carsweep compare``: leaderboards of sweeps side by side."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.columns import Columns
from rich.console import Console, Group
from rich.text import Text

from sweeps.cli.exits import DONE
from sweeps.cli.streams import Streams, callable_name
from sweeps.text import NOTHING, duration, images_of, percent, percent_range, settings_text, table

if TYPE_CHECKING:
    from rich.table import Table

    from sweeps.comparison import Comparison, DataGroup, Pair, SweepLine
    from sweeps.comparison_files import SweepFiles
    from sweeps.leaderboard import Row

_EPILOG = """\b
Examples:
  carsweep compare
  carsweep compare cars-resnet cars-densenet --top 3

`carsweep ui` shows the same runs in MLflow."""

_WIDE = 110
# Columns that a sweep's best rows take beside another's, and those of them that are numbers and gaps.
_NARROWEST, _NUMBERS = 56, 26
_SHOWN_PAIRS = 20


@click.command("compare", epilog=_EPILOG)
@click.argument("sweeps", metavar="[SWEEP]…", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Rows of each leaderboard to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to stderr.")
def compare(sweeps: tuple[str, ...], out: Path, top: int, as_json: bool) -> int:
    """Show sweeps side by side: all under --out, or those that are named.

    Winners that were tested on the same images are compared in pairs: difference of accuracies with its 95% interval,
    and an exact McNemar test, corrected for the number of pairs. Different data sets are never ranked together.
    """
    from sweeps.comparison import compare as compare_sweeps
    from sweeps.comparison_files import read_sweeps

    with Streams(as_json) as streams:
        files = read_sweeps(out, sweeps)
        comparison = compare_sweeps(files.results, files.predictions, top=top)
        if as_json:
            rest = {"unfinished": list(files.unfinished), "unreadable": list(files.unreadable)}
            streams.write_json({**comparison.as_dict(), **rest})
        else:
            print_comparison(streams.result, comparison)
        console = streams.progress if as_json else streams.result
        for line in _rest(files, out):
            console.print(line, markup=False, soft_wrap=True)
    return DONE


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print each data set's sweeps, the pairs of their winners, and their best rows."""
    for group in comparison.groups:
        console.print(_title(group))
        console.print(_overview(group, wide=console.width >= _WIDE))
        for line in group.sweeps:
            if line.status == "failed" and line.reason:
                console.print(f"{line.sweep} failed: {line.reason}", markup=False, soft_wrap=True)
        if group.pairs:
            print_pairs(console, group.pairs)
        console.print()
        console.print(_side_by_side([line for line in group.sweeps if line.top], console.width))


def _title(group: DataGroup) -> Text:
    data = group.data
    title = f"{data.name} ({data.classes} classes, {images_of(data.splits)} images, digest {data.digest[:8]})"
    return Text(f"\n{title}", style="bold")


def _overview(group: DataGroup, *, wide: bool) -> Table:
    """Draw one row a sweep; a narrow table leaves out what a glance can spare."""
    numbers = ("trials", "val accuracy", "test accuracy", "test F1", "time", "registered")
    header = ("sweep", "family", "status", *(numbers if wide else ("val acc.", "test acc.")))
    rows = [(line.sweep, line.family, line.status, *(_cells(line) if wide else _scores(line))) for line in group.sweeps]
    return table(header, rows, words=("sweep", "family", "status", "registered"), fold=("sweep",))


def _scores(line: SweepLine) -> tuple[str, str]:
    return percent(line.val_accuracy, line.val_half_width), percent(line.test_accuracy)


def _cells(line: SweepLine) -> tuple[str, ...]:
    validated, tested = _scores(line)
    if line.test_interval:
        tested += f" ({percent_range(line.test_interval)})"
    registered = line.registered or NOTHING
    return str(line.trials), validated, tested, percent(line.test_f1), duration(line.seconds), registered


def print_pairs(console: Console, pairs: tuple[Pair, ...]) -> None:
    """Print what the tests of pairs say; there must be one at least."""
    from sweeps.comparison import pair_line

    images = pairs[0].numbers.images
    corrected = f", Holm's correction over {len(pairs)} pairs" if len(pairs) > 1 else ""
    console.print(f"\nWinners on the same {images} test images, in points (exact McNemar test{corrected}):")
    for pair in pairs[:_SHOWN_PAIRS]:
        console.print(pair_line(pair), markup=False, soft_wrap=True)
    if len(pairs) > _SHOWN_PAIRS:
        console.print(f"  … and {len(pairs) - _SHOWN_PAIRS} more pairs; --json has them all.")


def _side_by_side(lines: Sequence[SweepLine], width: int) -> Columns:
    """Draw the best rows of each sweep, as many sweeps beside one another as the width allows."""
    beside = max(1, min(len(lines), width // _NARROWEST))
    return Columns([_leaders(line, max(20, width // beside - _NUMBERS)) for line in lines], padding=(1, 2))


def _leaders(line: SweepLine, width: int) -> Group:
    rows = [(str(row.rank or row.status), str(row.number), percent(row.accuracy), _what(row)) for row in line.top]
    drawn = table(("rank", "trial", "val acc.", "what"), rows, words=("what",), fold=("what",))
    drawn.columns[-1].max_width = width
    return Group(Text(line.sweep, style="bold"), drawn)


def _what(row: Row) -> str:
    name = row.experiment or ("search" if row.sibling_of is None else f"search, by trial {row.sibling_of}")
    return f"{name}  {settings_text(row.settings)}".rstrip()


def _rest(files: SweepFiles, out: Path) -> list[str]:
    lines = [f"{name}: unfinished, no result yet." for name in files.unfinished]
    lines += list(files.unreadable)
    ui = shlex.join([callable_name("carsweep"), "ui", "--out", str(out)])
    return [*lines, "", f"The same runs in MLflow: {ui}"]
