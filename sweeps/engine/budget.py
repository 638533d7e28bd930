"""A sweep's budget: what its trials have taken, by the driver's clock, and what is still to come.

The journal writes what was measured into the lines of each trial; records have it, and the forecast is made of them.

Known to be left out: trials that will be answered by others (derived ones, duplicates), and a search space that runs
out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from sweeps.results.leaderboard import find_best
from sweeps.results.result import UsedUp
from sweeps.spec.fields import survival
from sweeps.text import money_text, plural
from sweeps.trial import NOTHING, Spent

if TYPE_CHECKING:
    from sweeps.engine.resources import Share
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord


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
        records: all trials by number, derived ones and those of earlier sessions among them; they change as trials
            go on, since a copy of all for each event would cost more the more there are.
    """

    spent: Spent
    cost: float | None
    ended: int
    best: TrialRecord | None
    seconds_left: float | None = None
    cost_left: float | None = None
    next_cost: float | None = None
    records: Mapping[int, TrialRecord] = field(default_factory=dict)


def _may_stop_early(record: TrialRecord) -> bool:
    return record.experiment is None and record.confirms is None


class Account:
    """The budget of a sweep while it runs: measures what its trials take, on top of earlier sessions, and foretells.

    Trials that ended are added up, so a status goes through the others only.

    Args:
        spec: of the sweep.
        share: of a trial.
        records: all trials so far; those that run are taken for left unfinished until they are noted again.
        deadline: when the hours are over, on the clock.
        clock: seconds that only grow.
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
        self._prices, self._goals, self._planned = spec.prices, spec.goals, spec.trial_config({}).epochs
        self._spent = {record.number: record.spent for record in records}
        self._began = clock() - max((spent.wall for spent in self._spent.values()), default=0.0)
        self._busy: dict[int, tuple[float, float, float]] = {}  # since when trials run, on how many cores and GPUs
        self._ended, self._spent_by_ended, self._trained = 0, NOTHING, NOTHING  # the last without what the store had
        self._others: list[float] = []  # seconds of trials without epochs that ended
        # Searched trials that ended, and their epochs as shares of those expected; the expectation counts as a few do.
        self._searched = self._longer = float(spec.early_stopping.reduction)
        self._best: TrialRecord | None = None
        self._records: dict[int, TrialRecord] = {}
        self._waiting: dict[int, TrialRecord] = {}
        self._running: dict[int, TrialRecord] = {}
        for record in records:
            self.note(record)
        self._waiting, self._running = self._running, {}

    def start(self, number: int, cpus: float, gpus: float) -> None:
        """A process with so many cores and GPUs takes up the trial; perhaps for the second time, with more."""
        self.stop(number)
        self._busy[number] = (self._clock(), cpus, gpus)

    def stop(self, number: int, *, saw_gpu: bool = True) -> None:
        """The trial's process does nothing more for it, for now or for good.

        Args:
            number: of the trial.
            saw_gpu: whether it could use the GPU that it was given; else its time since its last epoch is none of it.
        """
        self._count(number, saw_gpu=saw_gpu)
        self._busy.pop(number, None)

    def train(self, number: int) -> None:
        """The trial has trained one more epoch; none that came from the store or from a checkpoint."""
        self._count(number, epochs=1)

    def read(self, number: int) -> Spent | None:
        """Return what the trial has taken up to this moment; None if no process ever took it up."""
        taken = self._spent.get(number)
        return taken if number not in self._busy else (taken or NOTHING) + self._since_counted(number)

    def _count(self, number: int, *, epochs: int = 0, saw_gpu: bool = True) -> None:
        """Add the time since the trial was last counted, if a process is at it."""
        if number not in self._busy:
            return
        more = replace(self._since_counted(number), epochs=epochs)
        self._spent[number] = self._spent.get(number, NOTHING) + (more if saw_gpu else replace(more, gpu_seconds=0.0))
        self._busy[number] = (self._clock(), *self._busy[number][1:])

    def _since_counted(self, number: int) -> Spent:
        """Return what the process at the trial has taken since its last epoch, or since it took the trial up."""
        (since, cpus, gpus), now = self._busy[number], self._clock()
        seconds = now - since
        return Spent(seconds, 0, seconds * cpus, seconds * gpus, now - self._began)

    def note(self, record: TrialRecord) -> None:
        """A trial is about to run, has come to another epoch, or has ended; a derived one costs and counts nothing."""
        self._records[record.number] = record
        self._waiting.pop(record.number, None)
        self._running.pop(record.number, None)
        if record.status == "running":
            self._running[record.number] = record
            return
        self._best = find_best([record] if self._best is None else [self._best, record], self._goals)
        if record.derived_from is not None:
            return
        self._ended += not record.refused
        self._spent_by_ended += record.spent
        if record.reused or not record.spent.seconds:
            return  # what the store answered says nothing of the next trial
        if not record.spent.epochs:
            self._others.append(record.spent.seconds)
            return
        self._trained += record.spent
        if _may_stop_early(record):
            self._searched += 1
            self._longer += record.epochs / sum(survival(self._spec.early_stopping, record.config["epochs"]))

    def status(self, left: int) -> BudgetStatus:
        """Return what is spent, and what is still to come with ``left`` new trials by the number of trials."""
        running = [(record, self.read(number) or record.spent) for number, record in self._running.items()]
        waiting = [(record, record.spent) for record in self._waiting.values()]
        unfinished = [taken for _, taken in (*running, *waiting)]
        spent = replace(sum(unfinished, self._spent_by_ended), wall=self._clock() - self._began)
        cost = None if self._prices is None else self._prices.cost_of(spent)
        status = BudgetStatus(spent, cost, self._ended, self._best, records=self._records)
        trained = sum((taken for taken in unfinished if taken.epochs), self._trained)
        epoch = trained.seconds / trained.epochs if trained.epochs else 0.0
        if not epoch and not self._others:
            return status
        now = [self._to_come(epoch, record.config["epochs"], record, taken.seconds) for record, taken in running]
        later = [self._to_come(epoch, record.config["epochs"], record, taken.seconds) for record, taken in waiting]
        new = self._to_come(epoch, self._planned)
        seconds = sum(now + later) + max(0, left) * new
        seconds = max(sum(now), min(seconds, *self._limits(status, epoch)))
        return replace(
            status,
            seconds_left=self._wall(seconds, now),
            cost_left=self._cost(seconds, now),
            next_cost=self._cost(sum(now) + (later[0] if later else new), now),
        )

    def _to_come(self, epoch: float, planned: int, record: TrialRecord | None = None, seconds: float = 0.0) -> float:
        """Return the seconds that a trial still takes after so many.

        Args:
            epoch: seconds of one; 0 where none was trained, and trials take what those without epochs took.
            planned: epochs of the trial.
            record: of the trial; None is a new one of the search.
            seconds: that it has taken.
        """
        if not epoch:
            return max(0.0, fmean(self._others) - seconds)
        done = record.epochs if record else 0
        epochs = float(planned - done)
        if record is None or _may_stop_early(record):
            longer = self._longer / self._searched
            epochs = min(epochs, sum(survival(self._spec.early_stopping, planned, done)) * longer)
        return epoch * max(0.0, epochs)

    def _limits(self, status: BudgetStatus, epoch: float) -> list[float]:
        """Return for how many seconds of trials each budget suffices; a trial may pass those of hours and epochs."""
        spec, each = self._spec, self._cost(1.0)
        limits = [max(0.0, self._deadline - self._clock()) * self._share.concurrency]
        if spec.epochs_budget is not None and epoch:
            limits.append((spec.epochs_budget - status.spent.epochs) * epoch)
        if spec.max_cost is not None and status.cost is not None and each:
            limits.append((spec.max_cost - status.cost) / each)
        return limits

    def used_up(self, left: int) -> UsedUp:
        """Return the budget, besides the hours, that forbids another trial, if one does."""
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
