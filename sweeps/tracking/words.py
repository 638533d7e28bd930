"""What people read on MLflow's pages, in Markdown: descriptions of a sweep, of a trial, and of all sweeps of a family.

Text that somebody else wrote (names, notes, reasons of failures) stands in code spans, where it is neither HTML nor
Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from carcls.config import NEIGHBOUR_SETTINGS
from sweeps.text import counts_text, percent, plural, settings_text
from sweeps.trial import OBJECTIVE, TrialRecord

if TYPE_CHECKING:
    from pathlib import Path

    from carcls.data.config import DataSummary
    from sweeps.spec.spec import SweepSpec

# So long a note of an experiment may be in every version of MLflow.
_ROOM = 5000
_NAME = 100


class SweepLine(NamedTuple):
    """A sweep of a family, as the page of its experiment lists it."""

    name: str
    page: str
    run: str
    state: str
    best: float | None
    tested: float | None


def quoted(text: str) -> str:
    """Return text as a code span of one line.

    >>> quoted("a <b>` *c*")
    "`a <b>' *c*`"
    """
    return f"`{' '.join(text.split())}`" if "`" not in text else quoted(text.replace("`", "'"))


def sweep_text(spec: SweepSpec, data: DataSummary, folder: Path) -> str:
    """Return what a sweep is, where its files are, and how it goes on."""
    asked = f"{plural(spec.trials, 'trial')} of the {spec.family} family"
    goals = "".join(f" {line}" for line in spec.goals.lines())
    images = f"{counts_text(data.splits)}, {data.classes} classes"
    lines = [
        f"A sweep of carsweep: {asked}, searched over {quoted(', '.join(spec.search) or 'nothing')}.{goals}",
        f"- Images: {quoted(data.name)}, {images}, digest {quoted(data.digest)}",
        f"- Its folder: {quoted(str(folder))}; the report in it: {quoted('report.html')}",
        f"- Go on: {quoted(f'carsweep resume {folder.name}')}",
    ]
    return "\n".join([*([quoted(spec.note), ""] if spec.note else []), *lines])


def trial_text(
    record: TrialRecord, state: str, reason: str, base: Mapping[str, Any], derived: Sequence[TrialRecord]
) -> str:
    """Return what a trial is, what became of it, by what it differs from ``base``, and all of its settings."""
    differs = {name: value for name, value in record.config.items() if value != base.get(name, record)}
    lines, of = list[str](), plural(record.config.get("epochs", record.epochs), "epoch")
    if state != "running":  # what is said of a run that goes on is not kept up with it
        lines.append(f"**{state}** after {record.epochs} of {of}{f': {quoted(reason)}' if reason else ''}")
    if best := best_derived(record, derived):
        lines.append(f"Its network also answers {plural(len(derived), 'other trial')}; best of these: {quoted(best)}")
    lines.append(f"Differs by {quoted(settings_text(differs))}" if differs else "As the family is without a search.")
    settings = "".join(f"{name}: {json.dumps(value)}\n" for name, value in record.config.items())  # which is YAML
    return "\n\n".join([*lines, f"All settings:\n```\n{settings}```"])


def best_derived(network: TrialRecord, derived: Iterable[TrialRecord]) -> str:
    """Return accuracy and settings of the best of the trials that a network answered, too; empty without one.

    The settings are those of its neighbours that are not as in the network's own trial.
    """
    complete = [record for record in derived if record.measured(OBJECTIVE) is not None]
    if not complete:
        return ""
    best = max(complete, key=lambda record: (record.metrics[OBJECTIVE], -record.number))
    own = {name: value for name, value in best.config.items() if name in NEIGHBOUR_SETTINGS}
    chosen = {name: value for name, value in own.items() if value != network.config.get(name, best)}
    return f"{percent(best.measured(OBJECTIVE))} as trial {best.number}, {settings_text(chosen)}"


def experiment_text(family: str, sweeps: Iterable[SweepLine]) -> str:
    """Return a list of a family's sweeps, as many as fit, with what each has come to and the way to its pages.

    No table: MLflow's pages leave no room between the cells of one.
    """
    listed = [one._replace(name=quoted(one.name[:_NAME])) for one in sweeps]
    said = [f"{one.state}, best {percent(one.best)} on validation, {percent(one.tested)} on test" for one in listed]
    latest = f"**{listed[0].name}**: {said[0]}" if listed else ""
    head = f"{latest}\n\nSweeps of the {family} family, the latest first; a name opens its leaderboard.\n"
    rows = zip(listed, said, strict=True)
    lines = [head, *(f"- [{one.name}]({one.page}): {said} ([summary]({one.run}))" for one, said in rows)]
    ends = accumulate(len(line) + 1 for line in lines)
    return "\n".join(line for line, end in zip(lines, ends, strict=True) if end <= _ROOM)
