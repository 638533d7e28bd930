"""The chart of learning curves: accuracy by epoch, with the rungs of early stopping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from sweeps.report.cast import Cast, judged_by_epoch, named
from sweeps.report.svg import Axis, Scale, Shape, drawing, drawn, line, mark, path, text
from sweeps.spec.fields import EarlyStopping
from sweeps.text import plural
from sweeps.trial import TrialRecord

WIDTH, HEIGHT = 640.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 600.0, 48.0, 296.0
# So many points all curves may have together; then those in the background keep every second, third … of theirs.
MOST_POINTS = 20_000

Points = Mapping[int, Sequence[tuple[int, float]]]


def points_of(cast: Cast) -> dict[int, list[tuple[int, float]]]:
    """Return epoch and value of each measurement, by number of the trials that have any."""
    metric = judged_by_epoch(cast.quantity).metric
    trials = (trial for trial in cast.trials if trial.derived_from is None)
    points = {t.number: [(m.epoch, m.metrics[metric]) for m in t.history if metric in m.metrics] for t in trials}
    return {number: own for number, own in points.items() if own}


def draw_curves(cast: Cast, points: Points, stopping: EarlyStopping) -> Element:
    """Return the drawing; ``points`` has at least one trial."""
    quantity = judged_by_epoch(cast.quantity)
    epochs = Scale.over([epoch for own in points.values() for epoch, _ in own] + [0], LEFT, RIGHT)
    values = Scale.over([value for own in points.values() for _, value in own], BOTTOM, TOP)
    axes = [
        *Axis(values, f"validation {quantity.name}", quantity.write).upward(LEFT, RIGHT),
        *Axis(epochs, "epoch", lambda epoch: f"{epoch:g}", whole=True).across(BOTTOM),
    ]
    trials = [trial for trial in cast.trials if trial.number in points]
    shapes = drawn(_shapes(cast, trials, points, epochs, values))
    words = f"Validation {quantity.name} by epoch of {plural(len(points), 'trial')}."
    names = _names([(trial, values(points[trial.number][-1][1])) for trial in trials if _is_top(cast, trial)])
    return drawing(WIDTH, HEIGHT, words, *axes, *_rungs(trials, stopping, epochs), *shapes, *names)


def _is_top(cast: Cast, trial: TrialRecord) -> bool:
    kind, _ = cast.look(trial, of_network=True)
    return kind.endswith(("winner", "top"))


def _names(ends: Sequence[tuple[TrialRecord, float]]) -> Iterator[Element]:
    """Yield the numbers of trials beside the heights at which their curves end, none over another."""
    lowest = 0.0
    for trial, y in sorted(ends, key=lambda end: end[1]):
        lowest = max(y, lowest + 12)
        yield text(RIGHT + 10, lowest + 4, str(trial.number), "small")


def _shapes(cast: Cast, trials: Sequence[TrialRecord], points: Points, epochs: Scale, values: Scale) -> Iterator[Shape]:
    every, quantity = step_of(points), judged_by_epoch(cast.quantity)
    for trial in trials:
        own = points[trial.number]
        kept = own if trial.number in cast.alone else [*own[:-1:every], own[-1]]
        places = [(epochs(epoch), values(value)) for epoch, value in kept]
        end = mark(cast.mark_of(trial, of_network=True), *places[-1])
        said = f"{quantity.write(own[-1][1])} after {plural(own[-1][0], 'epoch')}"
        words = named(trial, {quantity.name: said})
        yield Shape(*cast.look(trial, of_network=True), words, {"line": path(places), "mark": end})


def step_of(points: Points) -> int:
    """Return that a curve in the background shows each so-manieth of its epochs, and the last."""
    return -(-sum(map(len, points.values())) // MOST_POINTS)


def rung_counts(trials: Sequence[TrialRecord], stopping: EarlyStopping) -> dict[int, tuple[int, int]]:
    """Return by rung, an epoch from 1, how many searched trials went on there, and how many were stopped."""
    searched = [trial for trial in trials if trial.experiment is None and trial.derived_from is None]
    counts: dict[int, tuple[int, int]] = {}
    for trial in searched:
        for rung in stopping.rungs(trial.config["epochs"]):
            went_on, stopped = counts.get(rung, (0, 0))
            is_stopped = trial.status == "pruned" and trial.epochs == rung
            counts[rung] = (went_on + (trial.epochs > rung), stopped + is_stopped)
    return {rung: counts[rung] for rung in sorted(counts)}


def _rungs(trials: Sequence[TrialRecord], stopping: EarlyStopping, epochs: Scale) -> Iterator[Element]:
    for rung, (went_on, stopped) in rung_counts(trials, stopping).items():
        if epochs.low <= rung <= epochs.high:
            yield line(epochs(rung), TOP - 4, epochs(rung), BOTTOM, "rung")
            yield text(epochs(rung), TOP - 8, f"{went_on} on, {stopped} stopped", "middle small")
