"""``carsweep list``: what there is to name."""

from __future__ import annotations

from collections.abc import Sequence

import click

from carcls.catalog import BACKBONES


@click.command("list")
@click.argument("kind", type=click.Choice(["backbones", "experiments", "specs"]))
def listing(kind: str) -> None:
    """List what can be named: backbones, documented experiments, or packaged specs."""
    {"backbones": _backbones, "experiments": _experiments, "specs": _specs}[kind]()


def _backbones() -> None:
    rows = [
        (
            b.name,
            f"d={b.embedding}" if b.embedding else "as set",
            f"{b.parameters:.1f} M parameters",
            f"{b.gmacs:.2f} GMAC",
            _weights(b.source),
        )
        for b in BACKBONES
    ]
    print_columns([*rows, ("timm:<model>", "", "", "", "any model that timm has")])


def _weights(source: str) -> str:
    return {"wheel": "weights installed with carsweep", "torchvision": "weights downloaded once"}.get(source, source)


def _experiments() -> None:
    from sweeps.documented import EXPERIMENTS, LEAK_MARK

    for experiment in EXPERIMENTS:
        about = "about " if experiment.approximate else ""
        mark = f" {LEAK_MARK} not comparable" if experiment.leaked else ""
        click.echo(f"{experiment.name}  (documented accuracy: {about}{experiment.documented['accuracy']:.2%}{mark})")
        click.echo("  " + " ".join(f"{name}={value}" for name, value in experiment.settings.items()))
        click.echo(f"  {experiment.note}")


def _specs() -> None:
    from sweeps.packaged import packaged_specs

    print_columns([(spec.name, spec.command) for spec in packaged_specs()])


def print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of cells in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
