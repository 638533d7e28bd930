"""``carsweep status``: the status of a sweep, also while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.execute import resume_command
from sweeps.cli.options import options
from sweeps.cli.streams import Streams
from sweeps.cli.trials import accuracy_of, epoch_of, write_twins
from sweeps.text import minute, percent, plural

if TYPE_CHECKING:
    from sweeps.run.status import SweepStatus


@click.command("status")
@click.argument("name", required=False)
@options("out", "json")
def status(name: str | None, out: Path, as_json: bool) -> None:
    """Show the status of the sweep or job NAME; without NAME, the one last written to.

    It is read from the sweep's own files, at any time, also while the sweep runs; it needs no GPU and no Ray.
    """
    from carcls.errors import InputError
    from sweeps.run.status import sweep_status, sweeps_in

    names = sweeps_in(out, name) if name else sweeps_in(out)[:1]
    if not names:
        raise InputError(f"--out must be a folder with runs, got {str(out)!r}. Run a sweep first, or name its --out.")
    found = [sweep_status(out, each) for each in names]
    if as_json:
        with Streams(as_json) as streams:
            streams.write_json({"sweeps": [each.as_dict() for each in found]})
    else:
        click.echo("\n\n".join("\n".join(lines_of(each, out)) for each in found))


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
