"""``carsweep reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sweeps.cli.execute import carry_out
from sweeps.cli.options import SettingsCommand, options
from sweeps.cli.run import default_name

_EPILOG = """\b
Examples:
  carsweep reproduce --data stanford_cars
  carsweep reproduce retrieval/resnet50-k10-euclidean --data stanford_cars
  carsweep reproduce --family transfer --data stanford_cars --set epochs=5
  carsweep reproduce              all nine, scaled down, on the demo cars"""
_SHARES = ("cpus-per-trial", "gpus-per-trial", "concurrency")


@click.command("reproduce", cls=SettingsCommand, epilog=_EPILOG)
@click.argument("experiments", metavar="[EXPERIMENT]…", nargs=-1)
@click.option("--family", type=click.Choice(["transfer", "retrieval", "scratch"]), help="Only this family's.")
@click.option("--scale", type=click.Choice(["documented", "demo"]), default="documented", help="How large they run.")
@options(
    "data", "set", *_SHARES, "name", "out", "tracking-uri", "seed", "weights", "address", "dry-run", "read", "json"
)
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
    **given: Any,
) -> int:
    """Run documented experiments with their exact settings and compare with their documented numbers.

    All nine are run when none is named. Each is read once on the test images; nothing is searched and nothing is
    registered. The tables are printed and written to OUT/NAME/reproduction.md and reproduction.json; they say whatever
    differs from the documentation.
    """
    from sweeps.run.command import Command, chosen_experiments, specs_of_experiments

    name = name or default_name("reproduce")
    specs = specs_of_experiments(
        chosen_experiments(experiments, family),
        name=name,
        sets=sets,
        overrides={option: value for option, value in given.items() if value is not None},
        demo_scale=scale == "demo",
    )
    command = Command("reproduce", name, specs, tracking_uri, out=out, address=address)
    return carry_out(command, dry_run=dry_run, read=read, as_json=as_json)
