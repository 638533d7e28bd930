"""The root command, which imports the others when they are called, so that ``--help`` stays quick."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from carcls.errors import nearest

_EPILOG = """\b
Examples:
  carsweep run transfer                        the embedded demo cars
  carsweep run transfer --data stanford_cars   a real data set
  carsweep run all                             all three families, as one job
  carsweep run transfer --dry-run --trials 50  what it would take
  carsweep status                              the status of the latest one
  carsweep resume NAME --trials +20            go on, or extend a sweep
  carsweep reproduce --data stanford_cars      the documented experiments
  carsweep compare                             sweeps side by side
  carsweep promote transfer                    the challenger is champion
  carsweep ui                                  look at the runs in MLflow

Exit codes: 0 done, 1 no model was registered (or promoted), 2 a mistake in the input, 130 interrupted."""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group whose commands live in other modules.

    Args:
        commands_at: command name to (``module:attribute``, one line of help).
        arguments, options: as click.Group takes them.
    """

    def __init__(self, *arguments: Any, commands_at: dict[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order in which they were given."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that is misspelt is answered with the nearest."""
        name = args[0]
        if name not in self.commands_at and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{nearest(name, self.commands_at)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from their one-line helps, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.commands_at.items()])


@click.group(
    "carsweep",
    cls=LazyGroup,
    commands_at={
        "run": ("sweeps.cli.run:run", "Run a sweep."),
        "resume": ("sweeps.cli.run:resume", "Go on with a sweep, with more trials or other settings."),
        "stop": ("sweeps.cli.folder:stop", "Stop a running sweep so that it can go on later."),
        "status": ("sweeps.cli.folder:status", "Show the status of a sweep."),
        "runs": ("sweeps.cli.folder:runs", "List the sweeps of a folder."),
        "reproduce": ("sweeps.cli.run:reproduce", "Run the documented experiments; compare with their numbers."),
        "compare": ("sweeps.cli.compare:compare", "Show sweeps side by side."),
        "promote": ("sweeps.cli.tracking:promote", "Make a family's challenger its champion, if it holds up."),
        "stages": ("sweeps.cli.stages:stages", "List what trials share, and what that saved."),
        "gc": ("sweeps.cli.stages:gc", "Remove stages that no sweep needs any more."),
        "list": ("sweeps.cli.listing:listing", "List backbones, experiments or specs."),
        "delete": ("sweeps.cli.folder:delete", "Remove a sweep, with its runs in MLflow."),
        "tracking": ("sweeps.cli.tracking:tracking", "Keep MLflow in line with the sweeps."),
        "ui": ("sweeps.cli.tracking:ui", "Open MLflow's pages on the runs."),
    },
    context_settings=_SETTINGS,
    epilog=_EPILOG,
    no_args_is_help=True,
)
@click.version_option(package_name="carsweep", message="carsweep %(version)s")
def carsweep() -> None:
    """Hyperparameter sweeps for fine-grained image recognition.

    Ray Tune runs them, Optuna searches, MLflow remembers.
    """
