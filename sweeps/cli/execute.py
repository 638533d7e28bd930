"""A command carried out: planned, or run and shown, with the exit code that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE, FAILED, INTERRUPTED, kept_in
from sweeps.cli.output import Streams, carsweep_command, resume_command, say
from sweeps.interrupts import last_words
from sweeps.text import duration, plural, rough_duration, table_of

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.engine import Watcher
    from sweeps.results.result import SweepResult
    from sweeps.run.command import Command
    from sweeps.run.comparison import Together
    from sweeps.run.plan import Plan
    from sweeps.run.reproduction import Reproduction
    from sweeps.spec.spec import SweepSpec

# The width of a terminal from which it shows all columns of the winners.
_WIDE = 110


def carry_out(command: Command, *, dry_run: bool, read: bool, as_json: bool) -> int:
    """Plan or run a command, show what comes of it, and return the exit code."""
    if read and not dry_run:
        raise click.UsageError("--read goes with --dry-run; a run reads the images anyway.")
    with Streams(as_json) as streams:
        return _plan(command, streams, read=read) if dry_run else run_and_show(command, streams)


def _plan(command: Command, streams: Streams, *, read: bool) -> int:
    from sweeps.run.several import plan_sweeps

    plans = plan_sweeps(command, _views_on(streams) if read else None)
    parts = ["\n".join(plan.lines(streams.result.width)) for plan in plans]
    told = plans[0].to_dict()
    if command.is_job:
        parts.append(_all_together(plans))
        told = {"plans": [plan.to_dict() for plan in plans], "seconds": round(sum(plan.seconds for plan in plans))}
    streams.answer(told, "\n\n".join(parts))
    return DONE


def _views_on(streams: Streams) -> Callable[[SweepSpec], AbstractContextManager[Watcher]]:
    """Return what makes the view of a sweep."""
    from sweeps.cli.view import open_view

    return lambda spec: open_view(spec, streams.progress)


def _all_together(plans: list[Plan]) -> str:
    counts = ", ".join(f"{plan.spec.trials} {plan.spec.family}" for plan in plans)
    total, seconds = sum(plan.spec.trials for plan in plans), sum(plan.seconds for plan in plans)
    line = f"All together: {plural(total, 'trial')} ({counts}), at most about {rough_duration(seconds)}."
    if any(plan.spec.family == "retrieval" and plan.spec.search for plan in plans):
        line += " Retrieval's first searched trial has the training settings that won transfer."
    return line


def run_and_show(command: Command, streams: Streams) -> int:
    """Run a command, show what comes of it, and return the exit code."""
    from sweeps.run.several import run_sweeps

    outcome = None
    with suppress(KeyboardInterrupt), last_words(partial(tell_how_to_go_on, command.name, command.out)):
        outcome = run_sweeps(command, _views_on(streams), streams.tell)
    if outcome is None:
        streams.answer({"error": "interrupted"})
        return tell_how_to_go_on(command.name, command.out)
    with kept_in(command.out / command.name, resume_command(command.name, command.out)):
        streams.answer(outcome.as_dict())
        show(streams.result, command, outcome)
    if outcome.interrupted:
        return tell_how_to_go_on(command.name, command.out)
    return DONE if outcome.is_whole else FAILED


def show(console: Console, command: Command, outcome: SweepResult | Together | Reproduction) -> None:
    """Print what a command came to, for people."""
    from sweeps.cli.summary import print_result
    from sweeps.run.comparison import Together
    from sweeps.run.reproduction import Reproduction

    match outcome:
        case Together():
            _show_families(console, command, outcome)
        case Reproduction():
            _show_experiments(console, command, outcome)
        case _:
            print_result(console, outcome)


def _show_families(console: Console, command: Command, together: Together) -> None:
    from sweeps.cli.compare import pair_lines
    from sweeps.cli.summary import print_result
    from sweeps.run.comparison import NARROW_COLUMNS, WINNER_COLUMNS

    for result in together.results.values():
        print_result(console, result, closing=False)
    console.print(f"\n{together.name}: the winners of all families, in {duration(together.seconds)}", style="bold")
    columns = WINNER_COLUMNS if console.width >= _WIDE else NARROW_COLUMNS
    say(console, table_of(columns, together.results.values(), fold=("model",)), *pair_lines(together.pairs))
    if not together.interrupted:
        folder = command.out / command.name
        ui = carsweep_command("ui", "--out", str(command.out))
        written = f"\nWritten to {folder / 'comparison.md'} and comparison.json."
        say(console, written, f"Look at the runs: {ui}")


def _show_experiments(console: Console, command: Command, reproduction: Reproduction) -> None:
    from rich.markdown import Markdown

    for block in reproduction.blocks() if console.is_terminal else ():
        console.print(Markdown(block) if isinstance(block, str) else block, "")
    if not console.is_terminal:
        say(console, reproduction.markdown())
    folder = command.out / command.name
    say(console, f"Written to {folder / 'reproduction.md'} and reproduction.json.")


def tell_how_to_go_on(name: str, out: Path) -> int:
    """Tell a person who stopped a sweep how it goes on; return the exit code."""
    from sweeps.spec.sweep_file import is_known

    if is_known(out / name):
        click.echo(f"Interrupted; everything so far is kept. To go on:\n  {resume_command(name, out)}", err=True)
    else:
        click.echo("Interrupted before the first trial. To begin: the same command again.", err=True)
    return INTERRUPTED
