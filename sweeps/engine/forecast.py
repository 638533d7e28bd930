"""The status of a sweep's budget: what its trials have taken, and what is still to come, from their records.

Known to be left out: trials that will be answered by others (derived ones, duplicates), and a search space that runs
out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweeps.engine.meter import Meter
from sweeps.results.leaderboard import find_best
from sweeps.results.result import UsedUp
from sweeps.spec.fields import EarlyStopping, survival
from sweeps.text import money_text, plural
from sweeps.trial import NOTHING, Spent

if TYPE_CHECKING:
    from sweeps.engine.resources import Share
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

# What rounding errors may leave above or below a whole number.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """What a sweep has spent over all its sessions, and what is still to come.

    Attributes:
        spent: by all trials.
        cost: None without a price.
        ended: trials that ended, however; those that were never run do not count.
        best: the complete trial that would win now; None before there is one.
        seconds_left: of wall time; None before anything was measured, as the next two are.
        cost_left: of all that is still to come; None without a price, too.
        next_cost: of the next trial together with what runs already; None without a price, too.
    """

    spent: Spent
    cost: float | None
    ended: int
    best: TrialRecord | None
    seconds_left: float | None = None
    cost_left: float | None = None
    next_cost: float | None = None


@dataclass(slots=True)
class _Pace:
    """How long trials take, added up over those whose work was done for them.

    What the store answered says nothing of the next trial.

    Attributes:
        stopping: of searched trials.
        trained: what trials with epochs took.
        others, other_trials: seconds of ended trials without epochs, and how many these are.
        longer, searched: how much longer than expected searched trials ran, added up, and how many ended.
    """

    stopping: EarlyStopping
    trained: Spent = NOTHING
    others: float = 0.0
    other_trials: int = 0
    longer: float = 0.0
    searched: int = 0

    def add(self, record: TrialRecord) -> None:
        """Count a trial that ended."""
        if record.reused or not record.spent.seconds:
            return
        if not record.spent.epochs:
            self.others, self.other_trials = self.others + record.spent.seconds, self.other_trials + 1
            return
        self.trained += record.spent
        if _may_stop_early(record):
            self.longer += record.epochs / sum(survival(self.stopping, int(record.config["epochs"])))
            self.searched += 1

    @property
    def epoch(self) -> float:
        """Seconds of an epoch; 0 where none was trained."""
        return self.trained.seconds / self.trained.epochs if self.trained.epochs else 0.0

    @property
    def trial(self) -> float:
        """Seconds of a trial where trials have no epochs; 0 where one ended with epochs, or none at all."""
        return self.others / self.other_trials if self.other_trials and not self.trained.epochs else 0.0

    def new(self, planned: int) -> float:
        """Return the seconds of a new searched trial of ``planned`` epochs."""
        return self.trial or self.epoch * self._epochs_left(planned, 0)

    def left(self, record: TrialRecord, spent: Spent) -> float:
        """Return the seconds that a trial which has not ended still takes after ``spent``."""
        if self.trial:
            return max(0.0, self.trial - spent.seconds)
        planned, done = int(record.config["epochs"]), record.epochs
        return self.epoch * (self._epochs_left(planned, done) if _may_stop_early(record) else max(0, planned - done))

    def _epochs_left(self, planned: int, done: int) -> float:
        """Correct the expectation, which counts as a few trials do, by those that ended."""
        longer = (self.stopping.reduction + self.longer) / (self.stopping.reduction + self.searched)
        return max(0.0, min(planned - done, sum(survival(self.stopping, planned, done)) * longer))


def _may_stop_early(record: TrialRecord) -> bool:
    return record.experiment is None and record.confirms is None


class Account:
    """The budget of a sweep while it runs. Trials that ended are added up, so a status goes through the others only.

    Args:
        spec: of the sweep.
        share: of a trial.
        records: all trials so far; those that run are taken for left unfinished until they are noted again.
        deadline: when the hours are over, on the clock.
        clock: seconds that only grow.

    Attributes:
        meter: measures what the trials take.
    """

    def __init__(
        self,
        spec: SweepSpec,
        share: Share,
        records: Sequence[TrialRecord],
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._share, self._deadline, self._clock = spec, share, deadline, clock
        self.meter = Meter(records, clock)
        self._prices, self._goals, self._planned = spec.prices, spec.goals, spec.trial_config({}).epochs
        self._ended, self._spent_by_ended, self._pace = 0, NOTHING, _Pace(spec.early_stopping)
        self._best: TrialRecord | None = None
        self._waiting: dict[int, TrialRecord] = {}
        self._running: dict[int, TrialRecord] = {}
        for record in records:
            self.note(record)
        self._waiting, self._running = self._running, {}

    def note(self, record: TrialRecord) -> None:
        """A trial is about to run, has come to another epoch, or has ended; a derived one costs and counts nothing."""
        self._waiting.pop(record.number, None)
        self._running.pop(record.number, None)
        if record.status == "running":
            self._running[record.number] = record
            return
        self._best = find_best([record] if self._best is None else [self._best, record], self._goals)
        if record.sibling_of is None:
            self._ended += not record.refused
            self._spent_by_ended += record.spent
            self._pace.add(record)

    def status(self, left: int) -> BudgetStatus:
        """Return what is spent, and what is still to come with ``left`` new trials by the number of trials."""
        running = [(record, self.meter.read(number) or record.spent) for number, record in self._running.items()]
        waiting = [(record, record.spent) for record in self._waiting.values()]
        unfinished = [taken for _, taken in (*running, *waiting)]
        spent = replace(sum(unfinished, self._spent_by_ended), wall=self.meter.wall)
        cost = None if self._prices is None else self._prices.cost_of(spent)
        status = BudgetStatus(spent, cost, self._ended, self._best)
        pace = replace(self._pace, trained=sum((taken for taken in unfinished if taken.epochs), self._pace.trained))
        if not pace.epoch and not pace.trial:
            return status
        new = pace.new(self._planned)
        now = [pace.left(record, taken) for record, taken in running]
        later = [pace.left(record, taken) for record, taken in waiting]
        more = self._new_trials(left, new, sum(now + later), spent, pace.epoch)
        seconds, following = sum(now + later) + more * new, later[0] if later else new
        return replace(
            status,
            seconds_left=self._wall(seconds, now + later),
            cost_left=self._cost(seconds, now + later),
            next_cost=self._cost(sum(now) + following, now),
        )

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
        over = status.cost >= spec.max_cost or status.cost + (status.next_cost or 0.0) > spec.max_cost
        return "cost" if over else ""

    def _wall(self, seconds: float, parts: Sequence[float]) -> float:
        """Return the wall time of ``seconds`` of trials, at the least that of the longest of the ``parts`` that run."""
        return max(seconds / self._share.concurrency, *parts, 0.0)

    def _cost(self, seconds: float, parts: Sequence[float] = ()) -> float | None:
        if self._prices is None:
            return None
        return self._prices.cost_of(self._share.spend(seconds, wall=self._wall(seconds, parts)))

    def _new_trials(self, left: int, new: float, pending: float, spent: Spent, epoch: float) -> int:
        """Return how many new trials of ``new`` seconds the budgets allow after ``pending`` seconds of others.

        Each budget is so many seconds of trials; the last trial may pass it, but one of money.
        """
        spec, limits = self._spec, [float(left)]
        seconds_left, each = self._deadline - self._clock(), self._cost(1.0)
        if not new:
            return max(0, left)
        if spec.epochs_budget is not None and epoch:
            limits.append(math.ceil(((spec.epochs_budget - spent.epochs) * epoch - pending) / new - _ROUNDING))
        if math.isfinite(seconds_left):
            allowed = max(0.0, seconds_left) * self._share.concurrency
            limits.append(math.ceil((allowed - pending) / new - _ROUNDING))
        if spec.max_cost is not None and self._prices is not None and each:
            allowed = (spec.max_cost - self._prices.cost_of(spent)) / each
            limits.append(math.floor((allowed - pending) / new + _ROUNDING))
        return max(0, int(min(limits)))


def status_text(status: BudgetStatus, spec: SweepSpec) -> list[str]:
    """Return the parts of a line that tell what is spent: epochs of their budget, and money where there is a price."""
    parts, prices = [], spec.prices
    if spec.epochs_budget is not None:
        parts.append(f"{status.spent.epochs} of {plural(spec.epochs_budget, 'epoch')}")
    if prices is not None and status.cost is not None:
        text = money_text(status.cost, prices.currency)
        text += f" of {money_text(spec.max_cost, prices.currency)}" if spec.max_cost is not None else ""
        coming = status.cost_left
        text += f" (forecast {money_text(status.cost + coming, prices.currency)})" if coming is not None else ""
        parts.append(text)
    return parts
