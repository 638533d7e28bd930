"""The books of a running sweep: what each trial takes, by the driver's clock, and whether another one may start."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeps.budget import Budget, Spent, UsedUp, budget_of, cost_of, total
from sweeps.forecast import Forecast, Halving, Pace, Rest, Seen, forecast
from sweeps.spending import Spending, SpendingLog, spent_by

if TYPE_CHECKING:
    from sweeps.record import TrialRecord
    from sweeps.resources import Share
    from sweeps.spec import SweepSpec


_NOTHING = Spent()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a sweep stands: what it has spent over all its sittings, and what is still to come.

    Attributes:
        budget: of the sweep.
        spent: by all trials.
        cost: None without a price.
        forecast: None before anything was measured.
        ended: trials that ended, however.
        best: number of the complete trial that would win now, and its value of the first objective; None before there
            is one.
    """

    budget: Budget
    spent: Spent
    cost: float | None
    forecast: Forecast | None
    ended: int = 0
    best: tuple[int, float] | None = None


@dataclass(slots=True)
class _Account:
    """A trial that has not ended: ``before`` this sitting, ``here`` in it, and since when its process runs."""

    planned: int
    searched: bool
    before: Spent = _NOTHING
    waiting: bool = False
    done: int = 0
    here: Spent = field(default_factory=Spent)
    since: float | None = None


class Ledger:
    """Counts what the trials of one sweep take, and writes it down.

    Args:
        spec: of the sweep.
        share: of a trial.
        log: where to.
        records: all trials so far.
        spending: of earlier sittings.
        deadline: on the clock; when the hours are over.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        spec: SweepSpec,
        share: Share,
        log: SpendingLog,
        records: Iterable[TrialRecord],
        spending: Spending,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._share, self._log, self._clock, self._deadline = spec, share, log, clock, deadline
        self.budget = budget_of(spec)
        stopping = spec.early_stopping
        self._planned = spec.trial_config({}).epochs
        self._halving = Halving(stopping.rungs(self._planned), stopping.reduction)
        self._wall_before, self._began = spending.wall, clock()
        self._accounts: dict[int, _Account] = {}
        self._ended, self._spent_by_ended, self._seen = 0, Spent(), Seen()
        self._goals = spec.goals
        self._best: tuple[tuple[float, ...], tuple[int, float]] | None = None
        for record in records:
            if record.sibling_of is None:
                self._open(record, spent_by(record, spending))

    def ask(self, number: int, planned: int, *, searched: bool) -> None:
        """The trial is about to run: a new one, or one that an earlier sitting left unfinished."""
        self._accounts.setdefault(number, _Account(planned, searched)).waiting = False

    def start(self, number: int) -> None:
        """A process takes up the trial; perhaps for the second time."""
        self.end(number)
        account = self._accounts[number]
        account.since = self._clock()
        self._log.note(number, account.here, self._clock() - self._began)

    def beat(self, number: int, epoch: int, *, trained: bool) -> None:
        """The trial has reported an epoch: a trained one, or one that came from the store or a checkpoint."""
        if number in self._accounts:
            self._accounts[number].done = max(self._accounts[number].done, epoch)
            self._count(number, epochs=int(trained))

    def end(self, number: int, *, saw_gpu: bool = True) -> None:
        """The trial's process does nothing more for it, for now or for good.

        Args:
            number: of the trial.
            saw_gpu: whether it could use the GPU that it was given; else its time since the last booking is none of it.
        """
        if number in self._accounts:
            self._count(number, gpus=saw_gpu)
            self._accounts[number].since = None

    def settle(self, record: TrialRecord) -> None:
        """The trial has its result."""
        self.end(record.number)
        account = self._accounts.pop(record.number, None)
        self._close(record, account.before + account.here if account else Spent())

    def _open(self, record: TrialRecord, spent: Spent) -> None:
        """Note a trial of an earlier sitting."""
        if record.status != "running":
            self._close(record, spent)
            return
        planned, searched = int(record.config["epochs"]), record.experiment is None
        self._accounts[record.number] = _Account(planned, searched, spent, waiting=True, done=record.epochs)

    def _close(self, record: TrialRecord, spent: Spent) -> None:
        """Add a trial that has ended to what all of these took."""
        fresh = not record.reused
        planned, searched = int(record.config["epochs"]), record.experiment is None
        self._seen.add(Pace(planned, record.epochs, spent, True, fresh, searched), self._halving)
        self._ended, self._spent_by_ended = self._ended + 1, self._spent_by_ended + spent
        may_win = record.status == "complete" and record.confirms is None
        rank = self._goals.rank(record.number, record.metrics) if may_win else None
        if rank is not None and (self._best is None or rank < self._best[0]):
            self._best = rank, (record.number, record.metrics[self._goals.first.metric])

    def close(self) -> None:
        """The sitting is over."""
        for number in list(self._accounts):
            self.end(number)

    def standing(self, left: int) -> Standing:
        """Return how the sweep stands, with ``left`` new trials to come."""
        running, wall = [(a, self._spent(a)) for a in self._accounts.values()], self._wall()
        spent = total((self._spent_by_ended, *(now for _, now in running)))
        prices = self.budget.prices
        cost = None if prices is None else cost_of(prices, spent, wall)
        paces = [Pace(a.planned, a.done, now, False, True, a.searched, a.waiting) for a, now in running]
        coming = forecast(paces, self._rest(left), self._halving, self.budget, spent, wall, self._seen)
        return Standing(self.budget, spent, cost, coming, self._ended, self._best[1] if self._best else None)

    def used_up(self, left: int) -> UsedUp:
        """Return the budget that forbids another trial, if one does."""
        budget = self.budget
        if budget.epochs is None and budget.max_cost is None:
            return ""
        standing = self.standing(left)
        if budget.epochs is not None and standing.spent.epochs >= budget.epochs:
            return "epochs"
        if budget.max_cost is None or standing.cost is None:
            return ""
        coming = standing.forecast.next_cost if standing.forecast else None
        over = standing.cost >= budget.max_cost or standing.cost + (coming or 0.0) > budget.max_cost
        return "cost" if over else ""

    def _rest(self, left: int) -> Rest:
        share = self._share
        return Rest(left, self._planned, share.concurrency, share.cpus, share.gpus, self._deadline - self._clock())

    def _wall(self) -> float:
        return self._wall_before + self._clock() - self._began

    def _spent(self, account: _Account) -> Spent:
        """Return what the trial took up to this moment."""
        return account.before + account.here + self._shared(self._running(account))

    def _running(self, account: _Account) -> float:
        return 0.0 if account.since is None else self._clock() - account.since

    def _shared(self, seconds: float, epochs: int = 0, *, gpus: bool = True) -> Spent:
        return Spent(seconds, epochs, seconds * self._share.cpus, seconds * self._share.gpus if gpus else 0.0)

    def _count(self, number: int, *, epochs: int = 0, gpus: bool = True) -> None:
        """Book the time since the last booking, and write it down."""
        account = self._accounts[number]
        if account.since is None:
            return
        account.here += self._shared(self._running(account), epochs, gpus=gpus)
        account.since = self._clock()
        self._log.note(number, account.here, self._clock() - self._began)
