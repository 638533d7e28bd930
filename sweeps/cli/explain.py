"""``carsweep explain``: all about one setting, documented experiment, or quantity that trials are judged by."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from carcls.errors import InputError, nearest, shown
from sweeps.cli.exits import DONE
from sweeps.cli.listing import default_text, searched_text
from sweeps.cli.options import Known, option_of
from sweeps.cli.output import Streams, answering
from sweeps.tables import Grid
from sweeps.text import settings_text

if TYPE_CHECKING:
    from sweeps.spec.documented import DocumentedExperiment
    from sweeps.spec.objectives import Quantity
    from sweeps.spec.settings import Setting

# What is told, and as what; empty texts are left out.
Rows = list[tuple[str, str]]
_OF = {"trial": "trials", "data": "the data", "early_stopping": "early stopping", "sweep": "the sweep"}
# Stands for a value that only a user can choose.
_VALUE, _RANGE = "VALUE", "{low: LOW, high: HIGH}"


@click.command("explain")
@click.argument("key", type=Known("key"))
@answering
def explain(streams: Streams, key: str) -> int:
    """Tell all about KEY: a setting, a documented experiment, or an objective.

    A setting is named as --set and specs name it: dropout, data.margin, search.dropout.high, early_stopping.reduction.
    """
    from rich.text import Text

    from sweeps.spec.documented import EXPERIMENTS
    from sweeps.spec.objectives import QUANTITIES
    from sweeps.spec.settings import settings, settings_about

    experiments = [one for one in EXPERIMENTS if one.name == key]
    quantities = [one for one in QUANTITIES if key in (one.name, one.metric)]
    found = settings_about(key)
    if not (found or experiments or quantities):
        known = [*settings(), *(one.name for one in EXPERIMENTS), *(one.name for one in QUANTITIES)]
        values = (f" It is a value of {setting.path}." for setting in settings().values() if key in setting.choices)
        meant = next(values, "") or nearest(key.removeprefix("search."), known)
        raise InputError(f"KEY must be a setting, a documented experiment or an objective, got {shown(key)}.{meant}")
    told = [(setting.path, _of_setting(setting, key)) for setting in found]
    told += [(one.name, _of_experiment(one)) for one in experiments]
    told += [(f"{one.name} (objective)", _of_quantity(one)) for one in quantities]
    grids = [(Text(f"{name}\n", style="bold"), Grid(None, [row for row in rows if row[1]]), "") for name, rows in told]
    things = [*map(asdict, found), *map(_plain, experiments), *map(asdict, quantities)]
    streams.answer({"key": key, "found": things}, *(part for grid in grids for part in grid))
    return DONE


def _plain(experiment: DocumentedExperiment) -> dict[str, Any]:
    parts = {name: getattr(experiment, name) for name in ("name", "family", "note", "approximate", "leaked")}
    return {**parts, "settings": dict(experiment.settings), "documented": dict(experiment.documented)}


def _of_setting(setting: Setting, key: str) -> Rows:
    from sweeps.spec import space

    few = "" if len(setting.families) > 2 else f", in {' and '.join(setting.families)}"
    domains = " ".join((space.__doc__ or "").split("\n\n")[1].replace("``", "").split())
    return [
        ("is", f"a setting of {_OF[setting.part]}{few}"),
        ("means", setting.meaning),
        ("values", setting.values),
        ("default", default_text(setting)),
        ("searched", searched_text(setting)),
        ("documented", _documented(setting)),
        *[("matters where", condition) for condition in setting.matters],
        *_ways(setting),
        ("domains", domains if key.partition(".")[0] in ("search", "space") else ""),
        ("see also", ", ".join(setting.related)),
    ]


def _documented(setting: Setting) -> str:
    """Write the values of the documented experiments."""
    from sweeps.spec.yaml_text import write_value

    experiments: dict[str, list[str]] = {}
    for family, found in setting.families.items():
        values = {name: write_value(value) for name, value in found.documented.items()}
        alike = {f"all of {family}": value for value in values.values()} if len({*values.values()}) == 1 else values
        for name, value in alike.items():
            experiments.setdefault(value, []).append(name)
    return "; ".join(f"{value} in {', '.join(names)}" for value, names in experiments.items())


def _ways(setting: Setting) -> Rows:
    """Return how a setting is fixed and searched, on the command line and in YAML."""
    from sweeps.spec.yaml_text import write_value

    section, _, name = setting.path.rpartition(".")
    if setting.values == "a mapping":
        return [("set it", f"--set {setting.path}.SETTING={_VALUE}"), ("in YAML", f"{name}: {{SETTING: {_VALUE}}}")]
    families = setting.families.values()
    searched = next((found.search for found in families if found.search), None)
    ends = [searched["low"], searched["high"]] if isinstance(searched, dict) else searched or ()
    default = write_value(next(iter(families)).default).strip("[]")
    value = next((text for text in (*map(write_value, ends), *setting.choices) if text != default), _VALUE)
    listed = f"[{value}]" if setting.values.startswith("a list") else value
    option, section = option_of(setting.path), "fixed" if setting.part == "trial" else section
    given = f"{option} {'' if value == 'true' else shlex.quote(value)}".strip()
    ways = [
        ("set it", given if option else _set(setting.path, listed)),
        ("in YAML", f"{section}: {{{name}: {listed}}}" if section else f"{name}: {listed}"),
    ]
    if setting.part != "trial":
        return ways
    domain = write_value(searched) if searched else f"[{', '.join(setting.choices)}]" if setting.choices else _RANGE
    return [
        *ways,
        ("search it", _set(f"search.{name}", domain)),
        ("one end", _set(f"search.{name}.high", str(searched["high"])) if isinstance(searched, dict) else ""),
        ("not at all", _set(f"search.{name}", "null") if searched else ""),
        ("in YAML", f"search: {{{name}: {domain}}}"),
    ]


def _set(path: str, value: str) -> str:
    return f"--set {shlex.quote(f'{path}={value}')}"


def _of_experiment(experiment: DocumentedExperiment) -> Rows:
    reported = ", ".join(f"{name} {value:g}" for name, value in experiment.documented.items())
    doubt = "not comparable: measured on images whose like had been trained on" if experiment.leaked else ""
    return [
        ("is", f"a documented experiment of the {experiment.family} family"),
        ("settings", settings_text(experiment.settings)),
        ("reported", f"{'about ' if experiment.approximate else ''}{reported}"),
        ("but", doubt),
        ("note", experiment.note),
        ("run it", f"carsweep reproduce {experiment.name} --data PATH"),
    ]


def _of_quantity(quantity: Quantity) -> Rows:
    better = "higher" if quantity.direction == "maximize" else "lower"
    limit = {"share": "70%", "nats": "2", "milliseconds": "5", "count": "10M"}[quantity.unit]
    sign = "<=" if better == "lower" else ">="
    return [
        ("is", "what trials can be judged by" + ("" if quantity.of_neighbours else ", in transfer and scratch")),
        ("means", f"{quantity.about}; {better} is better"),
        ("metric", f"{quantity.metric} (in {quantity.unit})"),
        ("optimize it", f"--objective {quantity.name}"),
        ("limit it", f"--constraint '{quantity.metric.removeprefix('val_')} {sign} {limit}'"),
    ]
