"""``carsweep list``: what there is to name."""

from __future__ import annotations

import click

from carcls.catalog import BACKBONES
from sweeps.text import Grid, lines_of, percent


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
        for b in BACKBONES.values()
    ]
    rows.append(("timm:<model>", "", "", "", "any model that timm has"))
    click.echo("\n".join(lines_of(Grid(None, rows))))


def _weights(source: str) -> str:
    return {"wheel": "weights installed with carsweep", "torchvision": "weights downloaded once"}.get(source, source)


def _experiments() -> None:
    from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK

    for experiment in EXPERIMENTS:
        about = "about " if experiment.approximate else ""
        accuracy = about + percent(experiment.documented["accuracy"], digits=2)
        mark = f" {LEAK_MARK} not comparable" if experiment.leaked else ""
        click.echo(f"{experiment.name}  (documented accuracy: {accuracy}{mark})")
        click.echo("  " + " ".join(f"{name}={value}" for name, value in experiment.settings.items()))
        click.echo(f"  {experiment.note}")


def _specs() -> None:
    from sweeps.spec.loading import packaged_specs

    rows = [(name, text.partition("\n")[0].lstrip("# ")) for name, text in packaged_specs().items()]
    click.echo("\n".join(lines_of(Grid(None, rows))))
