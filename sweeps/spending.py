"""What trials have taken, written down as it happens: one line of JSON in ``spending.jsonl`` beside the journal.

A line says how much a trial has taken in this sitting so far; later lines of the same trial and sitting replace earlier
ones. A sweep whose driver dies loses what came after the last line, which is at most an epoch of each running trial.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.budget import Prices, Spent, cost_of, total

if TYPE_CHECKING:
    from sweeps.record import TrialRecord

FILE = "spending.jsonl"


@dataclass(frozen=True, slots=True)
class Spending:
    """What a sweep has taken over all its sittings.

    Attributes:
        trials: by number.
        wall: seconds of all sittings in which trials ran.
        sittings: how many there were.
        begun: when, in seconds since 1970, a trial began in the last sitting, by number.
    """

    trials: Mapping[int, Spent]
    wall: float = 0.0
    sittings: int = 0
    begun: Mapping[int, float] = field(default_factory=dict)


class SpendingLog:
    """Appends to the file of one sweep.

    Args:
        folder: of the sweep.
        sitting: from 1; one more than the file knows.
    """

    def __init__(self, folder: Path, sitting: int) -> None:
        self._path, self._sitting = folder / FILE, sitting
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        if torn and self._path.stat().st_size:
            self._append(b"\n")

    def note(self, number: int, spent: Spent, wall: float) -> None:
        """Write what trial ``number`` has taken in this sitting, which is ``wall`` seconds old."""
        line = {
            "sitting": self._sitting,
            "trial": number,
            "seconds": round(spent.seconds, 3),
            "epochs": spent.epochs,
            "cpu_seconds": round(spent.cpu_seconds, 3),
            "gpu_seconds": round(spent.gpu_seconds, 3),
            "wall": round(wall, 3),
            "at": round(time.time(), 3),
        }
        self._append(json.dumps(line).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(line)


def read_spending(folder: Path) -> Spending:
    """Return what the sweep in ``folder`` has taken; lines that a dying machine left torn do not count."""
    path = folder / FILE
    if not path.exists():
        return Spending({})
    parts: dict[tuple[int, int], Spent] = {}
    walls: dict[int, float] = {}
    begun: dict[tuple[int, int], float] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = _parsed(text)
        if line is not None:
            sitting = line["sitting"]
            spent = Spent(line["seconds"], line["epochs"], line["cpu_seconds"], line["gpu_seconds"])
            parts[line["trial"], sitting] = spent
            begun.setdefault((line["trial"], sitting), line["at"])
            walls[sitting] = max(walls.get(sitting, 0.0), line["wall"])
    trials: dict[int, Spent] = {}
    for (number, _), spent in parts.items():
        trials[number] = trials.get(number, Spent()) + spent
    last = max(walls, default=0)
    now = {number: at for (number, sitting), at in begun.items() if sitting == last}
    return Spending(trials, sum(walls.values()), last, now)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        return line if {"sitting", "trial", "wall", "gpu_seconds", "at"} <= line.keys() else None
    except (ValueError, AttributeError):
        return None


def spent_by(record: TrialRecord, spending: Spending) -> Spent:
    """Return what a trial took; of trials older than the file, what the journal says of the last attempt."""
    if record.number in spending.trials:
        return spending.trials[record.number]
    if record.sibling_of is not None:
        return Spent()
    return Spent(record.seconds, 0 if record.reused else record.epochs)


def spent_dict(records: Iterable[TrialRecord], spending: Spending, prices: Prices | None) -> dict[str, Any]:
    """Return what a sweep took, for ``result.json``: ``seconds``, ``epochs``, ``cost`` (with its ``currency``) and the
    first three by status.

    The costs by status are of the trials' shares; an hourly price of the sweep is only in the whole.
    """
    by_status: dict[str, list[Spent]] = {}
    for record in records:
        if record.sibling_of is None:
            by_status.setdefault(record.status, []).append(spent_by(record, spending))
    totals = {status: total(parts) for status, parts in sorted(by_status.items())}
    whole = _plain(total(totals.values()), prices, spending.wall)
    currency = None if prices is None else prices.currency
    return {
        **whole,
        "currency": currency,
        "by_status": {status: _plain(spent, prices, 0.0) for status, spent in totals.items()},
    }


def cost_metric(spent: Mapping[str, Any]) -> dict[str, float]:
    """Return what ``spent_dict`` says of money as a metric, or nothing where no price is known."""
    cost = spent.get("cost")
    return {} if cost is None else {"cost": float(cost)}


def _plain(spent: Spent, prices: Prices | None, wall: float) -> dict[str, Any]:
    cost = None if prices is None else round(cost_of(prices, spent, wall), 6)
    return {"seconds": round(spent.seconds, 3), "epochs": spent.epochs, "cost": cost}
