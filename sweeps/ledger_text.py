"""Budgets and forecasts in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.budget import Prices, UsedUp, budget_of
from sweeps.spending import read_spending, spent_dict
from sweeps.text import money_text, rough_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sweeps.ledger import Standing
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec


def used_up_note(which: UsedUp, spec: SweepSpec, folder: Path, records: Sequence[TrialRecord], name: str) -> str:
    """Return one sentence on the budget that ended a sweep, and one on how to go on.

    Args:
        which: of the budgets.
        spec: of the sweep.
        folder: of the sweep.
        records: of its trials.
        name: to go on with.
    """
    budget = budget_of(spec)
    spent = spent_dict(records, read_spending(folder), budget.prices)
    again = f"To run the other trials: carsweep resume {name}"
    if which == "hours":
        return f"The hours are over. {again}"
    if which == "epochs":
        said = f"The budget of {budget.epochs} epochs is used up ({spent['epochs']} are trained)."
        return f"{said} {again} --set epochs_budget=N"
    prices = budget.prices or Prices()
    cost, most = (money_text(amount or 0.0, prices.currency) for amount in (spent["cost"], budget.max_cost))
    said = f"Another trial might cost more than --max-cost leaves ({cost} of {most} are spent)."
    return f"{said} {again} --set max_cost=AMOUNT"


def standing_text(standing: Standing) -> list[str]:
    """Return the parts of a line that tell what is spent: epochs of their budget, and money where there is a price."""
    budget, parts = standing.budget, []
    if budget.epochs is not None:
        parts.append(f"{standing.spent.epochs} of {budget.epochs} epochs")
    if budget.prices is not None and standing.cost is not None:
        parts.append(_money(standing, standing.cost, budget.prices))
    return parts


def spent_text(spent: Mapping[str, Any]) -> str:
    """Return one sentence on what a sweep took and on what it went; ``spent`` as in ``result.json``.

    >>> ended = {"complete": {"seconds": 90.0}, "pruned": {"seconds": 30.0}}
    >>> spent_text({"seconds": 120.0, "epochs": 14, "cost": 0.08, "currency": "$", "by_status": ended})
    'Spent: 2 min of trials, 14 epochs trained, $0.08; 75% of the time on complete trials, 25% on pruned ones.'
    """
    parts = [f"{rough_duration(spent['seconds'])} of trials", f"{spent['epochs']} epochs trained"]
    if spent["cost"] is not None:
        parts.append(money_text(spent["cost"], spent["currency"]))
    shares = {status: of["seconds"] / spent["seconds"] for status, of in spent["by_status"].items() if of["seconds"]}
    said = [f"{share:.0%} on {status} ones" for status, share in shares.items()]
    if len(said) < 2:
        return f"Spent: {', '.join(parts)}."
    first, *others = said
    first = first.replace(" on ", " of the time on ").replace(" ones", " trials")
    return f"Spent: {', '.join(parts)}; {', '.join([first, *others])}."


def _money(standing: Standing, cost: float, prices: Prices) -> str:
    budget, text = standing.budget, money_text(cost, prices.currency)
    if budget.max_cost is not None:
        text += f" of {money_text(budget.max_cost, prices.currency)}"
    coming = standing.forecast.cost if standing.forecast else None
    return text if coming is None else f"{text} (forecast {money_text(cost + coming, prices.currency)})"
