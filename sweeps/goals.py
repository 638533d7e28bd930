"""What a sweep is after, whole: objectives and constraints, and what they make of trials' metrics.

A loss is a value of which less is better. A point is a trial with one loss for each objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.constraints import Constraint, parse_constraint
from sweeps.objectives import ACCURACY, Quantity, parse_objectives, values_of

Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Goals:
    """The objectives, the one that decides the winner first, and the limits that it must keep."""

    objectives: tuple[Quantity, ...] = (ACCURACY,)
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def parse(cls, objectives: Sequence[str], constraints: Sequence[str], family: str | None = None) -> Goals:
        """Return the goals that texts say.

        Raises:
            ValueError: a text is wrong.
        """
        return cls(parse_objectives(objectives, family), tuple(parse_constraint(c, family) for c in constraints))

    @property
    def first(self) -> Quantity:
        """What decides the winner."""
        return self.objectives[0]

    @property
    def are_several(self) -> bool:
        """Whether there is a front to find."""
        return len(self.objectives) > 1

    @property
    def stop_early(self) -> bool:
        """Whether trials may be stopped early, which is judged by accuracy alone and would end small, fast ones."""
        return self.objectives == (ACCURACY,)

    @property
    def notes(self) -> list[str]:
        """What the user should know before the sweep."""
        if self.stop_early:
            return []
        return ["Early stopping is off: it judges by accuracy alone, and would end what is good at something else."]

    def lines(self) -> list[str]:
        """Return the goals in words, a sentence a line; none for accuracy alone without limits."""
        ways = {"maximize": "highest", "minimize": "lowest"}
        named = [f"{objective.name} ({ways[objective.direction]})" for objective in self.objectives]
        decides = f"; the winner is the best in {self.first.name}" if self.are_several else ""
        lines = [] if self.objectives == (ACCURACY,) else [f"Objectives: {', '.join(named)}{decides}."]
        return lines + ([f"Constraints: {', '.join(map(str, self.constraints))}."] if self.constraints else [])

    def broken_by(self, metrics: Mapping[str, float]) -> str:
        """Return which limits the metrics break, in words; empty where they break none that was measured."""
        return ", ".join(filter(None, (constraint.broken_by(metrics) for constraint in self.constraints)))

    def infeasible(self, metrics: Mapping[str, float]) -> str:
        """Return why a complete trial may not win: limits that it breaks, or that were never measured; or nothing."""
        missing = [
            f"{c.quantity.metric} was not measured" for c in self.constraints if c.quantity.metric not in metrics
        ]
        return ", ".join(filter(None, (self.broken_by(metrics), *missing)))

    def may_win(self, metrics: Mapping[str, float]) -> bool:
        """Tell whether a complete trial may win: what decides was measured, and it keeps all constraints."""
        measured = all(math.isfinite(metrics.get(name, math.nan)) for name in (self.first.metric, ACCURACY.metric))
        return measured and not self.infeasible(metrics)

    def order(self, number: int, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return what orders trials, the best least: first objective, accuracy, loss, number; infinite if unknown."""
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        first = self.first.loss(known[self.first.metric]) if self.first.metric in known else math.inf
        return first, -known.get(ACCURACY.metric, -math.inf), known.get("val_loss", math.inf), number

    def excess(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the metrics break the limits in all, as shares of the bounds; 0 when they keep them."""
        known = [c for c in self.constraints if c.quantity.metric in metrics]
        return sum(max(0.0, constraint.excess(metrics[constraint.quantity.metric])) for constraint in known)

    def front(self, metrics: Mapping[int, Mapping[str, float]]) -> tuple[int, ...]:
        """Return the trials on the Pareto front, ascending: those that keep all limits and that no other one dominates.

        Args:
            metrics: of complete trials, by number. Those without a value of an objective are not on the front; of
                those with equal values the first is.
        """
        first = {point: number for number, point in reversed(self._losses(metrics).items())}
        return tuple(pareto_front({number: point for point, number in first.items()}))

    def compromise(self, metrics: Mapping[int, Mapping[str, float]]) -> int | None:
        """Return the trial of the front that is nearest to the best of every objective, or None without a front."""
        losses = self._losses({number: metrics[number] for number in self.front(metrics)})
        return compromise(losses) if losses else None

    def _losses(self, metrics: Mapping[int, Mapping[str, float]]) -> dict[int, Point]:
        found = {}
        for number, measured in metrics.items():
            values = values_of(measured, self.objectives)
            if values is not None and not self.infeasible(measured):
                found[number] = tuple(o.loss(value) for o, value in zip(self.objectives, values, strict=True))
        return found


ACCURACY_ALONE = Goals()


def pareto_front(points: Mapping[int, Point]) -> list[int]:
    """Return the points, ascending, that no other one dominates.

    One point dominates another when it is nowhere worse and somewhere better; equal points do not dominate each other.

    >>> pareto_front({7: (0, 3), 8: (1, 1), 9: (2, 2)})
    [7, 8]
    """
    front: list[int] = []
    # Whoever dominates a point stands before it in this order, and is on the front or dominated by one who is.
    for number in sorted(points, key=lambda number: points[number]):
        if not any(_dominates(points[other], points[number]) for other in front):
            front.append(number)
    return sorted(front)


def _dominates(one: Point, other: Point) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def compromise(points: Mapping[int, Point]) -> int:
    """Return the point nearest to the best of every objective, each scaled to [0, 1] over the points.

    The distance is Euclidean (the compromise solution of Yu 1973); the first of equals.

    >>> compromise({7: (0, 10), 8: (1, 1), 9: (10, 0)})
    8
    """
    axes = list(zip(*points.values(), strict=True))
    least = [min(axis) for axis in axes]
    spans = [max(axis) - low or 1.0 for axis, low in zip(axes, least, strict=True)]

    def distance(number: int) -> float:
        return math.hypot(*((x - low) / span for x, low, span in zip(points[number], least, spans, strict=True)))

    return min(points, key=distance)
