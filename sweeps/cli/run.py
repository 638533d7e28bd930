"""Commands that run sweeps: of one family or of all, the rest of one, and documented experiments."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carcls.catalog import FAMILIES
from carcls.errors import InputError
from sweeps.cli.exits import DONE, FAILED, INTERRUPTED, echo, kept_in
from sweeps.cli.options import FAMILY, OF_A_RUN, SETTING, SWEEP, Known, SettingsCommand, options
from sweeps.cli.output import Streams, Verbatim, answering, resume_command
from sweeps.interrupts import last_words
from sweeps.text import plural, rough_duration

if TYPE_CHECKING:
    from sweeps.run.command import Command
    from sweeps.run.plan import Plan
    from sweeps.spec.sweep_file import Kind

# Stands for the name that a sweep gets when it begins, which depends on the time.
_NO_NAME = "unnamed"
# So long whoever runs it has to close it.
_WAIT_SECONDS = 120.0
_RUN_EPILOG = """\b
Examples:
  carsweep run {family}
  carsweep run {family} --data stanford_cars --trials 30 --hours 8
  carsweep run {family} --set {example}
  carsweep run {family} --print-spec > my.yaml
  carsweep run {family} --spec my.yaml --dry-run

Whatever --set can set: carsweep list settings {family}. All about one: carsweep explain dropout"""
_ALL_EPILOG = """\b
Examples:
  carsweep run all
  carsweep run all --data stanford_cars --trials 60 --hours 24
  carsweep run all --data stanford_cars --set epochs=5 image_size=128

A setting reaches the families that it means something in: backbone never reaches scratch, k only retrieval."""
_RESUME_EPILOG = """\b
Examples:
  carsweep resume cars                                after Ctrl-C, or a crash
  carsweep resume cars --trials +20 --hours +2        more of the same
  carsweep resume cars --set search.dropout.high=0.8   a wider search
  carsweep resume cars --set early_stopping.enabled=false --concurrency 1"""
_REPRODUCE_EPILOG = """\b
Examples:
  carsweep reproduce --data stanford_cars
  carsweep reproduce retrieval/resnet50-k10-euclidean --data stanford_cars
  carsweep reproduce --family transfer --data stanford_cars --set epochs=5
  carsweep reproduce              all nine, scaled down, on the demo cars"""


def carry_out(command: Command, streams: Streams, *, dry_run: bool = False, read: bool = False) -> int:
    """Plan or run a command, show what comes of it, and return the exit code."""
    if read and not dry_run:
        raise click.UsageError("--read goes with --dry-run; a run reads the images anyway.")
    if dry_run:
        return _plan(command, streams, read=read)
    from sweeps.cli.summary import print_outcome
    from sweeps.cli.view import open_view
    from sweeps.run.several import run_sweeps

    again = resume_command(command.name, command.out, finish=not command.runs_trials)
    outcome, interrupted = None, partial(_interrupted, command.out / command.name, again)
    with suppress(KeyboardInterrupt), last_words(interrupted):
        view = partial(open_view, console=streams.progress, stages=command.root / "stages")
        outcome = run_sweeps(command, view, streams.notify)
    if outcome is None:
        streams.answer({"error": "interrupted"})
        return interrupted()
    with kept_in(command.out / command.name, again):
        streams.answer(outcome.as_dict())
        print_outcome(streams.result, command.out, outcome)
    return interrupted() if outcome.interrupted else DONE if outcome.is_whole else FAILED


def _plan(command: Command, streams: Streams, *, read: bool) -> int:
    from sweeps.cli.view import open_view
    from sweeps.run.several import plan_sweeps

    view = partial(open_view, console=streams.progress) if read else None
    plans = plan_sweeps(command, view, streams.notify)
    parts = ["\n".join(plan.lines(streams.result.width)) for plan in plans]
    value = plans[0].to_dict()
    if command.is_job:
        parts.append(_all_together(plans))
        value = {"plans": [plan.to_dict() for plan in plans], "seconds": round(sum(plan.seconds for plan in plans))}
    streams.answer(value, "\n\n".join(parts))
    return DONE


def _all_together(plans: list[Plan]) -> str:
    counts = ", ".join(f"{plan.spec.trials} {plan.spec.family}" for plan in plans)
    total, seconds = sum(plan.spec.trials for plan in plans), sum(plan.seconds for plan in plans)
    line = f"All together: {plural(total, 'trial')} ({counts}), at most about {rough_duration(seconds)}."
    for family in (plan.spec.family for plan in plans if plan.spec.search and FAMILIES[plan.spec.family].neighbours):
        line += f" {family.title()}'s first searched trial has the training settings that won transfer."
    return line


def _interrupted(folder: Path, again: str) -> int:
    """Tell a person who stopped a sweep how it goes on; return the exit code."""
    from sweeps.spec.sweep_file import is_known

    if is_known(folder):
        echo(f"Interrupted; everything so far is kept. To go on:\n  {again}", err=True)
    else:
        echo("Interrupted before the first trial. To begin: the same command again.", err=True)
    return INTERRUPTED


@click.group("run", no_args_is_help=True)
def run() -> None:
    """Run a sweep of one family of trials, or of all."""


def _command_of(
    what: str,
    *,
    spec_file: Path | None,
    sets: Sequence[str],
    name: str | None,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    notify: str | None,
    unnamed: str = "",
    **swept: Any,
) -> Command:
    """Return what the options of ``carsweep run WHAT`` ask for; ``unnamed`` is its name where nobody gave one.

    Raises:
        SpecError: they make no sweep; all mistakes together.
    """
    from sweeps.run.command import Command, default_name, specs_of_all
    from sweeps.spec.loading import load_spec

    overrides = {option: value for option, value in swept.items() if value is not None}
    if what == "all":
        if spec_file is not None:
            raise click.UsageError("--spec is of one family: use carsweep run FAMILY --spec, or --set here.")
        name, trials = name or unnamed or default_name(what), overrides.pop("trials", None)
        specs = specs_of_all(name=name, sets=sets, overrides=overrides, trials=trials)
    else:
        spec = load_spec(what, spec_file=spec_file, sets=sets, overrides={**overrides, "name": name})
        name = spec.name or unnamed or default_name(what)
        specs = (spec.model_copy(update={"name": name}),)
    kind: Kind = "all" if what == "all" else "sweep"
    return Command(kind, name, specs, tracking_uri, out=out, address=address, notify=notify)


def _add(what: str, about: str, short: str, epilog: str) -> None:
    @run.command(what, cls=SettingsCommand, help=about, short_help=short, epilog=epilog)
    @options("no-spec" if what == "all" else "spec", *OF_A_RUN)
    @answering
    def _(streams: Streams, dry_run: bool, read: bool, print_spec: bool, **given: Any) -> int:
        if print_spec:
            return _print_specs(_command_of(what, unnamed=_NO_NAME, **given), streams)
        return carry_out(_command_of(what, **given), streams, dry_run=dry_run, read=read)


def _print_specs(command: Command, streams: Streams) -> int:
    """Print the whole specs of a command; that of a sweep can be given back with --spec."""
    is_named = command.name != _NO_NAME
    specs = [spec if is_named else spec.model_copy(update={"name": None}) for spec in command.specs]
    texts = [f"# carsweep run {spec.family} --spec FILE\n{spec.to_yaml()}" for spec in specs]
    streams.answer({"specs": [spec.to_tree() for spec in specs]}, Verbatim("---\n".join(texts).rstrip()))
    return DONE


for family, record in FAMILIES.items():
    _add(
        family,
        f"Sweep over {record.about}.\n\nThe documented experiments are the first trials; Optuna searches around them. "
        "The best trial on the validation images is evaluated once on the test set and registered in MLflow.",
        f"{record.about[0].upper()}{record.about[1:]}.",
        _RUN_EPILOG.format(family=family, example=record.example),
    )
_add(
    "all",
    "Sweep over all families as one job.\n\nThey share data, cached stages and one budget: --trials and --hours are "
    "for all together. Retrieval begins with the network that won the transfer family. A model of each is registered, "
    "and the winners are compared.",
    "All of them, as one job with one budget and one comparison.",
    _ALL_EPILOG,
)


@click.command("resume", cls=SettingsCommand, epilog=_RESUME_EPILOG)
@click.argument("name", type=SWEEP)
@click.option("--trials", metavar="N|+N", help="How many trials in all, or how many more.")
@click.option("--hours", metavar="H|+H", help="Start no trial after so long from now: 1.5, 90m, 1h30m.")
@click.option(
    "--set", "sets", type=SETTING, metavar="KEY=VALUE …", multiple=True, help="Change a setting, or search.X."
)
@click.option("--data", metavar="PATH", type=click.Path(), help="Where its images lie now, if they were moved.")
@options("images", "concurrency", "cpus-per-trial", "gpus-per-trial", "model-name", "out", "known-tracking-uri")
@options("address", "notify")
@click.option("--dry-run", is_flag=True, help="Print what would change, and stop.")
@answering
def resume(
    streams: Streams,
    name: str,
    trials: str | None,
    hours: str | None,
    sets: tuple[str, ...],
    data: str | None,
    images: str | None,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    notify: str | None,
    dry_run: bool,
    **resources: Any,
) -> int:
    """Go on with the sweep or job NAME, wherever it was stopped.

    Unfinished trials go on from their last epoch, and so do those that failed because the disk was full or their
    process or machine was lost; nothing that ended otherwise is run twice. A finished sweep can be extended, and its
    search changed: existing trials stay on the leaderboard, and the search learns from those inside the changed space.
    The images, the seed and the family stay what they were.
    """
    from sweeps.run.remembered import extended, recall

    known = replace(recall(out, name, tracking_uri), address=address, notify=notify)
    places = {"data.path": data, "data.images": images}
    sets = (*sets, *(f"{name}={Path(place).expanduser().absolute()}" for name, place in places.items() if place))
    command = extended(known, trials=trials, hours=hours, sets=sets, resources=resources)
    changes = command.changes or ()
    for change in changes:
        streams.notify(f"changed: {change}")
    if not dry_run:
        return carry_out(command, streams)
    unchanged = [] if changes else [f"{name} would go on as it is."]
    streams.answer({"name": name, "changes": list(changes)}, *unchanged)
    return DONE


@click.command("finish")
@click.argument("name", type=SWEEP)
@options("out", "known-tracking-uri")
@answering
def finish(streams: Streams, name: str, out: Path, tracking_uri: str | None) -> int:
    """End the sweep NAME now: test and register the best trial so far.

    A sweep that runs is stopped after the epochs that run, for which it has 20 seconds. No other trial is run; those
    that did not end are kept, and carsweep resume goes on with them. Exit codes as of carsweep run.
    """
    from sweeps.cli.stop import end_all
    from sweeps.results.leaderboard import Leaderboard
    from sweeps.run.remembered import recall, require_data
    from sweeps.study.records import read_history

    command = recall(out, name, tracking_uri)
    if command.is_job:
        sweeps = ", ".join(str(spec.name) for spec in command.specs)
        raise InputError(f"NAME must be of one sweep, got the job {name!r}. Finish each of its sweeps: {sweeps}.")
    folder, (spec,) = out / name, command.specs
    require_data(spec, command)
    if Leaderboard(tuple(read_history(folder).records), goals=spec.goals).best is None:
        raise InputError(
            f"NAME must have a trial that is complete and keeps the constraints, got {name!r} without one: there is "
            f"nothing to register. Let it run, or stop it: carsweep stop {name}."
        )
    if end_all(name, [folder], now=False, wait=_WAIT_SECONDS) is False:
        return FAILED
    return carry_out(replace(command, runs_trials=False), streams)


@click.command("reproduce", cls=SettingsCommand, epilog=_REPRODUCE_EPILOG)
@click.argument("experiments", type=Known("experiment"), metavar="[EXPERIMENT]…", nargs=-1)
@click.option("--family", type=FAMILY, help="Only this family's.")
@click.option("--scale", type=click.Choice(["documented", "demo"]), default="documented", help="How large they run.")
@options("data", "images", "set", "cpus-per-trial", "gpus-per-trial", "concurrency", "name", "out", "tracking-uri")
@options("seed", "weights", "address", "notify", "dry-run", "read")
@answering
def reproduce(
    streams: Streams,
    experiments: tuple[str, ...],
    family: str | None,
    scale: str,
    sets: tuple[str, ...],
    name: str | None,
    out: Path,
    tracking_uri: str | None,
    address: str | None,
    notify: str | None,
    dry_run: bool,
    read: bool,
    **given: Any,
) -> int:
    """Run documented experiments with their exact settings and compare with their documented numbers.

    All nine are run when none is named. Each is evaluated once on the test set; nothing is searched and nothing is
    registered. The tables are printed and written to OUT/NAME/reproduction.md and reproduction.json; they say whatever
    differs from the documentation.
    """
    from sweeps.run.command import Command, chosen_experiments, default_name, specs_of_experiments

    name = name or default_name("reproduce")
    specs = specs_of_experiments(
        chosen_experiments(experiments, family),
        name=name,
        sets=sets,
        overrides={option: value for option, value in given.items() if value is not None},
        demo_scale=scale == "demo",
    )
    command = Command("reproduce", name, specs, tracking_uri, out=out, address=address, notify=notify)
    return carry_out(command, streams, dry_run=dry_run, read=read)
