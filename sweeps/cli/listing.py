"""``carsweep list``: what there is to name."""

from __future__ import annotations

import click

from carcls.catalog import BACKBONES
from sweeps.text import Grid, lines_of, percent

_WEIGHTS = {"wheel": "weights installed with carsweep", "torchvision": "weights downloaded once"}


@click.command("list")
@click.argument("kind", type=click.Choice(["backbones", "experiments", "specs"]))
def listing(kind: str) -> None:
    """List what can be named: backbones, documented experiments, or packaged specs."""
    click.echo("\n".join({"backbones": _backbones, "experiments": _experiments, "specs": _specs}[kind]()))


def _backbones() -> list[str]:
    rows = [
        (
            b.name,
            f"d={b.embedding}" if b.embedding else "as set",
            f"{b.parameters:.1f} M parameters",
            f"{b.gmacs:.2f} GMAC",
            _WEIGHTS.get(b.source, b.source),
        )
        for b in BACKBONES.values()
    ]
    return lines_of(Grid(None, [*rows, ("timm:<model>", "", "", "", "any model that timm has")]))


def _experiments() -> list[str]:
    from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK

    lines = []
    for experiment in EXPERIMENTS:
        about = "about " if experiment.approximate else ""
        accuracy = about + percent(experiment.documented["accuracy"], digits=2)
        mark = f" {LEAK_MARK} not comparable" if experiment.leaked else ""
        settings = " ".join(f"{name}={value}" for name, value in experiment.settings.items())
        title = f"{experiment.name}  (documented accuracy: {accuracy}{mark})"
        lines += [title, f"  {settings}", f"  {experiment.note}"]
    return lines


def _specs() -> list[str]:
    from sweeps.spec.loading import packaged_specs

    rows = [(name, text.partition("\n")[0].lstrip("# ")) for name, text in packaged_specs().items()]
    return lines_of(Grid(None, rows))
