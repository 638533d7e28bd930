"""The charts of a report: each a drawing of a sweep's records, with the numbers that it shows as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast
from sweeps.report.curves import draw_curves, points_of, rung_counts, step_of
from sweeps.report.facts import Facts
from sweeps.report.slices import draw_front, draw_parallel, draw_slice, judged, measured
from sweeps.report.svg import drawing, legend, node, shortened, side_by_side, text, written
from sweeps.report.timeline import MOST_ROWS, bars_of, draw_timeline, rows_of
from sweeps.tables import Grid
from sweeps.text import DASH, duration, percent, plural, settings_text

if TYPE_CHECKING:
    from sweeps.study.importance import Importance, Importances

# Of the bars of importances, in pixels.
ROW = 34.0
LEFT, RIGHT, TOP = 164.0, 430.0, 26.0


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        key: its name in files and addresses, such as ``curves``.
        title: for a person.
        drawings: elements of SVG, each complete; none where there is nothing to draw, as ``notes`` say.
        notes: sentences on how it is to be read, and on what it leaves out.
        table: its numbers, in words; None where there is nothing to draw, or where the leaderboard has them.
    """

    key: str
    title: str
    drawings: tuple[Element, ...] = ()
    notes: tuple[str, ...] = ()
    table: Grid | None = None

    @property
    def svgs(self) -> list[str]:
        """The drawings as a page takes them."""
        return [written(one) for one in self.drawings]

    @property
    def figure(self) -> str:
        """The drawings as one SVG file, which needs nothing else."""
        whole = side_by_side(self.drawings)
        whole.insert(0, node("style", {}, _style()))
        whole.insert(0, node("title", {}, self.title))
        return written(whole)


@dataclass(frozen=True, slots=True)
class ChartsPart:
    """The charts of a report, in their order.

    Attributes:
        charts: those that the sweep has something for, or says why not.
        trials: numbers of the trials that can be highlighted, ascending.
        legend: how trials are marked, as SVG.
    """

    charts: tuple[Chart, ...]
    trials: tuple[int, ...] = ()
    legend: str = field(default_factory=lambda: written(legend()))

    @property
    def figures(self) -> Mapping[str, str]:
        """Each chart as an SVG file that needs nothing else, by its key."""
        return {chart.key: chart.figure for chart in self.charts if chart.drawings}


def charts_part(facts: Facts) -> ChartsPart:
    """Return the charts of a sweep; a function of its records alone."""
    cast = Cast(facts.board)
    charts = [_curves(facts, cast), _importance(facts, cast), _slices(facts, cast), _parallel(facts, cast)]
    charts += [_front(cast)] if facts.spec.goals.are_several else []
    return ChartsPart((*charts, _timeline(cast)), tuple(sorted(cast.alone)))


def _curves(facts: Facts, cast: Cast) -> Chart:
    points, title = points_of(cast), "Learning curves"
    if not points:
        return Chart("curves", title, notes=("No trial has measured an epoch.",))
    every, stopping = step_of(points), facts.spec.early_stopping
    rungs = (
        "Dotted lines are rungs of early stopping: how many searched trials went on there, and how many were stopped."
    )
    notes = [rungs] if rung_counts(cast.trials, stopping) else []
    notes += cast.left_out(list(points), "curves")
    notes += [f"Those show one epoch in {every}."] if every > 1 else []
    if any("val_classifier_accuracy" in trial.metrics for trial in cast.trials):
        notes.append("The last epoch has the accuracy of the neighbours' vote, those before it the classifier's own.")
    return Chart("curves", title, (draw_curves(cast, points, stopping),), tuple(notes))


def _importance(facts: Facts, cast: Cast) -> Chart:
    title = "What matters"
    from sweeps.study.importance import importances_of  # loads optuna, which who reads no report needs not

    found = importances_of(cast.board.trials, facts.spec.search, cast.board.goals, facts.spec.seed)
    rated = [one for one in found.settings if not one.why_not]
    if not rated:
        return Chart("importance", title, notes=(f"No importances: {_why_none(found)}.",))
    rows = [
        (one.setting, percent(one.ped_anova), percent(one.f_anova), str(one.trials), one.why_not or DASH)
        for one in found.settings
    ]
    table = Grid(("setting", "PED-ANOVA", "f-ANOVA", "rests on trials", "remark"), rows, ("setting", "remark"))
    return Chart("importance", title, (_bars(rated),), _notes_on_importance(found), table)


def _why_none(found: Importances) -> str:
    return next((f"{one.why_not} ({found.trials})" for one in found.settings), "nothing is searched")


def _notes_on_importance(found: Importances) -> tuple[str, ...]:
    notes = [
        "PED-ANOVA: what tells the best tenth of the trials from the others. f-ANOVA: how much of the difference in "
        "score each setting explains alone.",
        f"They rest on {plural(found.trials, 'trial')}"
        + (f" of {plural(found.networks, 'training')}" if found.networks < found.trials else "")
        + (
            f", scored after epoch {found.epoch}: fewer than 10 are complete. What decides later may be something else."
            if found.epoch
            else "; those that did not complete are left out, so what ruins a trial may matter more than is shown."
        ),
    ]
    if any(one.conditional and not one.why_not for one in found.settings):
        notes.append(
            "* Only some trials have this setting. PED-ANOVA may overrate it; f-ANOVA compares it among those trials."
        )
    for why in dict.fromkeys(one.why_not for one in found.settings if one.why_not):
        names = ", ".join(one.setting for one in found.settings if one.why_not == why)
        notes.append(f"Without importances, {why}: {names}.")
    if found.outside:
        notes.append(f"{plural(found.outside, 'trial')} outside of the search space left out.")
    if found.thinned:
        notes.append(f"{plural(found.thinned, 'more trial')} left out, by lot, to save time.")
    return tuple(notes)


def _bars(settings: Sequence[Importance]) -> Element:
    """Return the drawing of settings with shares, at least one; all bars have one scale, from 0 to the greatest."""
    most = max(max(one.ped_anova or 0.0, one.f_anova or 0.0) for one in settings)
    inside = [_bar("ped", LEFT, 4.0, 20), text(LEFT + 26, 13, "PED-ANOVA")]
    inside += [_bar("fan", LEFT + 120, 4.0, 20), text(LEFT + 146, 13, "f-ANOVA")]
    for place, one in enumerate(settings):
        y = TOP + place * ROW
        inside.append(text(LEFT - 8, y + 17, shortened(one.setting + "*" * one.conditional, LEFT - 8), "end"))
        for below, kind, share in ((4.0, "ped", one.ped_anova), (17.0, "fan", one.f_anova)):
            if share is not None:
                width = share / most * (RIGHT - LEFT)
                bar = _bar(kind, LEFT, y + below, width)
                inside += [bar, text(LEFT + width + 5, y + below + 9, percent(share), "small")]
    words = f"Importance of {len(settings)} settings by PED-ANOVA and f-ANOVA."
    return drawing(480.0, TOP + ROW * len(settings) + 6, words, *inside)


def _bar(kind: str, x: float, y: float, width: float) -> Element:
    return node("rect", {"class": kind, "x": x, "y": y, "width": width, "height": 10.0})


def _slices(facts: Facts, cast: Cast) -> Chart:
    title, trials = "Each setting", judged(cast)
    having = {name: [trial for trial in trials if name in trial.settings] for name in facts.spec.search}
    having = {name: own for name, own in having.items() if own}
    if not having:
        return Chart("slices", title, notes=("No trial with a searched setting has a score.",))
    drawings = tuple(draw_slice(cast, name, facts.spec.search[name], own) for name, own in having.items())
    best = [trial for trial in trials if trial.number in cast.top]
    rows = tuple(
        (name, str(domain), *(settings_text({name: t.settings[name]}) if name in t.settings else DASH for t in best))
        for name, domain in facts.spec.search.items()
    )
    notes = cast.left_out([trial.number for trial in trials], "trials")
    table = Grid(("setting", "searched", *(f"trial {t.number}" for t in best)), rows, ("setting", "searched"))
    return Chart("slices", title, drawings, notes, table)


def _parallel(facts: Facts, cast: Cast) -> Chart:
    title, trials = "All settings together", judged(cast)
    shown = [trial for trial in trials if cast.best_of[trial.network] == trial.number]
    if not shown or not facts.spec.search:
        return Chart("parallel", title, notes=("No trial with a searched setting has a score.",))
    derived = len(trials) - len(shown)
    notes = [f"{plural(derived, 'derived trial')} left out: of each training the best is shown."] if derived else []
    notes += cast.left_out([trial.number for trial in shown], "lines")
    return Chart("parallel", title, (draw_parallel(cast, facts.spec.search, shown),), tuple(notes))


def _front(cast: Cast) -> Chart:
    title, trials, goals = "Several objectives", measured(cast), cast.board.goals
    if not trials:
        return Chart("front", title, notes=("No complete trial has a value of each objective.",))
    front = [trial for trial in trials if trial.number in cast.board.pareto]
    notes = (
        f"Rings: the Pareto front, {plural(len(front), 'trial')} that no other one beats in all objectives. The line "
        "joins those that none beats in the two that are shown.",
        *cast.left_out([trial.number for trial in trials], "trials"),
    )
    rows = tuple((str(t.number), t.name, *(q.write(t.metrics[q.metric]) for q in goals.objectives)) for t in front)
    drawings = tuple(draw_front(cast, other, trials) for other in goals.objectives[1:])
    table = Grid(("trial", "name", *(q.name for q in goals.objectives)), rows, ("name",))
    return Chart("front", title, drawings, notes, table)


def _timeline(cast: Cast) -> Chart:
    bars, title = bars_of(cast.board.trials), "When and where trials ran"
    if not bars:
        return Chart("timeline", title, notes=("The journal does not tell when a trial ran.",))
    rows = rows_of(bars)
    notes = [
        "▾ a cached stage was found made, + one was made. Time is the sweep's own: pauses between its sessions are not "
        "in it. A trial that was tried again has one bar, where it ran last.",
    ]
    notes += [f"{plural(len(rows) - MOST_ROWS, 'more row')} left out."] if len(rows) > MOST_ROWS else []
    notes += cast.left_out([bar.trial.number for bar in bars], "bars")
    whole = max(bar.end for bar in bars)
    busy = {name: sum(bar.end - bar.start for bar in own) for name, own in rows.items()}
    share = sum(busy.values()) / whole / len(rows)
    notes.append(f"All in all trials ran in these {len(rows)} rows for {min(1.0, share):.0%} of the time.")
    told = [(name, str(len(own)), duration(busy[name]), f"{busy[name] / whole:.0%}") for name, own in rows.items()]
    table = Grid(("row", "trials", "busy", "of the time"), told, ("row",))
    return Chart("timeline", title, (draw_timeline(cast, bars, rows),), tuple(notes), table)


@cache
def _style() -> str:
    return (Path(__file__).parent / "pages" / "charts.css").read_text(encoding="utf-8")
