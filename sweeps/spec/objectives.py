"""What a sweep is after: quantities to optimize, limits that a trial must keep to win, and what both make of metrics.

A limit reads ``predict_ms <= 5``, ``parameters <= 10M`` or ``accuracy >= 70%``. A loss is a value of which less is
better. A point is a trial with one loss for each objective.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from carcls.catalog import find_family
from carcls.errors import nearest, shown
from sweeps.text import percent, short_count

Unit = Literal["share", "nats", "milliseconds", "count"]
Point = tuple[float, ...]
_FORM = re.compile(r"\s*([A-Za-z_][\w]*)\s*(<=|>=|<|>)\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%]*)\s*", re.ASCII)
_EXAMPLES = "Examples: 'predict_ms <= 5', 'parameters <= 10M', 'accuracy >= 70%'."
_BROKEN = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}
# Letters after a number, and what they multiply it by.
_FACTORS: Mapping[Unit, Mapping[str, str]] = {
    "share": {"%": "0.01", "": "1"},
    "nats": {"": "1"},
    "milliseconds": {"": "1", "ms": "1", "s": "1e3"},
    "count": {"G": "1e9", "B": "1e9", "M": "1e6", "k": "1e3", "K": "1e3", "": "1"},
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured, or known, of each trial.

    Attributes:
        name: what an objective says; ``metric`` is understood as well.
        about: what it is, in a sentence for help.
        metric: where the trial's metrics have it.
        direction: in which it is better.
        unit: of its values; a share is in [0, 1].
        of_neighbours: whether trials that answer by neighbours have it, too.
    """

    name: str
    about: str
    metric: str
    direction: Literal["maximize", "minimize"]
    unit: Unit
    of_neighbours: bool = True

    def loss(self, value: float) -> float:
        """Return the value so that less is better; times to two digits, since more of them do not repeat."""
        if self.unit == "milliseconds":
            value = float(f"{value:.1e}")
        return -value if self.direction == "maximize" else value

    def write(self, value: float) -> str:
        """Write a value for a person.

        >>> [q.write(v) for q, v in zip(QUANTITIES, (0.812, 0.8, 0.95, 1.25, 4.123, 25.6e6))]
        ['81.2%', '80.0%', '95.0%', '1.25', '4.12 ms', '25.6M']
        """
        if self.unit == "share":
            return percent(value)
        if self.unit == "count":
            return short_count(value)
        return f"{value:.3g} ms" if self.unit == "milliseconds" else f"{value:.3g}"


QUANTITIES = (
    Quantity("accuracy", "share of the validation images that are told right", "val_accuracy", "maximize", "share"),
    Quantity("f1", "F1 on the validation images, each class weighted by its images", "val_f1", "maximize", "share"),
    Quantity(
        "top5", "share of them whose class is among the first five answers", "val_top5", "maximize", "share", False
    ),
    Quantity("loss", "mean loss on the validation images", "val_loss", "minimize", "nats", False),
    Quantity("predict_time", "time of one answer, from decoded pixels", "predict_ms", "minimize", "milliseconds"),
    Quantity("parameters", "parameters of the network that answers", "parameters", "minimize", "count"),
)
ACCURACY = QUANTITIES[0]
# One, and a limit of one, as a spec has them.
ObjectiveName = Annotated[str, Field(json_schema_extra={"enum": [quantity.name for quantity in QUANTITIES]})]
Limit = Annotated[str, Field(examples=["predict_ms <= 5", "parameters <= 10M", "accuracy >= 70%"])]


def find_quantity(name: str, family: str | None = None) -> Quantity:
    """Return the quantity called ``name``, which trials of ``family`` must have when it is given.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    by_neighbours = family is not None and find_family(family).neighbours
    known = [quantity for quantity in QUANTITIES if quantity.of_neighbours or not by_neighbours]
    for quantity in known:
        if name in (quantity.name, quantity.metric):
            return quantity
    whose = "a trial" if family is None else f"a trial of the {family} family"
    raise ValueError(f"must be what {whose} is judged by, got {shown(name)}." + nearest(name, [q.name for q in known]))


def parse_objectives(names: Sequence[str], family: str | None = None) -> tuple[Quantity, ...]:
    """Return the quantities that a sweep optimizes, the one that decides first.

    Raises:
        ValueError: there is none, one is unknown, or one is named twice.
    """
    found = tuple(find_quantity(name.strip(), family) for name in names)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"must name one or more quantities, each once, got {shown(list(names))}. Example: accuracy.")
    return found


@dataclass(frozen=True, slots=True)
class Constraint:
    """One limit: an operator of ``<=``, ``<``, ``>=``, ``>``, and a bound in the unit of the quantity."""

    quantity: Quantity
    operator: str
    bound: float

    @property
    def _name(self) -> str:
        return self.quantity.metric.removeprefix("val_")

    def __str__(self) -> str:
        """Write it with the bound in the shortest form that is read back to it: sweeps are told apart by this."""
        forms = {}
        for letters, factor in _FACTORS[self.quantity.unit].items():
            number = f"{float(Decimal(repr(self.bound)) / Decimal(factor)):g}"
            if "e" not in number:
                forms[number + letters] = float(Decimal(number) * Decimal(factor))
        exact = [form for form, value in forms.items() if value == self.bound]
        return f"{self._name} {self.operator} {min(exact, key=len, default=repr(self.bound))}"

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
        written, limit = self.quantity.write(value), self.quantity.write(self.bound)
        if written == limit:  # too close for the short form
            written, limit = f"{value:.10g}", f"{self.bound:.10g}"
        return f"{self._name} {written} {_BROKEN[self.operator]} {limit}"


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
    factors = _FACTORS[quantity.unit]
    got = f"got {shown(text)}. {_EXAMPLES}"
    if letters not in factors:
        known = ", ".join(filter(None, factors)) or "none"
        raise ValueError(f"must have a unit of {quantity.name} ({known}) or none, {got}")
    try:
        bound = float(Decimal(number) * Decimal(factors[letters]))
    except ArithmeticError:
        raise ValueError(f"must compare with a number, {got}") from None
    if quantity.unit == "share" and not 0 <= bound <= 1:
        raise ValueError(f"must compare {quantity.name} with a share in [0, 1] or a percentage, {got}")
    if not math.isfinite(bound) or (bound <= 0 and quantity.unit != "share"):
        raise ValueError(f"must compare {quantity.name} with a finite number above 0, {got}")
    return Constraint(quantity, operator, bound)


@dataclass(frozen=True, slots=True)
class Goals:
    """The objectives, the one that decides the winner first, and the limits that it must keep."""

    objectives: tuple[Quantity, ...] = (ACCURACY,)
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def parse(cls, objectives: Sequence[str], constraints: Sequence[str]) -> Goals:
        """Return the goals that texts say.

        Raises:
            ValueError: a text is wrong.
        """
        return cls(parse_objectives(objectives), tuple(map(parse_constraint, constraints)))

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

    def lines(self) -> list[str]:
        """Return the goals and what follows from them, a sentence a line; none for accuracy alone without limits."""
        ways = {"maximize": "highest", "minimize": "lowest"}
        named = [f"{objective.name} ({ways[objective.direction]})" for objective in self.objectives]
        decides = f"; the winner is the best in {self.first.name}" if self.are_several else ""
        objectives = [
            f"Objectives: {', '.join(named)}{decides}.",
            "Early stopping is off: it judges by accuracy alone, and would end what is good at something else.",
        ]
        constraints = [f"Constraints: {', '.join(map(str, self.constraints))}."] if self.constraints else []
        return ([] if self.stop_early else objectives) + constraints

    def values(self, metrics: Mapping[str, float]) -> Point | None:
        """Return the objectives' values, or None where one was not measured."""
        values = tuple(metrics.get(objective.metric, math.nan) for objective in self.objectives)
        return values if all(map(math.isfinite, values)) else None

    def broken_by(self, metrics: Mapping[str, float]) -> str:
        """Return which limits the metrics break, in words; empty where they break none that was measured."""
        return ", ".join(filter(None, (constraint.broken_by(metrics) for constraint in self.constraints)))

    def infeasible(self, metrics: Mapping[str, float]) -> str:
        """Return why a complete trial may not win: limits that it breaks, or that were never measured; or nothing."""
        asked = [constraint.quantity.metric for constraint in self.constraints]
        missing = [f"{metric} was not measured" for metric in asked if metric not in metrics]
        return ", ".join(filter(None, (self.broken_by(metrics), *missing)))

    def may_win(self, metrics: Mapping[str, float]) -> bool:
        """Tell whether a complete trial may win: what decides was measured, and it keeps all constraints."""
        measured = all(math.isfinite(metrics.get(name, math.nan)) for name in (self.first.metric, ACCURACY.metric))
        return measured and not self.infeasible(metrics)

    def order(self, number: int, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return what orders trials, the best least: each objective, accuracy, loss, number; infinite if unknown."""
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        point = (o.loss(known[o.metric]) if o.metric in known else math.inf for o in self.objectives)
        return *point, -known.get(ACCURACY.metric, -math.inf), known.get("val_loss", math.inf), number

    def excess(self, metrics: Mapping[str, float]) -> float:
        """Return by how much the metrics break the limits in all, as shares of the bounds; 0 when they keep them."""
        known = [c for c in self.constraints if c.quantity.metric in metrics]
        return sum(max(0.0, constraint.excess(metrics[constraint.quantity.metric])) for constraint in known)

    def front(self, metrics: Mapping[int, Mapping[str, float]]) -> tuple[int, ...]:
        """Return the trials on the Pareto front, ascending: those that keep all limits and that no other one dominates.

        One dominates another when it is nowhere worse and somewhere better.

        Args:
            metrics: of complete trials, by number. Those without a value of an objective are not on the front; of
                those with equal values the best by ``order`` is, so that the winner is on it.
        """
        front: dict[Point, int] = {}
        # Whoever dominates a point stands before it in this order, and is on the front or dominated by one who is.
        points = self._points(metrics)
        for number in sorted(points, key=lambda number: self.order(number, metrics[number])):
            point = points[number]
            if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in front):
                front[point] = number
        return tuple(sorted(front.values()))

    def compromise(self, metrics: Mapping[int, Mapping[str, float]]) -> int | None:
        """Return the trial of the front that is nearest to the best of every objective, or None without a front.

        Each objective is scaled to [0, 1] over the front; the distance is Euclidean (the compromise solution of Yu
        1973), and the first of equals counts.
        """
        points = self._points({number: metrics[number] for number in self.front(metrics)})
        axes = [(min(axis), max(axis) - min(axis) or 1.0) for axis in zip(*points.values(), strict=True)]

        def distance(number: int) -> float:
            return math.hypot(*((x - low) / span for x, (low, span) in zip(points[number], axes, strict=True)))

        return min(points, key=distance, default=None)

    def _points(self, metrics: Mapping[int, Mapping[str, float]]) -> dict[int, Point]:
        found = {}
        for number, measured in metrics.items():
            values = self.values(measured)
            if values is not None and not self.infeasible(measured):
                found[number] = tuple(o.loss(value) for o, value in zip(self.objectives, values, strict=True))
        return found


ACCURACY_ALONE = Goals()
