"""The chart of when and where trials ran: a row for each process, or for what ran at the same time.

Time is that of the sweep itself: what passes between its sessions is none of it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast, named
from sweeps.report.svg import Axis, Scale, Shape, drawing, drawn, mark, px, shortened, text
from sweeps.text import duration, plural
from sweeps.trial import TrialRecord

WIDTH, LEFT, RIGHT, TOP = 640.0, 132.0, 620.0, 24.0
MOST_ROWS, MOST_HEIGHT = 64, 1000.0


@dataclass(frozen=True, slots=True)
class Bar:
    """When and where a trial ran, last time.

    Attributes:
        trial: it.
        start, end: seconds that the sweep had run.
    """

    trial: TrialRecord
    start: float
    end: float


def bars_of(trials: Iterable[TrialRecord]) -> list[Bar]:
    """Return the bars of trials that ran in a process, in the order of their starts.

    A journal of an older version, which does not tell when the sweep ran, has the clock's times in their place.
    """
    ran = [trial for trial in trials if trial.derived_from is None and trial.seconds > 0]
    if any(trial.spent.wall for trial in ran):
        ends = {t.number: t.spent.wall for t in ran if t.spent.wall}
    else:
        first = min((trial.began for trial in ran if trial.began), default=0.0)
        ends = {t.number: t.began - first + t.seconds for t in ran if t.began}
    bars = [Bar(t, max(0.0, ends[t.number] - t.seconds), ends[t.number]) for t in ran if t.number in ends]
    return sorted(bars, key=lambda bar: (bar.start, bar.trial.number))


def rows_of(bars: Sequence[Bar]) -> dict[str, list[Bar]]:
    """Return the bars by the rows that they lie in, by the rows' names.

    Processes of one place share a row when one ended before the other began. Where nobody noted the process, trials
    are put into as many slots as ran at the same time.
    """
    by_process = defaultdict[str, list[Bar]](list)
    for bar in bars:
        by_process[bar.trial.worker or f"slot pid {bar.trial.number}"].append(bar)
    rows, free = defaultdict[str, list[Bar]](list), defaultdict[str, list[tuple[float, int]]](list)
    for process, own in sorted(by_process.items(), key=lambda item: item[1][0].start):
        place = process.rpartition(" pid ")[0]
        lanes = free[place]
        # a process's first trial may seem to begin a moment before the last one of its predecessor has ended
        is_free = bool(lanes) and lanes[0][0] <= own[0].start + 1.0
        lane = heapq.heappop(lanes)[1] if is_free else len(lanes) + 1
        heapq.heappush(lanes, (max(bar.end for bar in own), lane))
        rows[f"{place} {lane}"] += own
    names = {f"{place} 1": place for place, lanes in free.items() if len(lanes) == 1 and place != "slot"}
    return {names.get(name, name): own for name, own in sorted(rows.items())}


def draw_timeline(cast: Cast, bars: Sequence[Bar], rows: Mapping[str, Sequence[Bar]]) -> Element:
    """Return the drawing of the first MOST_ROWS rows; there is at least one bar."""
    shown = dict(list(rows.items())[:MOST_ROWS])
    row = min(26.0, MOST_HEIGHT / len(shown))
    end, bottom = max(bar.end for bar in bars), TOP + row * len(shown) + 6
    unit, seconds = next(
        ((name, size) for name, size in (("hours", 3600), ("minutes", 60)) if end >= 3 * size), ("seconds", 1)
    )
    scale = Scale(0.0, end / seconds, LEFT, RIGHT)
    axis = Axis(scale, f"{unit} that the sweep ran", lambda value: f"{value:g}").across(bottom)
    names = [
        text(LEFT - 6, TOP + row * (place + 0.5) + 4, shortened(name, LEFT - 6), "end small")
        for place, name in enumerate(shown)
        if row > 9
    ]
    shapes = [
        shape
        for place, own in enumerate(shown.values())
        for shape in _shapes(cast, own, TOP + row * place, row, scale, seconds)
    ]
    words = f"When {plural(len(bars), 'trial')} ran, in {plural(len(rows), 'row')} of processes."
    return drawing(WIDTH, bottom + 40, words, *axis, *names, *drawn(shapes))


def _shapes(cast: Cast, bars: Sequence[Bar], top: float, row: float, scale: Scale, seconds: float) -> Iterator[Shape]:
    before = 0.0  # bars of one row do not lie on each other
    for bar in bars:
        x, end = scale(max(before, bar.start) / seconds), scale(bar.end / seconds)
        before, width, height = bar.end, max(1.0, end - x), row * 0.7
        box = f"M{px(x)} {px(top + row * 0.15)}h{px(width)}v{px(height)}h{px(-width)}z"
        hits = [saved for saved in bar.trial.stages.values() if saved is not None]
        made = len(bar.trial.stages) - len(hits)
        middle = top + row / 2
        paths = {"bar": box} | ({"hit": mark("hit", x + 5, middle)} if hits and width > 10 else {})
        paths |= {"made": mark("made", x + width - 5, middle)} if made and width > 20 else {}
        said = {"for": duration(bar.trial.seconds)} | ({"on": bar.trial.worker} if bar.trial.worker else {})
        said |= {"found": f"{plural(len(hits), 'stage')} made, which saved {duration(sum(hits))}"} if hits else {}
        said |= {"made": plural(made, "stage")} if made else {}
        yield Shape(*cast.look(bar.trial, of_network=True), named(bar.trial, said), paths)
