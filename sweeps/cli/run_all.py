"""``carsweep run all``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.family import (
    SettingsCommand,
    make_plans,
    require_dry_run,
    resume_command,
    run_options,
    tell_how_to_go_on,
)
from sweeps.cli.output import kept_in
from sweeps.cli.streams import Streams, callable_name
from sweeps.interrupts import last_words
from sweeps.text import duration, rough_duration, table_of

if TYPE_CHECKING:
    from rich.table import Table

    from sweeps.result import SweepResult
    from sweeps.spec import SweepSpec
    from sweeps.together_tables import TogetherResult

# The width of a terminal from which it shows all columns of the comparison.
_WIDE = 110
_EPILOG = """\b
Examples:
  carsweep run all
  carsweep run all --data stanford_cars --trials 60 --hours 24
  carsweep run all --data stanford_cars --set backbone=efficientnet_lite0 image_size=128

A setting reaches the families that it means something in: backbone never reaches scratch, k only retrieval."""


@click.command("all", cls=SettingsCommand, epilog=_EPILOG)
@click.option("--spec", "spec_file", type=click.Path(path_type=Path), hidden=True)
@run_options
def run_all(
    spec_file: Path | None,
    sets: tuple[str, ...],
    trials: int | None,
    name: str | None,
    out: Path,
    tracking_uri: str | None,
    dry_run: bool,
    read: bool,
    as_json: bool,
    address: str | None,
    **options: Any,
) -> int:
    """Sweep over all three families as one job.

    They share data, stages and one budget: --trials and --hours are for all together. Retrieval begins with the network
    that won the transfer family. Three models are registered, and their winners are compared.
    """
    from sweeps.job import settle_spec
    from sweeps.together import specs_of_all

    if spec_file is not None:
        raise click.UsageError("--spec is of one family: use carsweep run FAMILY --spec, or --set here.")
    require_dry_run(read, dry_run)
    name = name or f"all-{time.strftime('%Y%m%d-%H%M%S')}"
    overrides = {option: value for option, value in options.items() if value is not None}
    specs = [settle_spec(s) for s in specs_of_all(name=name, sets=sets, overrides=overrides, trials=trials)]
    with Streams(as_json) as streams:
        if dry_run:
            return _print_plans(specs, out, tracking_uri, address, streams, read=read)
        return run_job(specs, name, out, tracking_uri, address, streams)


def _print_plans(
    specs: Sequence[SweepSpec],
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    *,
    read: bool,
) -> int:
    from sweeps.together import with_start

    started = [with_start(spec, out.expanduser().absolute(), None) for spec in specs]
    plans = make_plans(started, out, tracking_uri, address, streams, read=read)
    seconds = sum(plan.seconds for plan in plans)
    if streams.as_json:
        streams.write_json({"plans": [plan.to_dict() for plan in plans], "seconds": round(seconds)})
    else:
        click.echo("\n\n".join("\n".join(plan.lines()) for plan in plans))
        counts = ", ".join(f"{plan.trials} {spec.family}" for plan, spec in zip(plans, specs, strict=True))
        click.echo(
            f"\nAll together: {sum(plan.trials for plan in plans)} trials ({counts}), at most about "
            f"{rough_duration(seconds)}. Retrieval's first searched trial has the training settings that won transfer."
        )
    return DONE


def run_job(
    specs: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    edits: Sequence[str] | None = None,
) -> int:
    """Run the sweeps of a job, show what comes of it, and return the exit code; arguments as ``run_together``."""
    from sweeps.cli.view import open_view
    from sweeps.together import run_together

    try:
        with last_words(partial(tell_how_to_go_on, name, out)):
            together = run_together(
                specs,
                name,
                out,
                tracking_uri,
                open_view=lambda spec: open_view(spec, streams.progress),
                address=address,
                edits=edits,
            )
    except KeyboardInterrupt:
        if streams.as_json:
            streams.write_json({"error": "interrupted"})
        return tell_how_to_go_on(name, out)
    with kept_in(out / name, resume_command(name, out)):
        if streams.as_json:
            streams.write_json(together.as_dict())
        _print(streams.progress if streams.as_json else streams.result, specs, together, out)
    if together.interrupted:
        return tell_how_to_go_on(name, out)
    return DONE if together.is_registered else FAILED


def _print(console: Console, specs: Sequence[SweepSpec], together: TogetherResult, out: Path) -> None:
    from sweeps.cli.compare import print_pairs
    from sweeps.cli.summary import print_result

    for spec in specs:
        if spec.family in together.results:
            print_result(console, together.results[spec.family], closing=False)
    console.print(f"\n{together.name}: the winners of all families, in {duration(together.seconds)}", style="bold")
    console.print(draw_comparison(together.results.values(), console.width))
    if together.pairs:
        print_pairs(console, together.pairs)
    if not together.interrupted:
        console.print(f"\nWritten to {out / together.name / 'comparison.md'} and comparison.json.", soft_wrap=True)
        ui = shlex.join([callable_name("carsweep"), "ui", "--out", str(out)])
        console.print(f"Look at the runs: {ui}", markup=False, soft_wrap=True)


def draw_comparison(results: Iterable[SweepResult], width: int) -> Table:
    """Draw the winners side by side; a narrow terminal gets the columns that matter most."""
    from sweeps.comparison import columns_of
    from sweeps.together_tables import COLUMNS, NARROW_COLUMNS

    return table_of(columns_of(*(COLUMNS if width >= _WIDE else NARROW_COLUMNS)), results, fold=("model",))
