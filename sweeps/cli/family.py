"""``carsweep run FAMILY``: one command, made for each family."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sweeps.cli.exits import DONE, FAILED, INTERRUPTED
from sweeps.cli.output import kept_in
from sweeps.cli.streams import Streams, callable_name
from sweeps.interrupts import last_words

if TYPE_CHECKING:
    from sweeps.plan import Plan
    from sweeps.spec import SweepSpec

_EPILOG = """\b
Examples:
  carsweep run {family}
  carsweep run {family} --data stanford_cars --trials 30 --hours 8
  carsweep run {family} --set {example}
  carsweep run {family} --spec my.yaml --dry-run

Each setting of a trial, of the data and of the search can be set with --set; docs/cli.md has the list."""


class SettingsCommand(click.Command):
    """A command whose ``--set`` takes all KEY=VALUE words that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--set`` before each of its words, then parse as click does."""
        try:
            return super().parse_args(ctx, repeat_set(args))
        except click.UsageError as error:
            remedy = _remedy(error.message, args)
            if not remedy:
                raise
            raise click.UsageError(error.message + remedy, ctx) from None


def _remedy(message: str, words: list[str]) -> str:
    """Return what was probably meant by a word that belongs to no option."""
    stray = re.fullmatch(r"Got unexpected extra arguments? \((\S+).*\)\.?", message)
    if stray is None:
        return ""
    if stray[1].endswith((".yaml", ".yml")):
        return f". A spec is given by --spec {stray[1]}."
    return ". Settings are KEY=VALUE, such as --set dropout=0.3." if "--set" in words else ""


def repeat_set(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--set`` before each KEY=VALUE word of a run that begins with it.

    >>> repeat_set(["--set", "a=1", "b=2", "--json"])
    ['--set', 'a=1', '--set', 'b=2', '--json']
    """
    repeated: list[str] = []
    inside = False
    for position, word in enumerate(arguments):
        first = position > 0 and arguments[position - 1] == "--set"
        if word == "--set" or word.startswith("--set="):
            inside = True
        elif word.startswith("-"):
            inside = first
        elif inside and not first and "=" in word:
            repeated.append("--set")
        repeated.append(word)
    return repeated


Command = TypeVar("Command", bound=Callable[..., Any])


def run_options(command: Command) -> Command:
    """Add the options of every command that runs trials."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _listed(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[str] | None:
    """Return what a repeatable option was given, parted at commas; None says nothing."""
    return [part.strip() for text in texts for part in text.split(",")] if texts else None


_SPEC_OPTION = click.option(
    "--spec", "spec_file", metavar="FILE", type=click.Path(path_type=Path), help="YAML with the whole sweep."
)
READ_OPTION = click.option("--read", is_flag=True, help="With --dry-run: read the images first, for exact counts.")
_OPTIONS = (
    click.option(
        "--data", metavar="PATH", help="Data set: Stanford Cars' devkit, or class folders. Default: demo cars."
    ),
    click.option(
        "--set", "sets", metavar="KEY=VALUE …", multiple=True, help="Fix a setting; repeatable, several at once."
    ),
    click.option("--trials", type=int, help="How many trials, the documented experiments included."),
    click.option("--hours", type=float, help="Start no trial after this many hours."),
    click.option(
        "--epochs-budget", type=int, help="Start no trial once all trials together have trained this many epochs."
    ),
    click.option("--price", metavar="PRICE", help="What an hour costs: 2.5/gpu-hour, 0.05/cpu-hour or 3/hour."),
    click.option("--max-cost", type=float, help="Start no trial that would cost more than this; needs --price."),
    click.option("--disk", metavar="SIZE", help="Room for all stages under OUT, such as 20GB; less needed ones go."),
    click.option("--cpus-per-trial", type=float, help="CPU cores for each trial."),
    click.option("--gpus-per-trial", type=float, help="GPUs for each trial: 0, 1 or 1/n (0.5, 0.25)."),
    click.option("--concurrency", type=int, help="Trials at the same time. Default: what fits."),
    click.option(
        "--confirm", metavar="NxM", help="Run the N best trials again with M fresh seeds each; these choose the winner."
    ),
    click.option(
        "--refit", is_flag=True, default=None, help="Train the winner once more, on training and validation images."
    ),
    click.option("--name", help="Name of the sweep; an existing name goes on with that sweep."),
    click.option(
        "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs."
    ),
    click.option("--tracking-uri", metavar="URI", help="MLflow store or server. Default: OUT/mlflow.db."),
    click.option("--seed", type=int, help="Seed of the search and of every trial."),
    click.option("--weights", metavar="auto|random|PATH", help="Pretrained weights; PATH is a file or a folder."),
    click.option(
        "--objective",
        "objectives",
        metavar="NAME[,NAME …]",
        multiple=True,
        callback=_listed,
        help="What to optimize: accuracy, f1, top5, loss, predict_time, parameters. The first decides the winner.",
    ),
    click.option(
        "--constraint",
        "constraints",
        metavar="LIMIT",
        multiple=True,
        callback=_listed,
        help="What a trial must keep to win: 'predict_ms <= 5', 'parameters <= 10M'; repeatable.",
    ),
    click.option("--dry-run", is_flag=True, help="Make the checks of a run, print the plan and stop."),
    READ_OPTION,
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object; everything else goes to stderr."),
    click.option("--address", metavar="ADDRESS", help="Run on the Ray cluster at this address. Default: this machine."),
)


def family_command(family: str, about: str, example: str) -> click.Command:
    """Return the command that sweeps over one family.

    Args:
        family: its name.
        about: what its trials are, completing "Sweep over …".
        example: settings for the examples in its help.
    """

    @click.command(family, cls=SettingsCommand, epilog=_EPILOG.format(family=family, example=example))
    @_SPEC_OPTION
    @run_options
    def command(
        data: str | None,
        spec_file: Path | None,
        sets: tuple[str, ...],
        out: Path,
        tracking_uri: str | None,
        dry_run: bool,
        read: bool,
        as_json: bool,
        address: str | None,
        **numbers: Any,
    ) -> int:
        from sweeps.spec_loading import load_spec

        require_dry_run(read, dry_run)
        spec = load_spec(family, spec_file=spec_file, sets=sets, overrides=_given({"data": data, **numbers}))
        with Streams(as_json) as streams:
            if dry_run:
                return _print_plan(spec, out, tracking_uri, address, streams, read=read)
            return run_one(spec, out, tracking_uri, address, streams)

    command.help = (
        f"Sweep over {about}.\n\nThe documented experiments are the first trials; Optuna searches around them. The "
        "best trial on the validation images is read once on the test images and registered in MLflow."
    )
    return command


transfer = family_command(
    "transfer",
    "transfer learning: a pretrained backbone, a new head, optional unfreezing",
    "backbone=efficientnet_lite0 image_size=128",
)
retrieval = family_command(
    "retrieval",
    "retrieval: embeddings of an extractor, and the vote of the nearest training images",
    "backbone=efficientnet_lite0 whitening=lda",
)
scratch = family_command(
    "scratch",
    "networks trained from nothing: depth, width, normalisation, loss, augmentation",
    "image_size=128 epochs=20",
)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def require_dry_run(read: bool, dry_run: bool) -> None:
    """Check that ``--read`` is said of a plan: a run reads its images anyway."""
    if read and not dry_run:
        raise click.UsageError("--read goes with --dry-run; a run reads the images anyway.")


def make_plans(
    specs: Sequence[SweepSpec],
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    *,
    read: bool,
) -> list[Plan]:
    """Return the plan of each sweep; arguments as ``plan_sweep``."""
    from sweeps.job import plan_sweep

    if not read:
        return [plan_sweep(spec, out, tracking_uri, address=address) for spec in specs]
    from sweeps.cli.view import open_view

    plans = []
    for spec in specs:
        with open_view(spec, streams.progress) as view:
            plans.append(plan_sweep(spec, out, tracking_uri, address=address, reading=view))
    return plans


def _print_plan(
    spec: SweepSpec, out: Path, tracking_uri: str | None, address: str | None, streams: Streams, *, read: bool
) -> int:
    from sweeps.job import settle_spec

    (plan,) = make_plans([settle_spec(spec)], out, tracking_uri, address, streams, read=read)
    if streams.as_json:
        streams.write_json(plan.to_dict())
    else:
        click.echo("\n".join(plan.lines()))
    return DONE


def run_one(
    spec: SweepSpec,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    streams: Streams,
    edits: Sequence[str] | None = None,
) -> int:
    """Run a sweep, show what comes of it, and return the exit code; arguments as ``run_sweep``."""
    from sweeps.cli.summary import print_result
    from sweeps.cli.view import open_view
    from sweeps.job import run_sweep, settle_spec

    spec = settle_spec(spec)
    try:
        with last_words(partial(tell_how_to_go_on, str(spec.name), out)), open_view(spec, streams.progress) as view:
            result = run_sweep(spec, out, tracking_uri, watcher=view, address=address, edits=edits)
    except KeyboardInterrupt:
        if streams.as_json:
            streams.write_json({"error": "interrupted"})
        return tell_how_to_go_on(str(spec.name), out)
    with kept_in(out / str(spec.name), resume_command(str(spec.name), out)):
        if streams.as_json:
            streams.write_json(result.as_dict())
        print_result(streams.progress if streams.as_json else streams.result, result)
    if result.interrupted:
        return tell_how_to_go_on(str(spec.name), out)
    return DONE if result.registered else FAILED


def tell_how_to_go_on(name: str, out: Path) -> int:
    """Tell a person who stopped a sweep how it goes on; return the exit code."""
    from sweeps.sweep_file import is_known

    if is_known(out / name):
        click.echo(f"Interrupted; everything so far is kept. To go on:\n  {resume_command(name, out)}", err=True)
    else:
        click.echo("Interrupted before the first trial. To begin: the same command again.", err=True)
    return INTERRUPTED


def resume_command(name: str, out: Path) -> str:
    """Return the command line that goes on with a sweep or a job.

    >>> resume_command("mine", Path("runs")).partition("carsweep")[2]
    ' resume mine'
    """
    place = [] if out == Path("runs") else ["--out", str(out)]
    return shlex.join([callable_name("carsweep"), "resume", name, *place])
