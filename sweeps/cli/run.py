"""``carsweep run``: one command a family."""

from __future__ import annotations

import click

from sweeps.cli.lazy import LazyGroup


@click.group(
    "run",
    cls=LazyGroup,
    commands_at={"transfer": ("sweeps.cli.transfer:transfer", "Pretrained backbone, new head, optional unfreezing.")},
    no_args_is_help=True,
)
def run() -> None:
    """Run a sweep of one family of trials."""
