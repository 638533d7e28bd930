"""What MLflow has of the sweeps: brought in line, looked at, and its challengers promoted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import FAMILY, SWEEP, options
from sweeps.cli.output import Streams, answering, resume_command
from sweeps.cli.store import open_store
from sweeps.text import percent, plural, points

if TYPE_CHECKING:
    from sweeps.run.tracked import Repaired
    from sweeps.tracking.promotion import Promotion


@click.group("tracking", no_args_is_help=True)
def tracking() -> None:
    """Keep MLflow in line with the sweeps."""


@tracking.command("repair", short_help="Bring MLflow in line with a sweep.")
@click.argument("name", type=SWEEP)
@options("out", "known-tracking-uri")
@answering
def repair(streams: Streams, name: str, out: Path, tracking_uri: str | None) -> int:
    """Write once more to MLflow what the sweep or job NAME has, after a server was away or a database was lost.

    Each trial has one run then, with every epoch once, under one parent; what is there already stays, and what should
    not be there is ended and marked. Nothing is trained. Exit code 1 where MLflow did not take all of it.
    """
    from sweeps.run.remembered import recall
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import repair as repair_sweep

    out = out.absolute()
    uri = recall(out, name, tracking_uri).tracking_uri
    repaired = [repair_sweep(out / sweep, uri, streams.notify) for sweep in sweeps_in(out, name)]
    streams.answer({"sweeps": list(map(asdict, repaired))}, *(_repaired_line(one, out) for one in repaired))
    return DONE if all(one.written for one in repaired) else FAILED


def _repaired_line(one: Repaired, out: Path) -> str:
    has = f"{plural(one.trials, 'trial')} with {plural(one.epochs, 'epoch')}"
    if not one.written:
        return f"{one.sweep}: MLflow did not take all of {has}; give the command again when it answers."
    if one.lost:
        again = resume_command(one.sweep, out)
        return f"{one.sweep}: MLflow has {has}. The registry does not have the winner; it is registered by:\n  {again}"
    return f"{one.sweep}: MLflow has {has}" + (f", and the winner as {one.version}." if one.version else ".")


@click.command("promote")
@click.argument("family", metavar="FAMILY", type=FAMILY)
@options("out", "tracking-uri")
@click.option("--dry-run", is_flag=True, help="Judge, but neither move the alias nor record anything.")
@answering
def promote(streams: Streams, family: str, out: Path, tracking_uri: str | None, dry_run: bool) -> int:
    """Move the alias `champion` of FAMILY's model to its challenger, if that one holds up.

    It must load and answer an image, have the champion's signature, and not be shown to be worse on the same test
    images (exact McNemar test at 5%). The predictions that each sweep stored are compared; nothing is evaluated again.
    Exit code 0 when the alias was moved or need not be, 1 when the challenger was refused.
    """
    from sweeps.waits import Waiting

    store = open_store(streams, out, tracking_uri)
    from sweeps.tracking.promotion import promote as promote_challenger

    with Waiting(streams.notify, "loading the models and asking them for an answer …"):
        promotion = promote_challenger(store, family, dry_run=dry_run)
    streams.answer(asdict(promotion), _headline(promotion), *_numbers(promotion))
    return DONE if promotion.accepted else FAILED


def _headline(promotion: Promotion) -> str:
    """Write what became of the challenger."""
    model, version = promotion.model, promotion.challenger
    if promotion.verdict == "already champion":
        return promotion.reason
    if not promotion.accepted:
        return f"Not promoted{' (dry run)' if promotion.dry_run else ''}: {promotion.reason}"
    done = "would become" if promotion.dry_run else "is now"
    before = f", after version {promotion.champion}" if promotion.champion else ""
    return f"Version {version} of {model} {done} the champion{before}. {promotion.reason}"


def _numbers(promotion: Promotion) -> Iterator[str]:
    """Yield the numbers by which it was judged, and how the new champion is loaded."""
    compared = promotion.comparison
    if compared:
        low, high = (points(end, digits=2) for end in compared.interval)
        first, second = (percent(share, digits=2) for share in (compared.first_accuracy, compared.second_accuracy))
        alone = "right that the other has wrong"
        yield f"On the same {compared.images} test images, by the stored predictions (nothing is evaluated again):"
        yield f"  version {promotion.challenger} (challenger)  {first}, {compared.first_only} {alone}"
        yield f"  version {promotion.champion} (champion)    {second}, {compared.second_only} {alone}"
        yield (
            f"  difference {points(compared.difference, digits=2)} points (95% interval {low} to {high}), "
            f"exact McNemar p = {compared.p_value:.3g}: {promotion.verdict}"
        )
    if promotion.moved:
        yield f"Load it with mlflow.pyfunc.load_model('models:/{promotion.model}@champion')."
