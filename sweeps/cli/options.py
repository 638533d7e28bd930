"""The options of commands, each declared once, and a ``--set`` that takes several words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from carcls.catalog import FAMILIES
from carcls.errors import nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


class Names(click.Choice[str]):
    """A choice that answers a misspelt name as all of carsweep does."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Name the nearest; click has named all."""
        meant = nearest(str(value), map(str, self.choices)).partition(" Known:")[0]
        return super().get_invalid_choice_message(value, ctx).rstrip(".") + (f".{meant}" if meant else ".")


class Known(click.ParamType[str]):
    """Words of any form, of which a shell completes those that ``carsweep`` knows (see ``sweeps.cli.completing``).

    Args:
        kind: ``sweep``, ``setting`` (KEY=VALUE), ``key`` (of ``carsweep explain``) or ``experiment``.
    """

    name = "text"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:  # noqa: ARG002 - click's
        """Return the known words that begin with what is there."""
        from sweeps.cli.completing import complete

        return complete(self.kind, ctx, incomplete)


SWEEP, SETTING = Known("sweep"), Known("setting")
FAMILY = Names([*FAMILIES])


class SettingsCommand(click.Command):
    """A command whose ``--set`` takes all KEY=VALUE words that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--set`` before each of its words, then parse as click does; say what a stray word may have meant."""
        try:
            return super().parse_args(ctx, repeat_set(args))
        except click.UsageError as error:
            stray = re.match(r"Got unexpected extra arguments? \((\S+?)[\s)]", error.message)
            if stray and stray[1].endswith((".yaml", ".yml")):
                remedy = f". A spec is given by --spec {stray[1]}."
            elif stray and "--set" in args:
                remedy = ". Settings are KEY=VALUE, such as --set dropout=0.3."
            else:
                raise
            raise click.UsageError(error.message + remedy, ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete what may follow the words of a ``--set`` as well."""
        more = SETTING.shell_complete(ctx, self.params[0], incomplete) if ctx.params.get("sets") else []
        return [*more, *super().shell_complete(ctx, incomplete)]


def repeat_set(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--set`` before each KEY=VALUE word of a run that begins with it.

    >>> repeat_set(["--set", "a=1", "b=2", "--json"])
    ['--set', 'a=1', '--set', 'b=2', '--json']
    """
    repeated: list[str] = []
    inside = False
    for before, word in zip(["", *arguments], arguments, strict=False):
        is_option = word.startswith("-")
        inside = before == "--set" or word.partition("=")[0] == "--set" or (inside and not is_option)
        if inside and before != "--set" and "=" in word and not is_option:
            repeated.append("--set")
        repeated.append(word)
    return repeated


def _listed(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[str] | None:
    """Return what a repeatable option was given, parted at commas; None says nothing."""
    return [part.strip() for text in texts for part in text.split(",")] if texts else None


def _at_home(_: click.Context, __: click.Parameter, path: Path) -> Path:
    return path.expanduser()


class _NumberOrAuto(click.ParamType[float | str]):
    """A number, or ``auto``, which the spec takes for what the machine decides."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return what was given, read."""
        try:
            return value if value == "auto" else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number such as 0.25.", param, ctx)


_PATH = click.Path(path_type=Path)
_MANY = {"multiple": True, "callback": _listed}
_LIMITS = "What a trial must keep to win: 'predict_ms <= 5', 'parameters <= 10M'; repeatable."
_OBJECTIVES = "What to optimize: accuracy, f1, top5, loss, predict_time, parameters. The first decides the winner."
_OPTIONS: dict[str, dict[str, Any]] = {
    "spec": {"metavar": "FILE", "type": _PATH, "help": "YAML with the whole sweep."},
    "no-spec": {"hidden": True},
    "data": {
        "metavar": "PATH",
        "type": click.Path(),
        "help": "Data set: a folder, a table of images, or an archive. Default: demo cars.",
    },
    "images": {
        "metavar": "FOLDER",
        "type": click.Path(file_okay=False),
        "help": "Where the paths of a table given as --data begin. Default: beside it.",
    },
    "set": {
        "metavar": "KEY=VALUE …",
        "type": SETTING,
        "multiple": True,
        "help": "Fix a setting; repeatable, several at once.",
    },
    "trials": {"type": int, "help": "How many trials, the documented experiments included."},
    "hours": {"metavar": "H", "help": "Start no trial after this long: hours, or 90m, 1h30m."},
    "epochs-budget": {"type": int, "help": "Start no trial once all trials together have trained this many epochs."},
    "price": {"metavar": "PRICE", "help": "What an hour costs: 2.5/gpu-hour, 0.05/cpu-hour or 3/hour."},
    "max-cost": {"type": float, "help": "Start no trial that would cost more than this; needs --price."},
    "disk": {"metavar": "SIZE", "help": "Room for all cached stages under OUT, such as 20GB; less needed ones go."},
    "cpus-per-trial": {"type": float, "help": "CPU cores for each trial."},
    "gpus-per-trial": {
        "metavar": "X|auto",
        "type": _NumberOrAuto(),
        "help": "GPUs for each trial: 0, 1, 2, …, 0.5, 0.25, … or auto (default): as many share one as measured.",
    },
    "concurrency": {"type": int, "help": "Trials at the same time. Default: what fits."},
    "confirm": {
        "metavar": "NxM",
        "help": "Run the N best trials again with M fresh seeds each; these choose the winner.",
    },
    "refit": {"is_flag": True, "default": None, "help": "Train the winner again, on training and validation images."},
    "name": {"help": "Name of the sweep or job; an existing name goes on with that one."},
    "model-name": {"metavar": "MODEL", "help": "Register the winner as this. Default: by family and data."},
    "out": {"type": _PATH, "callback": _at_home, "default": "runs", "show_default": True, "help": "Folder of runs."},
    "tracking-uri": {"metavar": "URI", "help": "MLflow store or server. Default: OUT/mlflow.db."},
    "known-tracking-uri": {"metavar": "URI", "help": "MLflow store or server. Default: the one it was run with."},
    "model": {
        "metavar": "NAME",
        "help": "A family, NAME@alias, NAME/VERSION, or the folder of an exported model.",
    },
    "seed": {"type": int, "help": "Seed of the search and of every trial."},
    "weights": {"metavar": "auto|random|PATH", "help": "Pretrained weights; PATH is a file or a folder."},
    "objective": {"metavar": "NAME[,NAME …]", **_MANY, "help": _OBJECTIVES},
    "constraint": {"metavar": "LIMIT", **_MANY, "help": _LIMITS},
    "dry-run": {"is_flag": True, "help": "Make the checks of a run, print the plan and stop."},
    "print-spec": {"is_flag": True, "help": "Print the whole spec as YAML, and stop."},
    "read": {"is_flag": True, "help": "With --dry-run: read the images first, for exact counts."},
    "address": {"metavar": "ADDRESS", "help": "Run on the Ray cluster at this address. Default: this machine."},
    "notify": {
        "metavar": "URL",
        "help": "POST one JSON there at the end, a stop, a failure. Default: $CARSWEEP_NOTIFY.",
    },
}
# Those that are declared otherwise than by their own names.
_DECLARED = {
    "spec": ("--spec", "spec_file"),
    "no-spec": ("--spec", "spec_file"),
    "set": ("--set", "sets"),
    "objective": ("--objective", "objectives"),
    "constraint": ("--constraint", "constraints"),
    "known-tracking-uri": ("--tracking-uri",),
}
# Those of every command that runs a search; of one family it has --spec besides.
OF_A_RUN = tuple(name for name in _OPTIONS if name not in ("spec", "no-spec", "known-tracking-uri", "model"))


def option_of(setting: str) -> str:
    """Return the option of ``carsweep run`` that gives a setting; empty where there is none.

    >>> option_of("objectives"), option_of("cpus_per_trial"), option_of("near")
    ('--objective', '--cpus-per-trial', '')
    """
    own = {_DECLARED.get(name, (name,))[-1].replace("-", "_"): f"--{name}" for name in OF_A_RUN}
    return {"data.path": "--data", "data.images": "--images"}.get(setting) or own.get(setting, "")


def options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of these names, in their order."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = click.option(*_DECLARED.get(name, (f"--{name}",)), **_OPTIONS[name])(command)
        return command

    return add
