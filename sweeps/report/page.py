"""The report: one page that needs nothing else, or the same in Markdown, of one sweep or of several."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from carcls.stages import write_text
from sweeps.report.advice import advice_of
from sweeps.report.answers import Compute, answers_part, confusion_csv, why_no_answers
from sweeps.report.charts import charts_part
from sweeps.report.details import details_of
from sweeps.report.facts import Facts, read_facts
from sweeps.report.markdown import markdown_of
from sweeps.report.rows import board_of
from sweeps.report.templates import read_pages, template
from sweeps.report.verdict import verdict_of
from sweeps.tables import Grid
from sweeps.text import counts_text, plural

REPORT, CURVES = "report.html", "curves"


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Sweeps of one data set beside each other: what they share, a table, and what the tests of pairs say."""

    title: str
    table: Grid
    lines: tuple[str, ...] = ()


class SweepReport:
    """What a page tells of one sweep.

    Args:
        id: what the addresses of its sections begin with, unlike another sweep's on the page.
        facts: of the sweep.
        compute: as ``write_report``.
    """

    def __init__(self, id: str, facts: Facts, compute: Compute | None) -> None:  # noqa: A002 - as HTML calls it
        self.id, self.facts, self.verdict = id, facts, verdict_of(facts)
        self.advice, self.board, self.charts = advice_of(facts), board_of(facts), charts_part(facts)
        self.answers, self.details = answers_part(facts, compute), details_of(facts)

    @property
    def about(self) -> str:
        """What was run on what, in words."""
        data, trials = self.facts.dataset, [trial for trial in self.facts.board.trials if trial.derived_from is None]
        if data is None:
            return "whose images were not read yet"
        return f"{plural(len(trials), 'trial')} on {data.name}: {len(data.classes)} classes, {counts_text(data.counts)}"

    @property
    def winner(self) -> int | None:
        """Number of the trial that leads, as the leaderboard has it."""
        leading = self.facts.board.best_confirmed or self.facts.board.best
        return leading.number if leading else None

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Addresses and names of its parts."""
        parts = [("next", "What to try next", self.advice), ("board", "Leaderboard", self.board.rows)]
        charts = [(f"chart-{chart.key}", chart.title) for chart in self.charts.charts]
        details = [(detail.key, detail.title) for detail in self.details]
        found = [(key, name) for key, name, there in parts if there]
        return [("answer", "Answer"), *found, *charts, ("answers", "Answers"), *details]

    @property
    def answers_missing(self) -> str:
        """Why there are no answers."""
        return why_no_answers(self.facts)


@dataclass(frozen=True, slots=True)
class ReportPage:
    """All that a page tells.

    Attributes:
        title: the sweep's name, or the job's.
        time: of the look at the records.
        reports: of the sweeps, in their order.
        compared: the sweeps beside each other, where there are several.
        others: names of sweeps of the job that have not begun.
    """

    title: str
    reports: tuple[SweepReport, ...]
    compared: tuple[SideBySide, ...] = ()
    others: tuple[str, ...] = ()
    time: datetime = field(default_factory=lambda: datetime.now().astimezone())


def write_report(
    folders: Sequence[Path],
    path: Path | None,
    *,
    title: str,
    compared: Sequence[SideBySide] = (),
    others: Sequence[str] = (),
    markdown: bool = False,
    compute: Compute | None = None,
    parts: Path | None = None,
) -> str:
    """Write what sweeps have left so far as one page, and return it; they may run meanwhile.

    Args:
        folders: of the sweeps, at least one.
        path: of the page, which is whole or not there; None writes none.
        title: of the page.
        compared: the sweeps beside each other.
        others: names of sweeps that belong to them and have not begun.
        markdown: whether it is Markdown, without pictures, rather than HTML.
        compute: has a process of trials compute what only the network can tell; None leaves that out.
        parts: a folder that gets the curves and the confusion matrix of the first sweep as files of their own, too.

    Raises:
        InputError: a file of a sweep is damaged.
        OSError: the page cannot be written.
    """
    reports = tuple(SweepReport(f"s{place}", read_facts(folder), compute) for place, folder in enumerate(folders, 1))
    page = ReportPage(title, reports, tuple(compared), tuple(others))
    text = markdown_of(page) if markdown else _html(page)
    if path is not None:
        write_text(path, text)
    if parts is not None:
        for name, part in _parts(reports[0]):
            write_text(parts / name, part)
    return text


def _parts(report: SweepReport) -> Iterator[tuple[str, str]]:
    if curves := report.charts.figures.get(CURVES):
        yield f"{CURVES}.svg", curves
    if report.answers is not None:
        yield "confusion.csv", confusion_csv(report.answers.validation)


def _html(page: ReportPage) -> str:
    """Return the page; its policy lets nothing be fetched, and no script run but its own."""
    style, script = "\n".join(read_pages("*.css")), "\n".join(read_pages("*.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template("report.html.j2").render(page=page, style=style, script=script, digest=digest)
