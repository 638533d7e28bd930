"""``carsweep reproduce``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.markdown import Markdown

from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.family import (
    READ_OPTION,
    SettingsCommand,
    make_plans,
    require_dry_run,
    resume_command,
    tell_how_to_go_on,
)
from sweeps.cli.output import kept_in
from sweeps.cli.streams import Streams
from sweeps.interrupts import last_words
from sweeps.text import changes_text, rough_duration, size_text, table

if TYPE_CHECKING:
    from sweeps.reproduction import Reproduction
    from sweeps.spec import SweepSpec

# Columns that hold names of experiments.
_NAMED = ("experiment", "best")
_EPILOG = """\b
Examples:
  carsweep reproduce --data stanford_cars
  carsweep reproduce retrieval/resnet50-k10-euclidean --data stanford_cars
  carsweep reproduce --family transfer --data stanford_cars --set backbone=efficientnet_lite0 epochs=5
  carsweep reproduce                                  all nine, scaled down, on the demo cars"""


@click.command("reproduce", cls=SettingsCommand, epilog=_EPILOG)
@click.argument("experiments", metavar="[EXPERIMENT]…", nargs=-1)
@click.option("--family", type=click.Choice(["transfer", "retrieval", "scratch"]), help="Only this family's.")
@click.option("--data", metavar="PATH", help="Data set, as for run. Default: demo cars, at the demo's scale.")
@click.option("--scale", type=click.Choice(["documented", "demo"]), default="documented", help="How large they run.")
@click.option("--set", "sets", metavar="KEY=VALUE …", multiple=True, help="Fix a setting; repeatable, several at once.")
@click.option("--cpus-per-trial", type=float, help="CPU cores for each experiment.")
@click.option("--gpus-per-trial", type=float, help="GPUs for each experiment: 0, 1 or 1/n.")
@click.option("--concurrency", type=int, help="Experiments at the same time. Default: what fits.")
@click.option("--name", help="Name of the reproduction; an existing name goes on with it.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store or server. Default: OUT/mlflow.db.")
@click.option("--seed", type=int, help="Seed of every experiment.")
@click.option("--weights", metavar="auto|random|PATH", help="Pretrained weights; PATH is a file or a folder.")
@click.option("--address", metavar="ADDRESS", help="Run on the Ray cluster at this address. Default: this machine.")
@click.option("--dry-run", is_flag=True, help="Make the checks of a run, print the plan and stop.")
@READ_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to stderr.")
def reproduce(
    experiments: tuple[str, ...],
    family: str | None,
    scale: str,
    sets: tuple[str, ...],
    name: str | None,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    dry_run: bool,
    read: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Run documented experiments with their exact settings and compare with their documented numbers.

    All nine are run when none is named. Each is read once on the test images; nothing is searched and nothing is
    registered. The tables are printed and written to OUT/NAME/reproduction.md and reproduction.json; they say whatever
    differs from the documentation.
    """
    from sweeps.job import settle_spec
    from sweeps.reproduction_specs import chosen_experiments, reproduction_specs

    require_dry_run(read, dry_run)
    name = name or f"reproduce-{time.strftime('%Y%m%d-%H%M%S')}"
    specs = reproduction_specs(
        chosen_experiments(experiments, family),
        name=name,
        sets=sets,
        overrides={option: value for option, value in options.items() if value is not None},
        demo_scale=scale == "demo",
    )
    settled = [settle_spec(spec) for spec in specs]
    with Streams(as_json) as streams:
        if dry_run:
            return _print_plans(settled, name, out, tracking_uri, address, streams, read=read)
        return run_experiments(settled, name, out, tracking_uri, address, streams)


def _print_plans(
    specs: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    *,
    read: bool,
) -> int:
    from sweeps.reproduction import folder_of

    folder_of(name, out)
    plans = make_plans(specs, out, tracking_uri, address, streams, read=read)
    if streams.as_json:
        streams.write_json({"plans": [plan.to_dict() for plan in plans]})
        return DONE
    for plan in plans:
        click.echo(f"{plan.spec.family}, about {rough_duration(plan.seconds)}, {size_text(plan.disk_bytes)}")
        click.echo("\n".join(_planned(plan.spec)))
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        click.echo(note)
    data = plans[0].summary
    seconds = sum(plan.seconds for plan in plans)
    click.echo(
        f"Each is read once on the {data.test:,} test images of {data.name}. All together: at most about "
        f"{rough_duration(seconds)} on {plans[0].machine}; a rough estimate, expect half to twice of it."
    )
    return DONE


def _planned(spec: SweepSpec) -> list[str]:
    """Return a line for each experiment, and one for what all of a family run otherwise than documented."""
    changes = {name: spec.changed_settings(name) for name in spec.experiments}
    first, *others = changes.values()
    shared = {n: change for n, change in first.items() if all(other.get(n) == change for other in others)}
    lines = [f"  all with {changes_text(shared)}"] if shared else []
    for name, changed in changes.items():
        own = {setting: change for setting, change in changed.items() if setting not in shared}
        with_own = f" with {changes_text(own)}" if own else "" if shared else ", as documented"
        lines.append(f"  {name}{with_own}")
    return lines


def run_experiments(
    specs: Sequence[SweepSpec],
    name: str,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    edits: Sequence[str] | None = None,
) -> int:
    """Run the experiments, print the tables, and return the exit code; arguments as ``run_reproduction``."""
    from sweeps.cli.view import open_view
    from sweeps.reproduction import run_reproduction

    try:
        with last_words(partial(tell_how_to_go_on, name, out)):
            reproduction = run_reproduction(
                specs,
                name,
                out,
                tracking_uri,
                open_view=lambda spec: open_view(spec, streams.progress),
                address=address,
                edits=edits,
            )
    except KeyboardInterrupt:
        reproduction = None
    if reproduction is None:
        if streams.as_json:
            streams.write_json({"error": "interrupted"})
        return tell_how_to_go_on(name, out)
    with kept_in(out / name, resume_command(name, out)):
        return _tell(reproduction, out, streams)


def _tell(reproduction: Reproduction, out: Path, streams: Streams) -> int:
    from sweeps.reproduction_tables import markdown_of

    if streams.as_json:
        streams.write_json(reproduction.as_dict())
    console = streams.progress if streams.as_json else streams.result
    text = markdown_of(reproduction)
    if console.is_terminal:
        for block in text.strip().split("\n\n"):
            console.print(draw_block(block), "")
    else:
        console.print(text, markup=False, soft_wrap=True)
    folder = out / reproduction.name
    console.print(f"Written to {folder / 'reproduction.md'} and {folder / 'reproduction.json'}.", soft_wrap=True)
    return DONE if reproduction.is_complete else FAILED


def draw_block(block: str) -> RenderableType:
    """Draw a block of Markdown for a terminal: in tables, numbers may wrap and names of experiments may not.

    Headings and rows name the family already, so experiments are named without it.
    """
    if not block.startswith("| "):
        return Markdown(block)
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    for place, title in enumerate(header):
        for row in rows if title in _NAMED else ():
            row[place] = row[place].rpartition("/")[2]
    return table(header, rows, words=(*_NAMED, "family"), fold=[title for title in header if title not in _NAMED])
