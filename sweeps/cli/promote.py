"""``carsweep promote``: a family's challenger becomes its champion, if it holds up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from carcls.config import Family
from carcls.errors import InputError, nearest
from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import options
from sweeps.cli.streams import Streams, say
from sweeps.cli.ui import store_of
from sweeps.text import percent, points

if TYPE_CHECKING:
    from carcls.evaluation.significance import PairedComparison
    from sweeps.tracking.promotion import Promotion

_EPILOG = """\b
Examples:
  carsweep promote transfer --dry-run
  carsweep promote retrieval --tracking-uri http://127.0.0.1:5000

Exit codes: 0 moved, or champion already; 1 not moved, and why; 2 a mistake in the input."""


@click.command("promote", epilog=_EPILOG)
@click.argument("family")
@options("out", "tracking-uri", "json")
@click.option("--dry-run", is_flag=True, help="Judge, but neither move the alias nor record anything.")
def promote(family: str, out: Path, tracking_uri: str | None, dry_run: bool, as_json: bool) -> int:
    """Move the alias `champion` of FAMILY's model to its challenger, if that one holds up.

    It must load and answer an image, have the champion's signature, and not be shown to be worse on the same test
    images (exact McNemar test at 5%). The answers that each sweep stored are compared; no test image is read again.
    """
    families = get_args(Family)
    if family not in families:
        raise InputError(f"FAMILY must be one that carsweep has, got {family!r}.{nearest(family, families)}")
    uri = tracking_uri or store_of(out)
    _require_database(uri)
    with Streams(as_json) as streams:
        from sweeps.tracking.store import open_tracking
        from sweeps.waits import Waiting

        with Waiting(streams.tell, "opening MLflow's store …"):
            tracking = open_tracking(uri, out)
            from sweeps.tracking.promotion import (
                promote as promote_challenger,  # after what MLflow reads when it is imported
            )
        with Waiting(streams.tell, "loading the models and asking them for an answer …"):
            promotion = promote_challenger(tracking, family, dry_run=dry_run)
        if as_json:
            streams.write_json(asdict(promotion))
        say(streams.shown, *lines_of(promotion))
    return DONE if promotion.accepted else FAILED


def _require_database(uri: str) -> None:
    """Refuse a SQLite file that is not there, which opening it would make."""
    _, found, path = uri.partition("sqlite:///")
    if found and not Path(path).expanduser().is_file():
        raise InputError(f"--tracking-uri must name an existing database, got {uri!r}. Name the one of a sweep.")


def lines_of(promotion: Promotion) -> list[str]:
    """Write what became of the challenger, for a person."""
    lines = [_headline(promotion)]
    if promotion.comparison:
        lines += _numbers(promotion, promotion.comparison)
    if promotion.moved:
        lines.append(f"Load it with mlflow.pyfunc.load_model('models:/{promotion.model}@champion').")
    return lines


def _headline(promotion: Promotion) -> str:
    model, version = promotion.model, promotion.challenger
    if promotion.verdict == "already champion":
        return promotion.reason
    if not promotion.accepted:
        return f"Not promoted{' (dry run)' if promotion.dry_run else ''}: {promotion.reason}"
    done = "would become" if promotion.dry_run else "is now"
    before = f", after version {promotion.champion}" if promotion.champion else ""
    return f"Version {version} of {model} {done} the champion{before}. {promotion.reason}"


def _numbers(promotion: Promotion, comparison: PairedComparison) -> list[str]:
    low, high = (points(end, digits=2) for end in comparison.interval)
    return [
        f"On the same {comparison.images} test images, as each sweep's counted reading stored it (none is read again):",
        f"  version {promotion.challenger} (challenger)  {percent(comparison.first_accuracy, digits=2)}, "
        f"{comparison.first_only} right that the other has wrong",
        f"  version {promotion.champion} (champion)    {percent(comparison.second_accuracy, digits=2)}, "
        f"{comparison.second_only} right that the other has wrong",
        f"  difference {points(comparison.difference, digits=2)} points (95% interval {low} to {high}), "
        f"exact McNemar p = {comparison.p_value:.3g}: {promotion.verdict}",
    ]
