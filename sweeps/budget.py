"""What a sweep may spend, what it has spent, what that costs, and how it is told. Plain arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from carcls.errors import shown
from sweeps.text import money_text, plural, rough_duration

if TYPE_CHECKING:
    from sweeps.forecast import BudgetStatus
    from sweeps.record import TrialRecord
    from sweeps.resources import Share
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
    """What trials took, over all sessions of their sweep.

    Attributes:
        seconds: wall time in their processes.
        epochs: really trained; what came from the store or from a checkpoint is free.
        cpu_seconds, gpu_seconds: wall time times the trial's share.
        wall: for how many seconds the sweep itself had run, in all its sessions, when this was read from the clock.
    """

    seconds: float = 0.0
    epochs: int = 0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    wall: float = 0.0

    @classmethod
    def of(cls, share: Share, seconds: float, epochs: int = 0, wall: float = 0.0) -> Spent:
        """Return what so many seconds of a trial with ``share`` are."""
        return cls(seconds, epochs, seconds * share.cpus, seconds * share.gpus, wall)

    def __add__(self, other: Spent) -> Spent:
        """Add what other trials of the sweep took; its own time is the later one."""
        return Spent(
            self.seconds + other.seconds,
            self.epochs + other.epochs,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            max(self.wall, other.wall),
        )

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values, to a thousandth of a second; ``Spent(**values)`` reads them back."""
        return {name: round(getattr(self, name), 3) for name in self.__slots__}


NOTHING = Spent()


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


def spent_dict(records: Iterable[TrialRecord], prices: Prices | None) -> dict[str, Any]:
    """Return what a sweep took, for ``result.json``: ``seconds``, ``epochs``, ``cost`` (with its ``currency``) and the
    first three by status.

    The costs by status are of the trials' shares; an hourly price of the sweep is only in the whole.
    """
    by_status: dict[str, Spent] = {}
    for record in records:
        if record.sibling_of is None:
            by_status[record.status] = by_status.get(record.status, NOTHING) + record.spent
    return {
        **_plain(sum(by_status.values(), NOTHING), prices),
        "currency": None if prices is None else prices.currency,
        "by_status": {status: _plain(replace(spent, wall=0.0), prices) for status, spent in sorted(by_status.items())},
    }


def _plain(spent: Spent, prices: Prices | None) -> dict[str, Any]:
    cost = None if prices is None else round(cost_of(prices, spent), 6)
    return {"seconds": round(spent.seconds, 3), "epochs": spent.epochs, "cost": cost}


def used_up_note(which: UsedUp, spec: SweepSpec, records: Sequence[TrialRecord], name: str) -> str:
    """Return one sentence on the budget that ended a sweep, and one on how to go on.

    Args:
        which: of the budgets.
        spec: of the sweep.
        records: of its trials.
        name: to go on with.
    """
    prices = prices_of(spec) or Prices()
    spent = spent_dict(records, prices)
    again = f"To run the other trials: carsweep resume {name}"
    if which == "hours":
        return f"The hours are over. {again}"
    if which == "epochs":
        said = f"The budget of {plural(spec.epochs_budget or 0, 'epoch')} is used up ({spent['epochs']} trained)."
        return f"{said} {again} --set epochs_budget=N"
    cost, most = (money_text(amount or 0.0, prices.currency) for amount in (spent["cost"], spec.max_cost))
    said = f"Another trial might cost more than --max-cost leaves ({cost} of {most} are spent)."
    return f"{said} {again} --set max_cost=AMOUNT"


def status_text(status: BudgetStatus, spec: SweepSpec) -> list[str]:
    """Return the parts of a line that tell what is spent: epochs of their budget, and money where there is a price."""
    parts, prices = [], prices_of(spec)
    if spec.epochs_budget is not None:
        parts.append(f"{status.spent.epochs} of {plural(spec.epochs_budget, 'epoch')}")
    if prices is not None and status.cost is not None:
        text = money_text(status.cost, prices.currency)
        text += f" of {money_text(spec.max_cost, prices.currency)}" if spec.max_cost is not None else ""
        coming = status.cost_left
        text += f" (forecast {money_text(status.cost + coming, prices.currency)})" if coming is not None else ""
        parts.append(text)
    return parts


def spent_text(spent: Mapping[str, Any]) -> str:
    """Return one sentence on what a sweep took and on what it went; ``spent`` as in ``result.json``.

    >>> ended = {"complete": {"seconds": 90.0}, "pruned": {"seconds": 30.0}}
    >>> spent_text({"seconds": 120.0, "epochs": 14, "cost": 0.08, "currency": "$", "by_status": ended})
    'Spent: 2 min of trials, 14 epochs trained, $0.08; 75% of the time on complete trials, 25% on pruned ones.'
    """
    parts = [f"{rough_duration(spent['seconds'])} of trials", f"{plural(spent['epochs'], 'epoch')} trained"]
    if spent["cost"] is not None:
        parts.append(money_text(spent["cost"], spent["currency"]))
    shares = {status: of["seconds"] / spent["seconds"] for status, of in spent["by_status"].items() if of["seconds"]}
    said = [f"{share:.0%} on {status} ones" for status, share in shares.items()]
    if len(said) < 2:
        return f"Spent: {', '.join(parts)}."
    first, *others = said
    first = first.replace(" on ", " of the time on ").replace(" ones", " trials")
    return f"Spent: {', '.join(parts)}; {', '.join([first, *others])}."
