"""Charts of the score: against each searched setting, against other objectives, and all settings side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast, named
from sweeps.report.svg import Axis, Scale, Shape, Slots, drawing, drawn, line, mark, node, path, shortened, text
from sweeps.spec.objectives import Goals, Quantity
from sweeps.spec.space import Choice, Domain
from sweeps.text import settings_text
from sweeps.trial import TrialRecord

WIDTH, HEIGHT = 230.0, 180.0  # of a slice
LEFT, RIGHT, TOP, BOTTOM = 46.0, 212.0, 30.0, 148.0
BETWEEN = 92.0  # two axes side by side
HIGH, LOW = 56.0, 300.0

GOLDEN = 0.618034
# Quantities of which the greatest is so many times the least have a logarithmic axis.
WIDE = 20.0


def scattered(number: int) -> float:
    """Return a place in [-1, 1] that follows from a trial's number, far from those of the numbers beside it."""
    return number * GOLDEN % 1 * 2 - 1


def judged(cast: Cast) -> list[TrialRecord]:
    """Return the complete and the stopped trials that have a score, best first."""
    return [t for t in cast.trials if t.status in ("complete", "pruned") and cast.value(t) is not None]


def _slots(name: str, domain: Domain, trials: Sequence[TrialRecord], start: float, end: float) -> Slots:
    """Return the axis of a setting, with what lies outside of the search space and, for those that lack it, None."""
    values: list[Any] = [trial.settings.get(name) for trial in trials]
    if isinstance(domain, Choice):
        return Slots.of(values, domain.choices, start, end)
    return Slots.of([*values, domain.low, domain.high], (), start, end, log=domain.log)


def _scores(cast: Cast, trials: Sequence[TrialRecord], low: float, high: float) -> Scale:
    return Scale.over([value for trial in trials if (value := cast.value(trial)) is not None], low, high)


def draw_slice(cast: Cast, name: str, domain: Domain, trials: Sequence[TrialRecord]) -> Element:
    """Return the drawing of one setting; ``trials`` are those that have it, at least one, best first."""
    across, scores = _slots(name, domain, trials, LEFT, RIGHT), _scores(cast, trials, BOTTOM, TOP)
    axis = Axis(scores, name, cast.quantity.write).upward(LEFT, RIGHT, 3)
    axis += [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"), *_ticks(across, BOTTOM + 16)]
    words = f"{cast.quantity.name} by {name} of {len(trials)} trials."
    places = {t.number: (across(t.settings[name], scattered(t.number)), scores(cast.value(t) or 0.0)) for t in trials}
    said = {t.number: {"with": settings_text({name: t.settings[name]})} for t in trials}
    return drawing(WIDTH, HEIGHT, words, *axis, *drawn(_points(cast, trials, places, said)))


def _ticks(across: Slots, y: float) -> Iterator[Element]:
    for x, said in across.ticks():
        short = shortened(said, across.width if across.scale is None else 60)
        whole = [node("title", {}, said)] if short != said else []
        yield node("text", {"x": x, "y": y, "class": "middle small"}, short, *whole)


def measured(cast: Cast) -> list[TrialRecord]:
    """Return the complete trials that have a value of each objective, best first."""
    return [t for t in cast.trials if t.status == "complete" and cast.board.goals.values(t.metrics) is not None]


def draw_front(cast: Cast, other: Quantity, trials: Sequence[TrialRecord]) -> Element:
    """Return the drawing of the first objective against ``other``; of ``trials``, at least one, best first.

    The line joins those that no other one beats in these two; rings are the Pareto front of all objectives.
    """
    first, two = cast.quantity, Goals((cast.quantity, other), cast.board.goals.constraints)
    values = [trial.metrics[other.metric] for trial in trials]
    across = Scale.over(values, 52, 436, log=min(values) > 0 and max(values) > WIDE * min(values))
    upward = _scores(cast, trials, 272, 30)
    places = {t.number: (across(t.metrics[other.metric]), upward(cast.value(t) or 0.0)) for t in trials}
    best = sorted(places[number] for number in two.front({trial.number: trial.metrics for trial in trials}))
    axes = [
        *Axis(upward, first.name, first.write).upward(52, 436),
        *Axis(across, other.name, other.write).across(272, 5),
    ]
    joined = [node("path", {"class": "front", "d": path(best)})] if len(best) > 1 else []
    words = f"{first.name} against {other.name} of {len(trials)} complete trials."
    said = {t.number: {other.name: other.write(t.metrics[other.metric])} for t in trials}
    return drawing(460, 320, words, *axes, *joined, *drawn(_points(cast, trials, places, said, cast.board.pareto)))


def _points(
    cast: Cast,
    trials: Sequence[TrialRecord],
    places: Mapping[int, tuple[float, float]],
    said: Mapping[int, Mapping[str, str]],
    rings: Collection[int] = (),
) -> Iterator[Shape]:
    for trial in trials:
        (kind, numbers), (x, y) = cast.look(trial), places[trial.number]
        if not numbers:
            x, y = round(x), round(y)  # what falls on one pixel is drawn once
        words = named(trial, {cast.quantity.name: cast.quantity.write(cast.value(trial) or 0.0), **said[trial.number]})
        marks = [("mark", cast.mark_of(trial)), *[("ring", "ring")] * (trial.number in rings)]
        yield Shape(kind, numbers, words, {name: mark(which, x, y) for name, which in marks})


def draw_parallel(cast: Cast, search: dict[str, Domain], trials: Sequence[TrialRecord]) -> Element:
    """Return the drawing of all settings side by side, the score last; ``trials`` has at least one, best first."""
    axes = {n: _slots(n, domain, trials, LOW, HIGH) for n, domain in search.items()}
    places = {name: 60 + place * BETWEEN for place, name in enumerate(axes)}
    last, scores = 60 + len(axes) * BETWEEN, _scores(cast, trials, LOW, HIGH)
    lines = [line(x, HIGH, x, LOW, "axis") for x in (*places.values(), last)]
    written = [text(places[n], 14.0 + 16 * (place % 2), n, "middle small") for place, n in enumerate(axes)]
    written.append(text(last, 14.0 + 16 * (len(axes) % 2), cast.quantity.name, "middle"))
    for name, axis in axes.items():
        written += [_label(places[name], y, said) for y, said in axis.ticks(4, 14.0)]
    written += [_label(last, scores(value), cast.quantity.write(value)) for value in scores.ticks()]
    shapes = []
    for trial in trials:
        score = cast.value(trial) or 0.0
        through = [(places[n], axis(trial.settings.get(n), scattered(trial.number))) for n, axis in axes.items()]
        words = named(trial, {cast.quantity.name: cast.quantity.write(score), "with": settings_text(trial.settings)})
        shapes.append(Shape(*cast.look(trial), words, {"line": path([*through, (last, scores(score))])}))
    words = f"Settings and {cast.quantity.name} of {len(trials)} trials, a line each."
    return drawing(last + 60, LOW + 20, words, *lines, *drawn(shapes), *written)


def _label(x: float, y: float, said: str) -> Element:
    return text(x + 4, y + 4, shortened(said, BETWEEN - 12), "small halo")
