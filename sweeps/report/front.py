"""The chart of several objectives: the first against each other one, and the trials that no other one beats in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast, named
from sweeps.report.svg import Axis, Scale, Shape, drawing, drawn, line, mark, node, path
from sweeps.spec.objectives import Goals, Quantity
from sweeps.trial import TrialRecord

WIDTH, HEIGHT = 460.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 436.0, 30.0, 272.0
# Quantities of which the greatest is so many times the least have a logarithmic axis.
WIDE = 20.0


def measured(cast: Cast) -> list[TrialRecord]:
    """Return the complete trials that have a value of each objective, best first."""
    return [t for t in cast.trials if t.status == "complete" and cast.board.goals.values(t.metrics) is not None]


def draw_front(cast: Cast, other: Quantity, trials: Sequence[TrialRecord]) -> Element:
    """Return the drawing of the first objective against ``other``; of ``trials``, at least one, best first.

    The line joins those that no other one beats in these two.
    """
    first, two = cast.quantity, Goals((cast.quantity, other), cast.board.goals.constraints)
    across, upward = _scale(other, trials, LEFT, RIGHT), _scale(first, trials, BOTTOM, TOP)
    places = {t.number: (across(t.metrics[other.metric]), upward(t.metrics[first.metric])) for t in trials}
    best = sorted(places[number] for number in two.front({trial.number: trial.metrics for trial in trials}))
    axes = [*Axis(upward, first.name, first.write).upward(LEFT, RIGHT), line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]
    axes += Axis(across, other.name, other.write).across(BOTTOM, 5)
    joined = [node("path", {"class": "front", "d": path(best)})] if len(best) > 1 else []
    words = f"{first.name} against {other.name} of {len(trials)} complete trials."
    return drawing(WIDTH, HEIGHT, words, *axes, *joined, *drawn(_points(cast, other, places, trials)))


def _scale(quantity: Quantity, trials: Sequence[TrialRecord], start: float, end: float) -> Scale:
    values = [trial.metrics[quantity.metric] for trial in trials]
    return Scale.over(values, start, end, log=min(values) > 0 and max(values) > WIDE * min(values))


def _points(
    cast: Cast, other: Quantity, places: dict[int, tuple[float, float]], trials: Sequence[TrialRecord]
) -> Iterator[Shape]:
    front = cast.board.pareto
    for trial in trials:
        words = named(trial, {q.name: q.write(trial.metrics[q.metric]) for q in (cast.quantity, other)})
        shape = {"mark": mark(cast.mark_of(trial), *places[trial.number])}
        shape |= {"ring": mark("ring", *places[trial.number])} if trial.number in front else {}
        yield Shape(*cast.look(trial), words, shape)
