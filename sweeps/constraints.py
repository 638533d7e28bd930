"""Limits that a trial must keep to win: ``predict_ms <= 5``, ``parameters <= 10M``, ``accuracy >= 70%``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from carcls.errors import shown
from sweeps.objectives import Quantity, Unit, find_quantity

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
