"""What a sweep is after: the quantities that trials are judged by, in which direction, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from carcls.errors import nearest, shown
from sweeps.text import percent, short_count

Unit = Literal["share", "nats", "milliseconds", "count"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured, or known, of each trial.

    Attributes:
        name: what an objective says.
        metric: where the trial's metrics have it.
        direction: in which it is better.
        unit: of its values; a share is in [0, 1].
        families: whose trials have it.
    """

    name: str
    metric: str
    direction: Literal["maximize", "minimize"]
    unit: Unit
    families: tuple[str, ...] = ("transfer", "retrieval", "scratch")

    @property
    def names(self) -> tuple[str, ...]:
        """All names that it may be called by."""
        return (self.name, self.metric) if self.metric != self.name else (self.name,)

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


_CLASSIFIERS = ("transfer", "scratch")
QUANTITIES = (
    Quantity("accuracy", "val_accuracy", "maximize", "share"),
    Quantity("f1", "val_f1", "maximize", "share"),
    Quantity("top5", "val_top5", "maximize", "share", _CLASSIFIERS),
    Quantity("loss", "val_loss", "minimize", "nats", _CLASSIFIERS),
    Quantity("predict_time", "predict_ms", "minimize", "milliseconds"),
    Quantity("parameters", "parameters", "minimize", "count"),
)
ACCURACY = QUANTITIES[0]


def find_quantity(name: str, family: str | None = None) -> Quantity:
    """Return the quantity called ``name``, which trials of ``family`` must have when it is given.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    known = [quantity for quantity in QUANTITIES if family is None or family in quantity.families]
    for quantity in known:
        if name in quantity.names:
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


def values_of(metrics: Mapping[str, float], objectives: Sequence[Quantity]) -> tuple[float, ...] | None:
    """Return the objectives' values, or None where one was not measured."""
    values = tuple(metrics.get(objective.metric, math.nan) for objective in objectives)
    return values if all(math.isfinite(value) for value in values) else None
