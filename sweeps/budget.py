"""What a sweep may spend, what it has spent, and what that costs. Plain arithmetic: no ray, no optuna."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from carcls.errors import shown

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

# The budget that ends a sweep; empty while none does.
UsedUp = Literal["", "hours", "epochs", "cost"]

_PRICE = re.compile(r"([$€£]?)\s*(\d+(?:\.\d*)?|\.\d+)\s*/\s*(gpu-hour|cpu-hour|hour)")
_HOUR = 3600.0
_HIGHEST = 1e9


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour costs: of a GPU, of a CPU core, and of the whole sweep, whatever it uses."""

    gpu_hour: float = 0.0
    cpu_hour: float = 0.0
    hour: float = 0.0
    currency: str = "$"


@dataclass(frozen=True, slots=True)
class Spent:
    """What trials took.

    Attributes:
        seconds: wall time in their processes.
        epochs: really trained; what came from the store or from a checkpoint is free.
        cpu_seconds, gpu_seconds: wall time times the trial's share.
    """

    seconds: float = 0.0
    epochs: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.seconds + other.seconds,
            self.epochs + other.epochs,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """The budgets of a whole sweep, over all its sittings; None is no limit.

    Attributes:
        epochs: no trial starts once so many are trained.
        max_cost: no trial starts that would, by the forecast, cost more.
        prices: None where no price is known.
    """

    epochs: int | None = None
    max_cost: float | None = None
    prices: Prices | None = None


def parse_price(text: str) -> Prices:
    """Return the prices that a text names; several are joined by ``+``.

    Raises:
        ValueError: it does not look like a price, names a unit twice, or mixes currencies, or is beyond reason.

    >>> parse_price("2.5/gpu-hour + 0.05/cpu-hour")
    Prices(gpu_hour=2.5, cpu_hour=0.05, hour=0.0, currency='$')
    """
    found: dict[str, float] = {}
    currencies: set[str] = set()
    for part in text.split("+"):
        match = _PRICE.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"price must be AMOUNT/gpu-hour, /cpu-hour or /hour, several joined by '+', got {shown(text)}. "
                "Give one such as 2.5/gpu-hour."
            )
        currency, amount, unit = match.groups()
        if unit in found:
            raise ValueError(f"price must name each unit once, got {shown(text)}. Leave one of the two /{unit} out.")
        found[unit] = float(amount)
        if found[unit] > _HIGHEST:
            raise ValueError(f"price must be at most {_HIGHEST:g} each hour, got {shown(text)}.")
        currencies |= {currency} - {""}
    if len(currencies) > 1:
        raise ValueError(f"price must be in one currency, got {shown(text)}. Convert one of them.")
    return Prices(found.get("gpu-hour", 0.0), found.get("cpu-hour", 0.0), found.get("hour", 0.0), (*currencies, "$")[0])


def budget_of(spec: SweepSpec) -> Budget:
    """Return the budgets that a spec sets."""
    return Budget(spec.epochs_budget, spec.max_cost, parse_price(spec.price) if spec.price else None)


def idle_prices(spec: SweepSpec, gpus: float) -> list[str]:
    """Return a sentence on a price of GPUs where no trial holds one: the sweep then seems to cost nothing."""
    prices = parse_price(spec.price) if spec.price else Prices()
    if not prices.gpu_hour or gpus:
        return []
    is_all = not (prices.cpu_hour or prices.hour)
    limit = ", and --max-cost never ends the sweep" if is_all and spec.max_cost is not None else ""
    return [f"price: no trial holds a GPU, so gpu-hours cost nothing{limit}. Give a price per cpu-hour or per hour."]


def total(parts: Iterable[Spent]) -> Spent:
    """Return the sum."""
    return sum(parts, Spent())


def cost_of(prices: Prices, spent: Spent, wall: float) -> float:
    """Return what trials cost, with ``wall`` seconds of the whole sweep."""
    hours = (spent.gpu_seconds * prices.gpu_hour, spent.cpu_seconds * prices.cpu_hour, wall * prices.hour)
    return sum(hours) / _HOUR


def hourly_cost(prices: Prices, cpus: float, gpus: float, concurrency: int) -> float:
    """Return what an hour costs in which ``concurrency`` trials run, each with its share of ``cpus`` and ``gpus``."""
    trials = concurrency * _HOUR
    return cost_of(prices, Spent(trials, 0, trials * cpus, trials * gpus), _HOUR)


def shared_budgets(spec: SweepSpec, epochs: int, cost: float, families_left: int) -> dict[str, Any]:
    """Return the budgets of one of several sweeps that share theirs: an equal part of what is left.

    Args:
        spec: with the budgets of all together.
        epochs, cost: spent by the sweeps before this one.
        families_left: sweeps that share what is left, this one included.
    """
    budgets: dict[str, Any] = {}
    if spec.epochs_budget is not None:
        budgets["epochs_budget"] = max(0, math.ceil((spec.epochs_budget - epochs) / families_left))
    if spec.max_cost is not None:
        budgets["max_cost"] = max(0.0, (spec.max_cost - cost) / families_left)
    return budgets
