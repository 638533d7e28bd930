"""The charts of a report: each a drawing of a sweep's records, with the numbers that it shows as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast, judged_by_epoch
from sweeps.report.curves import draw_curves, points_of, step_of
from sweeps.report.facts import Facts
from sweeps.report.svg import node, written


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        key: its name in files and addresses, such as ``curves``.
        title: for a person.
        drawings: elements of SVG, each complete; none where there is nothing to draw, as ``notes`` say.
        notes: sentences on how it is to be read, and on what it leaves out.
        header, rows: its numbers as a table of text.
    """

    key: str
    title: str
    drawings: tuple[Element, ...]
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def svgs(self) -> list[str]:
        """The drawings as a page takes them."""
        return [written(one) for one in self.drawings]


@dataclass(frozen=True, slots=True)
class ChartsPart:
    """The charts of a report, in their order.

    Attributes:
        charts: those that the sweep has something for.
        trials: numbers of the trials that can be highlighted, ascending.
    """

    charts: tuple[Chart, ...]
    trials: tuple[int, ...] = ()

    @property
    def figures(self) -> Mapping[str, str]:
        """Each chart as an SVG file that needs nothing else, by its key."""
        return {chart.key: written(_alone(chart)) for chart in self.charts if chart.drawings}


def charts_part(facts: Facts) -> ChartsPart:
    """Return the charts of a sweep; a function of its records alone."""
    cast = Cast(facts.board)
    return ChartsPart(tuple(_charts(facts, cast)), tuple(sorted(cast.alone)))


def _charts(facts: Facts, cast: Cast) -> Iterator[Chart]:
    yield _curves(facts, cast)


def _curves(facts: Facts, cast: Cast) -> Chart:
    points, title = points_of(cast), "Learning curves"
    if not points:
        return Chart("curves", title, (), ("No trial has measured an epoch.",))
    quantity, every = judged_by_epoch(cast.quantity), step_of(points)
    stopping = facts.spec.early_stopping
    notes = [*cast.left_out(list(points), "curves")]
    notes += [f"These show each {every}th epoch."] if every > 1 else []
    by_number = {trial.number: trial for trial in cast.trials}
    rows = [
        (str(number), by_number[number].name, by_number[number].status, str(own[-1][0]), quantity.write(own[-1][1]))
        for number, own in points.items()
        if number in cast.alone
    ]
    header = ("trial", "name", "status", "epochs", quantity.name)
    return Chart("curves", title, (draw_curves(cast, points, stopping),), tuple(notes), header, tuple(rows))


@cache
def _style() -> str:
    return (Path(__file__).parent / "pages" / "charts.css").read_text(encoding="utf-8")


def _alone(chart: Chart) -> Element:
    """Return a chart with its style and title."""
    (drawing,) = chart.drawings
    whole = node("svg", {**drawing.attrib, "xmlns": "http://www.w3.org/2000/svg"}, node("style", {}, _style()))
    whole.extend(drawing)
    return whole
