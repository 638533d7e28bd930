"""Sweeps of a folder of runs: listed, looked at, set side by side, stopped from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from carcls.errors import InputError
from sweeps.cli.exits import DONE, echo
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import (
    Streams,
    accuracy_of,
    answering,
    carsweep_command,
    duplicates_text,
    epoch_of,
    resume_command,
    say,
)
from sweeps.tables import Column, table_of
from sweeps.text import counts_text, minute, percent, plural, settings_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.results.leaderboard import Row
    from sweeps.run.comparison import Comparison
    from sweeps.run.difference import Difference
    from sweeps.run.status import SweepStatus

_COMPARED = ("sweep", "family", "status", "val_accuracy", "test_accuracy")
_WHERE_WIDE = ("trials", "test_f1", "seconds", "registered")
# Columns of a sweep's best rows, and one more for what else a leaderboard tells of them.
_OF_ROWS = ("rank", "number", "accuracy")
_WHAT: Column[Row] = Column(
    "what", lambda row: f"{row.trial.name}  {settings_text(row.settings)}".rstrip(), "what", is_word=True
)


@click.command("runs")
@options("out")
@answering
def runs(streams: Streams, out: Path) -> int:
    """List the sweeps under --out: their status and what came of them, the last written to first."""
    from sweeps.run.status import COLUMNS, sweep_status, sweeps_in

    found: list[SweepStatus] = []
    for name in sweeps_in(out):
        try:
            found.append(sweep_status(out, name))
        except InputError as error:  # one damaged sweep must not hide the others
            echo(f"{name}: {error}", err=True)
    columns = [column for column in COLUMNS if column.title and (streams.is_wide or column.room != "wide")]
    table = [table_of(columns, found, fold=("name",))] if found else []
    streams.answer({"sweeps": [sweep.as_dict() for sweep in found]}, *table)
    if not found and not streams.as_json:
        streams.notify(f"No sweeps in {out}.")
    return DONE


@click.command("status")
@click.argument("name", type=SWEEP, required=False)
@options("out")
@answering
def status(streams: Streams, name: str | None, out: Path) -> int:
    """Show the status of the sweep or job NAME; without NAME, the one last written to.

    It is read from the sweep's own files, at any time, also while the sweep runs; it needs no GPU and no Ray.
    """
    from sweeps.run.status import sweep_status, sweeps_in
    from sweeps.trial import stage_use

    names = sweeps_in(out, name) if name else sweeps_in(out)[:1]
    if not names:
        raise InputError(f"--out must be a folder with runs, got {str(out)!r}. Run a sweep first, or name its --out.")
    found = [sweep_status(out, each) for each in names]
    if streams.as_json:
        streams.answer({"sweeps": [{**each.as_dict(), **stage_use(each.board.trials)} for each in found]})
    else:
        say(streams.result, "\n\n".join("\n".join(status_lines(each, out)) for each in found))
    return DONE


def status_lines(sweep: SweepStatus, out: Path) -> Iterator[str]:
    """Yield what a person wants to know of a sweep, a line each."""
    from sweeps.results.result import saved_text
    from sweeps.trial import stage_use

    values, best, trials = sweep.as_dict(), sweep.board.best, sweep.board.trials
    holder = f" by {sweep.holder}" if sweep.holder else ""
    yield f"{sweep.name} ({sweep.spec.family}): {sweep.state}{holder}"
    counts = ", ".join(f"{sweep.counts[s]} {s}" for s in ("complete", "pruned", "failed") if sweep.counts.get(s))
    derived = sum(trial.derived_from is not None for trial in trials)
    more = f"; {plural(derived, 'derived trial')}" if derived else ""
    yield f"  {sweep.ended} of {plural(sweep.total, 'trial')} ended{f' ({counts})' if counts else ''}{more}"
    yield from (f"  {text}" for text in (duplicates_text(trials), saved_text(**stage_use(trials))) if text)
    for trial in sweep.unfinished:
        accuracy = f", val accuracy {accuracy_of(trial)}" if "val_accuracy" in trial.metrics else ""
        what = f"{'runs' if sweep.holder else 'waits'}: {trial.name}"
        yield f"  trial {trial.number} {what}, epoch {epoch_of(trial)}{accuracy}"
    if best is not None:
        test = "" if values["test_accuracy"] is None else f"; test accuracy {percent(values['test_accuracy'])}"
        yield f"  best: trial {best.number}, val accuracy {accuracy_of(best)}{test}"
    if values["registered"]:
        yield f"  registered as {values['registered']}"
    for edit in sweep.edits:
        yield f"  changed {minute(edit['at'])}, after {plural(edit['after'], 'trial')}: {'; '.join(edit['changes'])}"
    yield f"  last written {minute(sweep.changed)}"
    if sweep.state == "unfinished":
        yield f"  to go on: {resume_command(sweep.name, out)}"


@click.command("compare")
@click.argument("sweeps", type=SWEEP, metavar="[SWEEP]…", nargs=-1)
@options("out")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Rows of each leaderboard to show.")
@answering
def compare(streams: Streams, sweeps: tuple[str, ...], out: Path, top: int) -> int:
    """Show sweeps side by side: all under --out, or those that are named.

    Winners that were tested on the same images are compared in pairs: difference of accuracies with its 95% interval,
    and an exact McNemar test, corrected for the number of pairs. Different data sets are never ranked together. The
    name of a job stands for its sweeps.
    """
    from sweeps.run.comparison import compare_sweeps

    comparison = compare_sweeps(out, sweeps)
    unfinished = [f"{name}: unfinished, no result yet." for name in comparison.unfinished]
    ui = f"\nThe same runs in MLflow: {carsweep_command('ui', '--out', str(out))}"
    rest = (*unfinished, *comparison.unreadable, ui)
    streams.answer(comparison.as_dict(top), *_compared(comparison, top, wide=streams.is_wide), *rest)
    return DONE


def _compared(comparison: Comparison, top: int, *, wide: bool) -> Iterator[RenderableType]:
    """Yield each data set's sweeps, the pairs of their winners, and their best rows."""
    from sweeps.cli.summary import pair_lines
    from sweeps.results.leaderboard import COLUMNS
    from sweeps.run.comparison import columns_of, sweep_json

    columns = columns_of(*_COMPARED, *(_WHERE_WIDE if wide else ()))
    of_rows = [*(column for column in COLUMNS if column.key in _OF_ROWS), _WHAT]
    for group in comparison.groups:
        data = group.data
        about = f"{data.classes} classes, {counts_text(data.splits)} images, digest {data.digest[:8]}"
        yield Text(f"\n{data.name} ({about})", style="bold")
        yield table_of(columns, group.sweeps, fold=("sweep",))
        for result in group.sweeps:
            if result.status == "failed" and (reason := sweep_json(result)["reason"]):
                yield f"{result.sweep} failed: {reason}"
        yield from pair_lines(group.pairs)
        for result in group.sweeps:
            if result.trials:
                yield Text(f"\n{result.sweep}", style="bold")
                yield table_of(of_rows, group.top(result, top), fold=("what",))


@click.command("diff")
@click.argument("first", type=SWEEP, metavar="A")
@click.argument("second", type=SWEEP, metavar="B")
@options("out")
@answering
def diff(streams: Streams, first: str, second: str, out: Path) -> int:
    """Show what two sweeps have otherwise, and what came of them.

    Settings, search, data and budgets that differ; then their winners, scores and costs, and the paired test where both
    answered the same test images. Of jobs the sweeps of each family are set side by side.
    """
    from sweeps.run.difference import compare_two

    found, alone = compare_two(out, first, second)
    only = [f"Only one of them has {', '.join(alone)}."] if alone else []
    value = {"differences": [one.as_dict() for one in found], "alone": alone}
    streams.answer(value, *(part for one in found for part in _different(one)), *only)
    return DONE


def _different(one: Difference) -> Iterator[RenderableType]:
    from sweeps.cli.summary import pair_lines

    settings, results = one.grids()
    title = f"{one.names[0]} ({one.results[0].family}) – {one.names[1]} ({one.results[1].family})"
    yield Text(f"{title}\n", style="bold")
    yield settings if one.settings else "The same spec: no setting differs that a trial would notice."
    yield ""
    yield results
    if one.same_images is False:
        yield "\nNot the same images: their scores cannot be compared."
    yield from pair_lines([one.pair] if one.pair else [])
    yield ""
