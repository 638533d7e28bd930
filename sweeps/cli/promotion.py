"""Champions: promoted, rolled back, and who did it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carcls.errors import InputError
from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import FAMILY, options
from sweeps.cli.output import Streams, Verbatim, answering, carsweep_command
from sweeps.cli.store import open_store
from sweeps.tables import Column, table_of
from sweeps.text import minute, out_words, percent, points

if TYPE_CHECKING:
    from sweeps.tracking.gates import GateAnswer
    from sweeps.tracking.moves import Move
    from sweeps.tracking.promotion import ChampionHistory, Promotion, Rollback

_SIZE = click.FloatRange(min=0, min_open=True)
_POINTS = click.FloatRange(0, 100)


@click.command("promote")
@click.argument("family", metavar="FAMILY", type=FAMILY)
@options("out", "tracking-uri")
@click.option("--margin", type=_POINTS, help="Points of accuracy that it may be worse at most; of the interval's end.")
@click.option("--per-class-margin", type=_POINTS, default=0.0, show_default=True, help="The same of a class's recall.")
@click.option("--max-ms", type=_SIZE, help="Milliseconds that an answer may take on this machine.")
@click.option("--max-mb", type=_SIZE, help="Megabytes that its files may have.")
@click.option("--dry-run", is_flag=True, help="Judge, but neither move the alias nor record anything.")
@click.option("--force", is_flag=True, help="Move though gates refuse, if it loads; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why it is forced; recorded.")
@answering
def promote(
    streams: Streams,
    family: str,
    out: Path,
    tracking_uri: str | None,
    margin: float | None,
    per_class_margin: float,
    max_ms: float | None,
    max_mb: float | None,
    dry_run: bool,
    force: bool,
    reason: str | None,
) -> int:
    """Move the alias `champion` of FAMILY's model to its challenger, if that one holds up.

    All gates are asked: its files are those that were registered, it loads, has the champion's columns and classes, and
    is not shown to be worse on the same test images, as a whole (exact McNemar test at 5%) or in a class. Exit code 0
    when the alias was moved or need not be, 1 when the challenger was refused.
    """
    said = (reason or "").strip()
    if force != bool(said):
        raise InputError(
            f"--force and --reason TEXT must be given together, got --{'force' if force else 'reason'} alone."
        )
    from sweeps.waits import Waiting

    store = open_store(streams, out, tracking_uri)
    from sweeps.tracking.contest import Demands
    from sweeps.tracking.models import ModelFiles
    from sweeps.tracking.promotion import promote as promote_challenger

    limits = Demands(margin, per_class_margin, max_ms, max_mb)
    with Waiting(streams.notify, "loading the models and asking them for an answer …"):
        promotion = promote_challenger(
            store, family, ModelFiles(store, out), dry_run=dry_run, limits=limits, forced=said
        )
    gates = [table_of(_GATE_COLUMNS, promotion.gates, fold=("said",))] if promotion.gates else []
    words = [*out_words(out), *(["--tracking-uri", store.shown_uri] if tracking_uri else [])]
    streams.answer(asdict(promotion), _headline(promotion), *gates, *_numbers(promotion, words))
    return DONE if promotion.accepted else FAILED


_GATE_COLUMNS: list[Column[GateAnswer]] = [
    Column("gate", lambda one: one.gate, "gate", is_word=True),
    Column("state", lambda one: one.state, "answer", is_word=True),
    Column("said", lambda one: one.said, "figures, or why", is_word=True),
]


@click.command("history")
@click.argument("family", metavar="FAMILY", type=FAMILY)
@options("out", "tracking-uri")
@answering
def history(streams: Streams, family: str, out: Path, tracking_uri: str | None) -> int:
    """List every move of the alias `champion` of FAMILY's model, and every refusal: who, when, from, to and why."""
    store = open_store(streams, out, tracking_uri)
    from sweeps.tracking.promotion import history as read_history

    found = read_history(store, family)
    table = [table_of(_MOVE_COLUMNS, found.moves, fold=("why",))] if found.moves else []
    streams.answer(asdict(found), *table, _now(found))
    return DONE


_MOVE_COLUMNS: list[Column[Move]] = [
    Column("at", lambda move: minute(move.at), "when (UTC)", is_word=True),
    Column("by", lambda move: move.by, "who", is_word=True),
    Column("kind", lambda move: "forced" if move.forced else move.kind, "what", is_word=True),
    Column("before", lambda move: move.before, "from"),
    Column("after", lambda move: move.after, "to"),
    Column("difference", lambda move: _difference(move.numbers), "points"),
    Column(
        "why", lambda move: ": ".join(filter(None, (move.why, "" if move.forced else move.reason))), "why", is_word=True
    ),
]


def _difference(numbers: dict[str, Any] | None) -> str | None:
    return points(numbers["difference"], digits=2) if numbers else None


def _now(found: ChampionHistory) -> str:
    if not found.moves:
        return f"{found.model} has no recorded move."
    now = f"version {found.champion} is champion" if found.champion else "there is no champion"
    return f"{found.model}: {now}" + (", set by hand since the last move." if found.by_hand else ".")


@click.command("rollback")
@click.argument("family", metavar="FAMILY", type=FAMILY)
@options("out", "tracking-uri")
@click.option("--to", metavar="VERSION", help="Which version; when not given, the champion before.")
@click.option("--reason", metavar="TEXT", default="", help="Why; recorded.")
@answering
def rollback(streams: Streams, family: str, out: Path, tracking_uri: str | None, to: str | None, reason: str) -> int:
    """Move the alias `champion` of FAMILY's model back to the champion before, if its files are whole and it loads."""
    store = open_store(streams, out, tracking_uri)
    from sweeps.tracking.models import ModelFiles
    from sweeps.tracking.promotion import rollback as roll_back
    from sweeps.waits import Waiting

    with Waiting(streams.notify, "loading the model and asking it for an answer …"):
        done = roll_back(store, family, ModelFiles(store), to=to, reason=reason.strip())
    streams.answer(asdict(done), _rolled_back(done))
    return DONE


def _rolled_back(done: Rollback) -> str:
    if done.before == done.after:
        return f"Version {done.after} of {done.model} is the champion already."
    after = f"after version {done.before}" if done.before else "which had none"
    return f"Version {done.after} of {done.model} is the champion again, {after}."


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


def _numbers(promotion: Promotion, store: Sequence[str]) -> Iterator[str]:
    """Yield the numbers by which it was judged, and how the new champion is asked; ``store`` are words that name it."""
    compared = promotion.comparison
    if compared:
        low, high = (points(end, digits=2) for end in compared.interval)
        first, second = (percent(share, digits=2) for share in (compared.first_accuracy, compared.second_accuracy))
        alone = "right that the other has wrong"
        yield f"On the same {compared.images} test images, by the stored predictions:"
        yield f"  version {promotion.challenger} (challenger)  {first}, {compared.first_only} {alone}"
        yield f"  version {promotion.champion} (champion)    {second}, {compared.second_only} {alone}"
        found = "" if promotion.verdict in ("refused", "forced") else f": {promotion.verdict}"  # by other gates
        yield (
            f"  difference {points(compared.difference, digits=2)} points (95% interval {low} to {high}), "
            f"exact McNemar p = {compared.p_value:.3g}{found}"
        )
    if promotion.moved:
        asked = carsweep_command("predict", "PATH", "--model", f"{promotion.model}@champion", *store)
        yield Verbatim(f"Ask it: {asked}")
