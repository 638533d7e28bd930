"""The root command."""

from __future__ import annotations

import click

from sweeps.cli.lazy import LazyGroup

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


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"carsweep {version('carsweep')}")
        ctx.exit()


@click.group(
    "carsweep",
    cls=LazyGroup,
    commands_at={
        "run": ("sweeps.cli.run:run", "Run a sweep."),
        "resume": ("sweeps.cli.resume:resume", "Go on with a sweep, with more trials or other settings."),
        "stop": ("sweeps.cli.stop:stop", "Stop a running sweep so that it can go on later."),
        "status": ("sweeps.cli.status:status", "Show the status of a sweep."),
        "runs": ("sweeps.cli.runs:runs", "List the sweeps of a folder."),
        "reproduce": ("sweeps.cli.reproduce:reproduce", "Run the documented experiments; compare with their numbers."),
        "compare": ("sweeps.cli.compare:compare", "Show sweeps side by side."),
        "promote": ("sweeps.cli.promote:promote", "Make a family's challenger its champion, if it holds up."),
        "submit": ("sweeps.cli.submit:submit", "Run a sweep as a job on a Ray cluster."),
        "stages": ("sweeps.cli.stages:stages", "List what trials share, and what that saved."),
        "gc": ("sweeps.cli.gc:gc", "Remove stages that no sweep needs any more."),
        "list": ("sweeps.cli.listing:listing", "List backbones, experiments or specs."),
        "delete": ("sweeps.cli.delete:delete", "Remove a sweep, with its runs in MLflow."),
        "tracking": ("sweeps.cli.tracking:tracking", "Keep MLflow in line with the sweeps."),
        "ui": ("sweeps.cli.ui:ui", "Open MLflow's pages on the runs."),
    },
    context_settings=_SETTINGS,
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
