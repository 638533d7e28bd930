"""``carsweep run``: one command a family, and one for all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from sweeps.cli.execute import carry_out
from sweeps.cli.options import OF_A_RUN, SettingsCommand, options

if TYPE_CHECKING:
    from sweeps.run.command import Command

_EPILOG = """\b
Examples:
  carsweep run {family}
  carsweep run {family} --data stanford_cars --trials 30 --hours 8
  carsweep run {family} --set {example}
  carsweep run {family} --spec my.yaml --dry-run

Each setting of a trial, of the data and of the search can be set with --set; docs/cli.md has the list."""
_EPILOG_OF_ALL = """\b
Examples:
  carsweep run all
  carsweep run all --data stanford_cars --trials 60 --hours 24
  carsweep run all --data stanford_cars --set epochs=5 image_size=128

A setting reaches the families that it means something in: backbone never reaches scratch, k only retrieval."""
_FAMILIES = {
    "transfer": (
        "transfer learning: a pretrained backbone, a new head, optional unfreezing",
        "backbone=efficientnet_lite0 image_size=128",
    ),
    "retrieval": (
        "retrieval: embeddings of an extractor, and the vote of the nearest training images",
        "backbone=efficientnet_lite0 whitening=lda",
    ),
    "scratch": (
        "networks trained from scratch: depth, width, normalisation, loss, augmentation",
        "image_size=128 epochs=20",
    ),
}
# Options that say nothing of what is swept over.
_ASIDE = ("spec_file", "sets", "name", "out", "tracking_uri", "address", "dry_run", "read", "as_json")


class _InOrder(click.Group):
    """A group that lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return their names."""
        return list(self.commands)


@click.group("run", cls=_InOrder, no_args_is_help=True)
def run() -> None:
    """Run a sweep of one family of trials, or of all."""


def command_of(what: str, given: Mapping[str, Any]) -> Command:
    """Return what the options of ``carsweep run WHAT`` ask for.

    Raises:
        SpecError: they make no sweep; all mistakes together.
    """
    from sweeps.run.command import Command

    overrides = {option: value for option, value in given.items() if option not in _ASIDE and value is not None}
    name, sets = given["name"], given["sets"]
    if what == "all":
        if given["spec_file"] is not None:
            raise click.UsageError("--spec is of one family: use carsweep run FAMILY --spec, or --set here.")
        from sweeps.run.command import specs_of_all

        name, trials = name or default_name(what), overrides.pop("trials", None)
        specs = specs_of_all(name=name, sets=sets, overrides=overrides, trials=trials)
    else:
        from sweeps.spec.loading import load_spec

        spec = load_spec(what, spec_file=given["spec_file"], sets=sets, overrides={**overrides, "name": name})
        name = spec.name or default_name(what)
        specs = (spec.model_copy(update={"name": name}),)
    return Command(
        "all" if what == "all" else "sweep",
        name,
        specs,
        given["tracking_uri"],
        out=given["out"],
        address=given["address"],
    )


def default_name(what: str) -> str:
    """Return the name of a sweep or job that was given none: what it is, and when it began."""
    return f"{what}-{time.strftime('%Y%m%d-%H%M%S')}"


def _command(what: str, about: str, short: str, epilog: str) -> click.Command:
    @run.command(what, cls=SettingsCommand, help=about, short_help=short, epilog=epilog)
    @options(*OF_A_RUN)
    def command(dry_run: bool, read: bool, as_json: bool, **given: Any) -> int:
        return carry_out(command_of(what, given), dry_run=dry_run, read=read, as_json=as_json)

    return command


for family, (about, example) in _FAMILIES.items():
    _command(
        family,
        f"Sweep over {about}.\n\nThe documented experiments are the first trials; Optuna searches around them. The "
        "best trial on the validation images is read once on the test images and registered in MLflow.",
        f"{about[0].upper()}{about[1:]}.",
        _EPILOG.format(family=family, example=example),
    )
_command(
    "all",
    "Sweep over all three families as one job.\n\nThey share data, stages and one budget: --trials and --hours are for "
    "all together. Retrieval begins with the network that won the transfer family. Three models are registered, and "
    "their winners are compared.",
    "All three, as one job with one budget and one comparison.",
    _EPILOG_OF_ALL,
)
