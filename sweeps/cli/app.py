"""The root command, which imports the others when they are called, so that ``--help`` stays quick."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_EPILOG = """\b
Examples:
  carsweep run transfer                        the embedded demo cars
  carsweep run transfer --data stanford_cars   a real data set
  carsweep data stanford_cars                  its audit, before you trust it
  carsweep run all                             all families, as one job
  carsweep run transfer --dry-run --trials 50  its plan, and an estimate
  carsweep explain dropout                     all about a setting
  carsweep status                              the status of the latest one
  carsweep resume NAME --trials +20            go on, or extend a sweep
  carsweep predict photos/                     what the winner says of them
  carsweep reproduce --data stanford_cars      the documented experiments
  carsweep report NAME                         one page that shows all of it
  carsweep compare                             sweeps side by side
  carsweep promote transfer                    the challenger is champion
  carsweep ui                                  look at the runs in MLflow

Exit codes: 0 done, 1 no model was registered (or promoted), 2 a mistake in the input, 130 interrupted."""


# name: where it is, and one line of help
_COMMANDS = {
    "data": ("data:data", "Look at a data set before a sweep does: classes, copies, wrong labels."),
    "run": ("run:run", "Run a sweep."),
    "resume": ("run:resume", "Go on with a sweep, with more trials or other settings."),
    "stop": ("stop:stop", "Stop a running sweep so that it can go on later."),
    "finish": ("run:finish", "End a sweep now: register the best so far."),
    "status": ("folder:status", "Show the status of a sweep."),
    "runs": ("folder:runs", "List the sweeps of a folder."),
    "reproduce": ("run:reproduce", "Run the documented experiments; compare with their numbers."),
    "report": ("report:report", "Write a page that shows what sweeps found."),
    "compare": ("folder:compare", "Show sweeps side by side."),
    "diff": ("folder:diff", "Show what two sweeps have otherwise, and what came of them."),
    "predict": ("predict:predict", "Say of which class images are."),
    "similar": ("similar:similar", "Show the training images nearest to an image."),
    "export": ("export:export", "Write a model for another runtime, such as ONNX."),
    "promote": ("promotion:promote", "Make a family's challenger its champion, if it holds up."),
    "history": ("promotion:history", "List every move of a family's champion."),
    "rollback": ("promotion:rollback", "Make the champion before champion again."),
    "gc": ("removal:gc", "Remove cached stages that no sweep needs any more."),
    "list": ("listing:listing", "List settings, backbones, experiments or specs."),
    "explain": ("explain:explain", "Tell all about a setting, an experiment or an objective."),
    "completion": ("completing:completion", "Print the script that lets a shell complete words."),
    "delete": ("removal:delete", "Remove a sweep, with its runs in MLflow."),
    "tracking": ("tracking:tracking", "Keep MLflow in line with the sweeps."),
    "serve": ("serve:serve", "Serve models on a page and by HTTP."),
    "ui": ("ui:ui", "Open MLflow's pages on a sweep."),
}


class LazyGroup(click.Group):
    """A group whose commands live in other modules, which are imported when a command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order in which they were given."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        if cmd_name not in self.commands:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"sweeps.cli.{module}"), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what an unset variable of the shell leaves, which would mean this folder, or that nothing was said."""
        for before, word in zip(["carsweep", *args], args, strict=False):
            is_unset = word.startswith("--") and word.find("=") == len(word) - 1
            if (is_unset or not word) and not ctx.resilient_parsing:
                place = word.rstrip("=") or before
                raise click.UsageError(f"Empty argument after {place!r}. Is a variable of the shell unset?", ctx)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands and options, importing no command."""
        from click.shell_completion import CompletionItem

        names = ((name, command.short_help) for name, command in self.commands.items() if name.startswith(incomplete))
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [*(CompletionItem(name, help=text) for name, text in names), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from their one-line helps, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, str(command.short_help)) for name, command in self.commands.items()])


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the version that is installed; a checkout need not be."""
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        number = "of a checkout that is not installed"
        with suppress(PackageNotFoundError):
            number = version("carsweep")
        click.echo(f"carsweep {number}")
        ctx.exit()


@click.group(
    "carsweep",
    cls=LazyGroup,
    commands={name: click.Command(name, short_help=text) for name, (_, text) in _COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def carsweep() -> None:
    """Hyperparameter sweeps for fine-grained image recognition.

    Ray Tune runs them, Optuna searches, MLflow remembers.
    """
