"""``carsweep list``: what there is to name, and every setting of a family or of all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from carcls.catalog import BACKBONES, FAMILIES
from sweeps.cli.exits import DONE
from sweeps.cli.options import FAMILY, Names
from sweeps.cli.output import Streams, answering
from sweeps.tables import Grid
from sweeps.text import percent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sweeps.spec.settings import Setting

# What a kind is in JSON, and what a person reads of it.
Listed = tuple[list[dict[str, Any]], Sequence["RenderableType"]]
_WEIGHTS = {"wheel": "weights installed with carsweep", "torchvision": "weights downloaded once"}
_LEGEND = """Defaults are those of searched trials on your own data: (documented) where all
documented experiments have them, (packaged spec) where the family's spec has
another than carsweep.
All about one setting, and how it is set: carsweep explain KEY"""
_PARTS = {
    "trial": "Settings of a trial",
    "data": "Settings of the data",
    "early_stopping": "Settings of early stopping",
    "sweep": "Settings of the sweep",
}


@click.command("list")
@click.argument("kind", type=Names(["backbones", "experiments", "settings", "specs"]))
@click.argument("family", type=FAMILY, metavar="[FAMILY]", required=False)
@answering
def listing(streams: Streams, kind: str, family: str | None) -> int:
    """List what can be named: backbones, documented experiments, packaged specs, or all settings.

    With FAMILY only the settings that mean something in it. carsweep explain KEY tells all about one.
    """
    if family and kind != "settings":
        raise click.UsageError(f"FAMILY goes with settings, not with {kind}. Leave it out.")
    kinds = {"backbones": _backbones, "experiments": _experiments, "specs": _specs}
    value, parts = kinds[kind]() if kind in kinds else _settings([family] if family else [*FAMILIES])
    streams.answer({kind: value}, *parts)
    return DONE


def _backbones() -> Listed:
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
    value = [{"name": b.name, "embedding": b.embedding, "parameters": b.parameters * 1e6} for b in BACKBONES.values()]
    return value, [Grid(None, [*rows, ("timm:<model>", "", "", "", "any model that timm has")])]


def _experiments() -> Listed:
    from sweeps.spec.documented import EXPERIMENTS, LEAK_MARK

    value, lines = [], []
    for experiment in EXPERIMENTS:
        about = "about " if experiment.approximate else ""
        accuracy = about + percent(experiment.documented["accuracy"], digits=2)
        mark = f" {LEAK_MARK} not comparable" if experiment.leaked else ""
        settings = " ".join(f"{name}={value}" for name, value in experiment.settings.items())
        title = f"{experiment.name}  (documented accuracy: {accuracy}{mark})"
        lines += [title, f"  {settings}", f"  {experiment.note}"]
        value.append({"name": experiment.name, "family": experiment.family, "settings": dict(experiment.settings)})
    return value, ["\n".join(lines)]


def _specs() -> Listed:
    from sweeps.spec.loading import packaged_specs

    rows = [(name, text.partition("\n")[0].lstrip("# ")) for name, text in packaged_specs().items()]
    return [{"name": name, "command": command} for name, command in rows], [Grid(None, rows)]


def _settings(families: Sequence[str]) -> Listed:
    from rich.text import Text

    from sweeps.spec.settings import settings

    known = [setting for setting in settings().values() if any(family in setting.families for family in families)]
    parts: list[RenderableType] = []
    for part, title in _PARTS.items():
        rows = [(s.path, "\n".join(_lines_of(s, families))) for s in known if s.part == part]
        parts += [Text(f"{title}\n", style="bold"), Grid(None, rows), ""]
    return [asdict(setting) for setting in known], [*parts, _LEGEND]


def _lines_of(setting: Setting, families: Sequence[str]) -> Iterator[str]:
    """Yield what a list says of a setting: its meaning in a sentence; values, defaults, search."""
    yield f"{setting.meaning.partition('. ')[0].removesuffix('.')}."
    default, searched = default_text(setting, families), searched_text(setting, families)
    yield setting.values + (f"; default {default}" if default else "")
    yield from [f"searched {searched}"] if searched else []
    if not setting.families.keys() >= {*families}:
        yield f"only in {' and '.join(setting.families)}"


def default_text(setting: Setting, families: Collection[str] = tuple(FAMILIES)) -> str:
    """Write a setting's defaults, and who says so if not carsweep for all families; nothing for a mapping."""
    from sweeps.spec.yaml_text import write_value

    found = {family: one for family, one in setting.families.items() if family in families}
    values = {family: write_value(one.default) for family, one in found.items()}
    sources = {
        value: {found[family].source for family in found if values[family] == value} for value in values.values()
    }
    marks = {value: f" ({one})" for value, (one, *more) in sources.items() if not more and "default" not in one}
    texts = {family: value + marks.get(value, "") for family, value in values.items()}
    return "" if setting.values == "a mapping" else by_family(texts)


def searched_text(setting: Setting, families: Collection[str] = tuple(FAMILIES)) -> str:
    """Write what packaged specs search of a setting; nothing where none does."""
    from sweeps.spec.settings import domain_text

    found = {family: one.search for family, one in setting.families.items() if family in families}
    texts = {family: domain_text(setting.path, search) for family, search in found.items() if search}
    return by_family(texts, among=len(found)) if texts else ""


def by_family(values: Mapping[str, str], among: int = 0) -> str:
    """Write what families have; they are named where they differ from most, or where of so many some have none.

    >>> by_family({"transfer": "32", "retrieval": "64", "scratch": "64"})
    '64; in transfer: 32'
    """
    groups: dict[str, list[str]] = {}
    for family, value in values.items():
        groups.setdefault(value, []).append(family)
    largest, *others = sorted(groups.items(), key=lambda group: -len(group[1]))
    first = largest[0] if len(values) >= among else f"in {' and '.join(largest[1])}: {largest[0]}"
    return "; ".join([first, *(f"in {' and '.join(families)}: {value}" for value, families in others)])
