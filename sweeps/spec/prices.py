"""What machines cost by the hour, and what trials have cost. Plain arithmetic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carcls.errors import shown

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import Spent

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


def prices_of(spec: SweepSpec) -> Prices | None:
    """Return the prices that a spec names; None where it names none."""
    return parse_price(spec.price) if spec.price else None


def idle_prices(spec: SweepSpec, gpus: float) -> list[str]:
    """Return a sentence on a price of GPUs where no trial holds one: the sweep then seems to cost nothing."""
    prices = prices_of(spec)
    if prices is None or not prices.gpu_hour or gpus:
        return []
    is_all = not (prices.cpu_hour or prices.hour)
    limit = ", and --max-cost never ends the sweep" if is_all and spec.max_cost is not None else ""
    return [f"price: no trial holds a GPU, so gpu-hours cost nothing{limit}. Give a price per cpu-hour or per hour."]


def cost_of(prices: Prices, spent: Spent) -> float:
    """Return what trials cost, and the hours of the sweep in which they ran."""
    hours = (spent.gpu_seconds * prices.gpu_hour, spent.cpu_seconds * prices.cpu_hour, spent.wall * prices.hour)
    return sum(hours) / _HOUR
