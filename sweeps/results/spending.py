"""What a sweep has spent, as its records have it, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from sweeps.spec.fields import Prices
from sweeps.text import money_text, plural, rough_duration
from sweeps.trial import NOTHING, Spent

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

# The budget that ends a sweep; empty while none does.
UsedUp = Literal["", "hours", "epochs", "cost"]


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
    cost = None if prices is None else round(prices.cost_of(spent), 6)
    return {"seconds": round(spent.seconds, 3), "epochs": spent.epochs, "cost": cost}


def used_up_note(which: UsedUp, spec: SweepSpec, records: Sequence[TrialRecord], name: str) -> str:
    """Return one sentence on the budget that ended a sweep, and one on how to go on.

    Args:
        which: of the budgets.
        spec: of the sweep.
        records: of its trials.
        name: to go on with.
    """
    prices = spec.prices or Prices()
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
