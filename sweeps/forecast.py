"""How a sweep's budget stands: what its trials have taken, and what is still to come, from their records alone.

Known to be left out: trials that will be answered by others (siblings, duplicates), and a search space that runs out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweeps.budget import NOTHING, Spent, UsedUp, cost_of, prices_of
from sweeps.spec_stopping import EarlyStopping

if TYPE_CHECKING:
    from sweeps.record import TrialRecord
    from sweeps.resources import Share
    from sweeps.spec import SweepSpec
    from sweeps.spending import Meter


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to come.

    Attributes:
        trials: new ones that will start, as far as the budgets allow.
        seconds: of wall time.
        cost: None without a price.
        next_cost: of the next trial together with what runs already; None without a price.
    """

    trials: int
    seconds: float
    cost: float | None = None
    next_cost: float | None = None


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """What a sweep has spent over all its sessions, and what is still to come.

    Attributes:
        spent: by all trials.
        cost: None without a price.
        forecast: None before anything was measured.
        ended: trials that ended, however.
        best: number of the complete trial that would win now, and its value of the first objective; None before there
            is one.
    """

    spent: Spent
    cost: float | None
    forecast: Forecast | None
    ended: int = 0
    best: tuple[int, float] | None = None


@dataclass(slots=True)
class Totals:
    """Trials that ended, added up, so that a thousand of them are not gone through for each report of another.

    Attributes:
        spec: of the sweep.
        spent: by all of them.
        ended: how many they are.
        trained, others: what those took whose work was done for them, with epochs and without; what the store answered
            says nothing of the next trial.
        other_trials: how many the latter are.
        longer: how much longer than expected searched trials ran, added up.
        searched: how many these are.
        best: as in ``BudgetStatus``, with what orders it among others before it.
    """

    spec: SweepSpec
    spent: Spent = NOTHING
    ended: int = 0
    trained: Spent = NOTHING
    others: Spent = NOTHING
    other_trials: int = 0
    longer: float = 0.0
    searched: int = 0
    best: tuple[tuple[float, ...], tuple[int, float]] | None = None

    def add(self, record: TrialRecord) -> None:
        """Count a trial that ended."""
        self.ended, self.spent = self.ended + 1, self.spent + record.spent
        self._rank(record)
        if record.reused or not record.spent.seconds:
            return
        if not record.spent.epochs:
            self.others, self.other_trials = self.others + record.spent, self.other_trials + 1
            return
        self.trained += record.spent
        if _may_stop_early(record):
            self.longer += record.epochs / expected_epochs(int(record.config["epochs"]), self.spec.early_stopping)
            self.searched += 1

    def _rank(self, record: TrialRecord) -> None:
        goals = self.spec.goals
        may_win = record.status == "complete" and record.confirms is None
        rank = goals.rank(record.number, record.metrics) if may_win else None
        if rank is not None and (self.best is None or rank < self.best[0]):
            self.best = rank, (record.number, record.metrics[goals.first.metric])


def expected_epochs(planned: int, stopping: EarlyStopping, done: int = 0) -> float:
    """Return after how many epochs a trial that stands at ``done`` is expected to end.

    After each rung one in ``stopping.reduction`` goes on.

    >>> expected_epochs(9, EarlyStopping(min_epochs=1))  # rungs at 1 and 3: 1 + 2/3 + 6/9
    2.333333333333333
    """
    alive, reached, expected = 1.0, done, float(done)
    for rung in (*(rung for rung in stopping.rungs(planned) if rung > done), max(planned, done)):
        expected += alive * (rung - reached)
        alive, reached = alive / stopping.reduction, rung
    return expected


def _may_stop_early(record: TrialRecord) -> bool:
    return record.experiment is None and record.confirms is None


@dataclass(frozen=True, slots=True)
class _Pace:
    """How long trials take by those so far.

    Attributes:
        epoch: seconds of an epoch; 0 where trials have none.
        trial: seconds of a trial without epochs.
        longer: by which factor searched trials run longer than expected; the expectation counts as a few trials do.
        stopping: of searched trials.
    """

    epoch: float
    trial: float
    longer: float
    stopping: EarlyStopping

    @classmethod
    def of(cls, totals: Totals, unfinished: Iterable[Spent]) -> _Pace | None:
        """Return it, or None before anything was measured."""
        stopping = totals.spec.early_stopping
        longer = (stopping.reduction + totals.longer) / (stopping.reduction + totals.searched)
        trained = sum((spent for spent in unfinished if spent.epochs), totals.trained)
        if trained.epochs:
            return cls(trained.seconds / trained.epochs, 0.0, longer, stopping)
        others = totals.other_trials
        return cls(0.0, totals.others.seconds / others, longer, stopping) if others else None

    def new(self, planned: int) -> float:
        """Return the seconds of a new searched trial of ``planned`` epochs."""
        return self.trial or self.epoch * min(planned, expected_epochs(planned, self.stopping) * self.longer)

    def left(self, record: TrialRecord, spent: Spent) -> float:
        """Return the seconds that a trial still takes which has not ended, and has taken ``spent``."""
        if self.trial:
            return max(0.0, self.trial - spent.seconds)
        planned, done = int(record.config["epochs"]), record.epochs
        more = float(planned - done)
        if _may_stop_early(record):
            more = min(more, (expected_epochs(planned, self.stopping, done) - done) * self.longer)
        return self.epoch * max(0.0, more)


def forecast(
    totals: Totals,
    running: Sequence[tuple[TrialRecord, Spent]],
    waiting: Sequence[TrialRecord],
    share: Share,
    left: int,
    seconds_left: float = math.inf,
) -> Forecast | None:
    """Return what is still to come; None before anything was measured.

    Args:
        totals: of the trials that ended.
        running: trials that run, each with what it has taken up to now.
        waiting: trials that an earlier session left unfinished, and that have not begun again.
        share: of a trial.
        left: new trials that the number of trials allows.
        seconds_left: until the hours are over; infinity without a limit.
    """
    unfinished = [*(spent for _, spent in running), *(record.spent for record in waiting)]
    pace = _Pace.of(totals, unfinished)
    if pace is None:
        return None
    now = [pace.left(record, spent) for record, spent in running]
    later = [pace.left(record, record.spent) for record in waiting]
    new = pace.new(totals.spec.trial_config({}).epochs)
    spent = sum(unfinished, totals.spent)
    trials = _new_trials(totals.spec, share, spent, sum(now + later), pace.epoch, new, left, seconds_left)
    prices = prices_of(totals.spec)

    def wall(seconds: float, parts: Sequence[float]) -> float:
        return max(seconds / share.concurrency, *parts, 0.0)

    def cost(seconds: float, parts: Sequence[float]) -> float | None:
        return None if prices is None else cost_of(prices, Spent.of(share, seconds, wall=wall(seconds, parts)))

    seconds, following = sum(now + later) + trials * new, later[0] if later else new
    return Forecast(trials, wall(seconds, now + later), cost(seconds, now + later), cost(sum(now) + following, now))


def _new_trials(
    spec: SweepSpec,
    share: Share,
    spent: Spent,
    pending: float,
    epoch: float,
    new: float,
    left: int,
    seconds_left: float,
) -> int:
    """Return how many new trials of ``new`` seconds the budgets allow after ``pending`` seconds of others.

    Each budget is one of seconds of trials; of epochs and hours the last trial may pass it, of money none.
    """
    if not new:
        return max(0, left)
    limits, prices = [left], prices_of(spec)
    if spec.epochs_budget is not None and epoch:
        limits.append(_ceil(((spec.epochs_budget - spent.epochs) * epoch - pending) / new))
    if math.isfinite(seconds_left):
        limits.append(_ceil((max(0.0, seconds_left) * share.concurrency - pending) / new))
    each = 0.0 if prices is None else cost_of(prices, Spent.of(share, 1.0, wall=1 / share.concurrency))
    if spec.max_cost is not None and prices is not None and each:
        limits.append(-_ceil((pending - (spec.max_cost - cost_of(prices, spent)) / each) / new))
    return max(0, min(limits))


def _ceil(x: float) -> int:
    """Round up, except what rounding errors have left above a whole number."""
    return math.ceil(x - 1e-9)


class Account:
    """The budget of a sweep while it runs.

    Args:
        spec: of the sweep.
        share: of a trial.
        records: all trials so far; those that run are taken for left unfinished until they are noted again.
        meter: knows what the trials that run have taken.
        deadline: when the hours are over, on the clock.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        spec: SweepSpec,
        share: Share,
        records: Iterable[TrialRecord],
        meter: Meter,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._share, self._meter, self._deadline, self._clock = spec, share, meter, deadline, clock
        self._totals = Totals(spec)
        self._running: dict[int, TrialRecord] = {}
        own = [record for record in records if record.sibling_of is None]
        self._waiting = {record.number: record for record in own if record.status == "running"}
        for record in own:
            if record.status != "running":
                self._totals.add(record)

    def note(self, record: TrialRecord) -> None:
        """A trial is about to run, has come to another epoch, or has ended."""
        self._waiting.pop(record.number, None)
        self._running.pop(record.number, None)
        if record.status == "running":
            self._running[record.number] = record
        else:
            self._totals.add(record)

    def status(self, left: int) -> BudgetStatus:
        """Return how the budget stands, with ``left`` new trials to come."""
        totals, prices = self._totals, prices_of(self._spec)
        running = [(record, self._meter.read(number) or record.spent) for number, record in self._running.items()]
        waiting = list(self._waiting.values())
        spent = sum((*(now for _, now in running), *(record.spent for record in waiting)), totals.spent)
        spent = replace(spent, wall=self._meter.wall)
        cost = None if prices is None else cost_of(prices, spent)
        coming = forecast(totals, running, waiting, self._share, left, self._deadline - self._clock())
        return BudgetStatus(spent, cost, coming, totals.ended, totals.best[1] if totals.best else None)

    def used_up(self, left: int) -> UsedUp:
        """Return the budget that forbids another trial, if one does."""
        spec = self._spec
        if spec.epochs_budget is None and spec.max_cost is None:
            return ""
        status = self.status(left)
        if spec.epochs_budget is not None and status.spent.epochs >= spec.epochs_budget:
            return "epochs"
        if spec.max_cost is None or status.cost is None:
            return ""
        coming = status.forecast.next_cost if status.forecast else None
        over = status.cost >= spec.max_cost or status.cost + (coming or 0.0) > spec.max_cost
        return "cost" if over else ""
