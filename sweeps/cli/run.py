"""``carsweep run``: one command a family, and one for all."""

from __future__ import annotations

import click

from sweeps.cli.lazy import LazyGroup


@click.group(
    "run",
    cls=LazyGroup,
    commands_at={
        "transfer": ("sweeps.cli.family:transfer", "Pretrained backbone, new head, optional unfreezing."),
        "retrieval": ("sweeps.cli.family:retrieval", "Embeddings; the nearest training images vote."),
        "scratch": ("sweeps.cli.family:scratch", "A network trained from nothing."),
        "all": ("sweeps.cli.run_all:run_all", "All three, as one job with one budget and one comparison."),
    },
    no_args_is_help=True,
)
def run() -> None:
    """Run a sweep of one family of trials, or of all."""
