"""Sweeps of a folder of runs: listed, looked at, stopped from outside, removed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carcls.errors import InputError
from sweeps.cli.exits import DONE, FAILED
from sweeps.cli.options import options
from sweeps.cli.output import Streams, accuracy_of, epoch_of, resume_command, write_twins
from sweeps.text import minute, percent, plural, size_text, table_of

if TYPE_CHECKING:
    from sweeps.run.status import SweepStatus
    from sweeps.run.tracked import Remains

# The width of a terminal from which it shows all columns.
_WIDE = 110
# How often it is looked whether a sweep has stopped.
_LOOK_SECONDS = 0.2
_DELETE_EPILOG = """\b
Examples:
  carsweep delete cars --dry-run
  carsweep delete cars
  carsweep delete cars --yes

What trials share stays for other sweeps; carsweep gc removes what none needs any more."""


@click.command("runs")
@options("out", "json")
def runs(out: Path, as_json: bool) -> None:
    """List the sweeps under --out: their status and what came of them, the last written to first."""
    from sweeps.run.status import COLUMNS, sweep_status, sweeps_in

    found: list[SweepStatus] = []
    for name in sweeps_in(out):
        try:
            found.append(sweep_status(out, name))
        except InputError as error:  # one damaged sweep must not hide the others
            click.echo(f"{name}: {error}", err=True)
    with Streams(as_json) as streams:
        wide = streams.result.width >= _WIDE
        columns = [column for column in COLUMNS if column.title and (wide or column.room != "wide")]
        table = [table_of(columns, found, fold=("name",))] if found else []
        streams.answer({"sweeps": [sweep.as_dict() for sweep in found]}, *table)
        if not found and not as_json:
            streams.tell(f"No sweeps in {out}.")


@click.command("status")
@click.argument("name", required=False)
@options("out", "json")
def status(name: str | None, out: Path, as_json: bool) -> None:
    """Show the status of the sweep or job NAME; without NAME, the one last written to.

    It is read from the sweep's own files, at any time, also while the sweep runs; it needs no GPU and no Ray.
    """
    from sweeps.run.status import sweep_status, sweeps_in

    names = sweeps_in(out, name) if name else sweeps_in(out)[:1]
    if not names:
        raise InputError(f"--out must be a folder with runs, got {str(out)!r}. Run a sweep first, or name its --out.")
    found = [sweep_status(out, each) for each in names]
    with Streams(as_json) as streams:
        text = "\n\n".join("\n".join(lines_of(each, out)) for each in found)
        streams.answer({"sweeps": [each.as_dict() for each in found]}, text)


def lines_of(sweep: SweepStatus, out: Path) -> Iterator[str]:
    """Yield what a person wants to know of a sweep, a line each."""
    told, best = sweep.as_dict(), sweep.board.best
    holder = f" by {sweep.holder}" if sweep.holder else ""
    yield f"{sweep.name} ({sweep.spec.family}): {sweep.state}{holder}"
    counts = ", ".join(f"{sweep.counts[s]} {s}" for s in ("complete", "pruned", "failed") if sweep.counts.get(s))
    siblings = f"; {plural(told['siblings'], 'combination')} answered on the way" if told["siblings"] else ""
    yield f"  {sweep.ended} of {plural(sweep.total, 'trial')} ended{f' ({counts})' if counts else ''}{siblings}"
    twins = write_twins(sweep.board.trials)
    if twins:
        yield f"  {twins}"
    for trial in sweep.unfinished:
        accuracy = f", val accuracy {accuracy_of(trial)}" if "val_accuracy" in trial.metrics else ""
        what = f"{'runs' if sweep.holder else 'waits'}: {trial.name}"
        yield f"  trial {trial.number} {what}, epoch {epoch_of(trial)}{accuracy}"
    if best is not None:
        test = "" if told["test_accuracy"] is None else f"; test accuracy {percent(told['test_accuracy'])}"
        yield f"  best: trial {best.number}, val accuracy {accuracy_of(best)}{test}"
    if told["registered"]:
        yield f"  registered as {told['registered']}"
    for edit in sweep.edits:
        yield f"  changed {minute(edit['at'])}, after {plural(edit['after'], 'trial')}: {'; '.join(edit['changes'])}"
    yield f"  last written {minute(sweep.changed)}"
    if sweep.state == "unfinished":
        yield f"  to go on: {resume_command(sweep.name, out)}"


@click.command("stop")
@click.argument("name")
@click.option("--now", is_flag=True, help="Do not wait for the epochs that run.")
@click.option("--wait", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait for it.")
@options("out")
def stop(name: str, now: bool, wait: float, out: Path) -> int:
    """Stop the sweep or job NAME, which somebody runs in another terminal or on another machine.

    Each running trial ends after its epoch, or without it after 20 seconds; everything is kept. Exit code 0 once
    nothing runs any more, 1 when it still runs after --wait seconds.
    """
    from sweeps.lock import ask_to_stop, holder_of
    from sweeps.run.status import sweeps_in

    folders = [out / sweep for sweep in sweeps_in(out, name)]
    running = {folder: holder for folder in folders if (holder := holder_of(folder)) is not None}
    if not running:
        click.echo(f"{name} is not running.")
        return DONE
    for folder, holder in running.items():
        ask_to_stop(folder, now=now)
        click.echo(f"Asked {holder} to stop {folder.name}; waiting for it.", err=True)
    end = time.monotonic() + wait
    while any(holder_of(folder) for folder in running):
        if time.monotonic() > end:
            click.echo(
                f"{name} still runs after {wait:g} s: it reads images or closes the sweep, and stops as soon as it is "
                f"through. {' and '.join(map(str, running.values()))} can be killed without loss.",
                err=True,
            )
            return FAILED
        time.sleep(_LOOK_SECONDS)
    click.echo(f"Stopped. To go on:\n  {resume_command(name, out)}")
    return DONE


@click.command("delete", epilog=_DELETE_EPILOG)
@click.argument("name")
@options("out", "known-tracking-uri", "json")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
def delete(name: str, out: Path, tracking_uri: str | None, yes: bool, dry_run: bool, as_json: bool) -> int:
    """Remove the sweep or job NAME: its folder, its runs in MLflow, and its models but those that an alias holds.

    Asks first. A champion or challenger stays, with the run that it came from. How often test images were looked at
    stays known.
    """
    from sweeps.lock import holder_of
    from sweeps.run.remembered import recall
    from sweeps.run.status import sweeps_in
    from sweeps.run.tracked import find_remains, remove

    out = out.absolute()
    uri = recall(out, name, tracking_uri).tracking_uri
    folders = [out / sweep for sweep in sweeps_in(out, name)]
    for folder in folders:
        holder = holder_of(folder)
        if holder is not None:
            raise InputError(
                f"NAME must be of a sweep that nothing runs, got {name!r}: {holder} runs it. Stop it first "
                f"(carsweep stop {name})."
            )
    with Streams(as_json) as streams:
        found = [find_remains(folder, uri) for folder in folders]
        if not as_json or not dry_run:
            for remains in found:
                streams.tell("\n".join(_remains_lines(remains)))
        if not dry_run:
            if not yes and not _agrees(name):
                return FAILED
            for remains in found:
                remove(remains)
            if name not in {folder.name for folder in folders}:
                shutil.rmtree(out / name)
        streams.answer(
            {"name": name, "removed": not dry_run, "sweeps": [_remains_json(one) for one in found]},
            f"{name} would be removed." if dry_run else f"{name} is removed.",
        )
    return DONE


def _agrees(name: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(f"--yes must be given where nobody can be asked whether {name!r} may go. Nothing was removed.")
    return click.confirm(f"Remove {name}?", default=False, err=True)


def _remains_lines(remains: Remains) -> list[str]:
    counts = [
        plural(len(remains.runs), "run"),
        plural(len(remains.versions), "model version"),
        plural(len(remains.models), "uploaded model"),
    ]
    where = f" in {remains.tracking.shown_uri}" if remains.tracking else ""
    lines = [f"{remains.folder}: {size_text(remains.size)}; {', '.join(counts)}{where}."]
    for version, aliases in remains.kept:
        lines.append(f"stays: {version.name} version {version.version}, which is {' and '.join(aliases)}, and its run.")
    return lines


def _remains_json(remains: Remains) -> dict[str, Any]:
    return {
        "folder": str(remains.folder),
        "bytes": remains.size,
        "tracking_uri": remains.tracking.shown_uri if remains.tracking else None,
        "runs": [run.info.run_id for run in remains.runs],
        "models": [model.model_id for model in remains.models],
        "versions": [{"name": version.name, "version": str(version.version)} for version in remains.versions],
        "kept": [
            {"name": version.name, "version": str(version.version), "aliases": list(aliases)}
            for version, aliases in remains.kept
        ],
    }
