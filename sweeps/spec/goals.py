"""What a sweep is after: objectives, and limits that a trial must keep to win; and what they make of trials' metrics.

A limit reads ``predict_ms <= 5``, ``parameters <= 10M`` or ``accuracy >= 70%``. A loss is a value of which less is
better. A point is a trial with one loss for each objective.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from carcls.errors import shown
from sweeps.spec.objectives import ACCURACY, Quantity, Unit, find_quantity, parse_objectives, values_of

Point = tuple[float, ...]
Operator = Literal["<=", "<", ">=", ">"]
_FORM = re.compile(r"\s*([A-Za-z_][\w]*)\s*(<=|>=|<|>)\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%]*)\s*", re.ASCII)
_EXAMPLES = "Examples: 'predict_ms <= 5', 'parameters <= 10M', 'accuracy >= 70%'."
# Letters after a number, and what they multiply it by.
_UNITS: Mapping[Unit, Mapping[str, str]] = {
    "share": {"%": "0.01", "": "1"},
    "nats": {"": "1"},
    "milliseconds": {"": "1", "ms": "1", "s": "1e3"},
    "count": {"G": "1e9", "B": "1e9", "M": "1e6", "k": "1e3", "K": "1e3", "": "1"},
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One limit; ``bound`` in the unit of the quantity."""

    quantity: Quantity
    operator: Operator
    bound: float

    def __str__(self) -> str:
        return f"{self.quantity.metric.removeprefix('val_')} {self.operator} {_write_bound(self.quantity, self.bound)}"

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the limit, as a share of the bound; 0 or less where it keeps it.

        A share of the bound makes limits of different units comparable.
        """
        over = value - self.bound if self.operator[0] == "<" else self.bound - value
        relative = over / max(abs(self.bound), 1e-12)
        # What must be below is not kept by equality.
        return max(relative, 1e-9) if relative == 0 and len(self.operator) == 1 else relative

    def broken_by(self, metrics: Mapping[str, float]) -> str:
        """Return how the metrics break the limit, in words; empty where they keep it or it was not measured."""
        value = metrics.get(self.quantity.metric, math.nan)
        if not self.excess(value) > 0:
            return ""
        against = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}[self.operator]
        name = self.quantity.metric.removeprefix("val_")
        written, limit = self.quantity.write(value), self.quantity.write(self.bound)
        if written == limit:  # too close for the short form
            written, limit = f"{value:.10g}", f"{self.bound:.10g}"
        return f"{name} {written} {against} {limit}"


def parse_constraint(text: str, family: str | None = None) -> Constraint:
    """Return the limit that ``text`` says.

    Raises:
        ValueError: it is no comparison of a known quantity with a number, or no value could keep it or break it.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"must be NAME <= NUMBER (or <, >=, >), got {shown(text)}. {_EXAMPLES}")
    name, operator, number, letters = form.groups()
    quantity = find_quantity(name, family)
    bound = _bound(number, letters, quantity, text)
    return Constraint(quantity, next(op for op in get_args(Operator) if op == operator), bound)


def _bound(number: str, letters: str, quantity: Quantity, text: str) -> float:
    units = _UNITS[quantity.unit]
    try:
        bound = float(Decimal(number) * Decimal(units[letters]))
    except ArithmeticError:
        raise ValueError(f"must compare with a number, got {shown(number)} in {shown(text)}. {_EXAMPLES}") from None
    except KeyError:
        known = ", ".join(unit for unit in units if unit) or "none"
        raise ValueError(
            f"must have a unit of {quantity.name} ({known}) or none, got {shown(letters)} in {shown(text)}. {_EXAMPLES}"
        ) from None
    if quantity.unit == "share" and not 0 <= bound <= 1:
        raise ValueError(f"must compare {quantity.name} with a share in [0, 1] or a percentage, got {shown(text)}.")
    if not math.isfinite(bound) or (bound <= 0 and quantity.unit != "share"):
        raise ValueError(f"must compare {quantity.name} with a finite number above 0, got {shown(text)}.")
    return bound


def _write_bound(quantity: Quantity, bound: float) -> str:
    """Write a bound in the shortest of the forms that are read back to the same number."""
    units = _UNITS[quantity.unit]
    forms = [f"{float(Decimal(repr(bound)) / Decimal(factor)):g}{unit}" for unit, factor in units.items()]
    exact = [form for form in forms if "e" not in form and _read(form, quantity) == bound]
    return min(exact, key=len, default=repr(bound))


def _read(form: str, quantity: Quantity) -> float:
    return parse_constraint(f"{quantity.name} <= {form}").bound


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
