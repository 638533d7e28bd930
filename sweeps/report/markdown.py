"""The report in Markdown: blocks of lines with an empty line between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from carcls.evaluation.significance import Proportion
from sweeps.report.answers import AnswersPart
from sweeps.tables import Grid, markdown_table
from sweeps.text import DASH, percent

if TYPE_CHECKING:
    from sweeps.report.page import ReportPage, SweepReport

# What Markdown would take for markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown_of(page: ReportPage) -> str:
    """Return the page; no text of a sweep becomes markup."""
    others = f"; not begun: {plain(', '.join(page.others))}" if page.others else ""
    blocks = [f"# {plain(page.title)}", f"carsweep's report, as of {page.time:%Y-%m-%d %H:%M}{others}."]
    for group in page.compared:
        blocks += [f"## {plain(group.title)}", table(group.table), _list(group.lines)]
    for report in page.reports:
        if report.facts.name != page.title:
            blocks.append(f"## {plain(report.facts.name)}")
        blocks += [*_answer(report), *_parts(report)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _answer(report: SweepReport) -> Iterator[str]:
    facts, verdict = report.facts, report.verdict
    state = "" if facts.state == "finished" else f" ({facts.state})"
    yield f"{facts.spec.family} family, {plain(report.about)}{state}."
    yield f"**{plain(verdict.headline)}**"
    yield table(Grid(["", "", ""], [(one.label, one.value, one.note) for one in verdict.figures]))
    if facts.ended and facts.ended.registered:
        model = facts.ended.registered
        yield f"Registered as {plain(model)}, {plain(model.standing)}"
    yield _list(verdict.belief)
    if report.advice:
        yield "### What to try next"
    for one in report.advice:
        yield f"- **{plain(one.what)}.** {plain(one.why)}" + (f" `{one.command}`" if one.command else "")


def _parts(report: SweepReport) -> Iterator[str]:
    if report.board.rows:
        yield from ("### Leaderboard", table(report.board.grid))
    for chart in report.charts.charts:
        if chart.table:
            yield from (f"### {plain(chart.title)}", table(chart.table), *map(plain, chart.notes))
    yield "### Answers"
    yield from _answers(report.answers) if report.answers else [plain(report.answers_missing)]
    for detail in report.details:
        yield f"### {plain(detail.title)}"
        yield _list(detail.lines)
        yield table(detail.table) if detail.table else ""


def _answers(part: AnswersPart) -> Iterator[str]:
    for answers in filter(None, (part.validation, part.test)):
        use = ", to choose by" if answers is part.validation else ": seen once, choose nothing by them"
        score, sure = f"{_share(answers.accuracy)} right with the 95% interval and the images", answers.calibration
        if sure:
            score += f"; expected calibration error {percent(sure.error)}, of which chance alone reaches "
            score += f"{percent(sure.chance)} in one case of 20"
        yield f"Trial {part.trial}, {answers.split} answers{use}: {score}. Most confused:"
        names = answers.names
        yield (
            _list(
                f"{names[pair.first]} taken for {names[pair.second]}: {pair.first_as_second}; the other way round: "
                f"{pair.second_as_first}"
                for pair in answers.pairs
            )
            or "- no class"
        )
    yield plain(part.served)
    for kind, rows in part.group_rows.items():
        cells = [(name, *(_share(one.accuracy if one else None) for one in both)) for name, both in rows]
        yield table(Grid([kind, "validation", "test, choose nothing by it"], cells))


def _share(one: Proportion | None) -> str:
    if not one or not one.images:
        return DASH
    low, high = one.interval
    return f"{percent(one.value)} ({100 * low:.0f}–{100 * high:.0f}, {one.images})"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def plain(value: object) -> str:
    """Return a text so that Markdown shows it as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def table(grid: Grid) -> str:
    """Return a table in which no text becomes markup; nothing for one without rows."""
    if not grid.rows:
        return ""
    return markdown_table(Grid([*map(plain, grid.header or ())], [[*map(plain, row)] for row in grid.rows]))
