"""How much a sweep still takes: epochs, seconds and money, from what its trials have taken so far.

Known to be left out: trials that will be answered by others (siblings, duplicates), and a search space that runs out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeps.budget import Budget, Prices, Spent, cost_of


@dataclass(frozen=True, slots=True)
class Pace:
    """A trial as a forecast sees it.

    Attributes:
        planned: epochs of a trial that is not stopped.
        done: epochs it has come to, replayed ones included.
        spent: what it took so far.
        ended: whether nothing more comes of it.
        fresh: whether its work was done for it; what the store answered says nothing of the next trial.
        searched: whether early stopping may end it.
        waiting: whether it was left unfinished by an earlier sitting, and has not begun again.
    """

    planned: int
    done: int
    spent: Spent
    ended: bool
    fresh: bool = True
    searched: bool = True
    waiting: bool = False


@dataclass(slots=True)
class Seen:
    """What trials tell of those to come, added up, so that a thousand that ended are not gone through for each report.

    Attributes:
        epochs, seconds: that were trained, of trials whose work was done for them.
        whole: seconds of those of them that ended.
        ended: how many these are.
        longer: how much longer than expected searched trials ran, added up.
        searched: how many these are.
    """

    epochs: int = 0
    seconds: float = 0.0
    whole: float = 0.0
    ended: int = 0
    longer: float = 0.0
    searched: int = 0

    def add(self, trial: Pace, halving: Halving) -> None:
        """Count a trial."""
        if not trial.fresh:
            return
        if trial.spent.epochs:
            self.epochs += trial.spent.epochs
            self.seconds += trial.spent.seconds
        if trial.ended and trial.spent.seconds:
            self.whole += trial.spent.seconds
            self.ended += 1
        if trial.ended and trial.searched and trial.spent.epochs and trial.planned:
            self.longer += trial.done / expected_epochs(trial.planned, halving)
            self.searched += 1


@dataclass(frozen=True, slots=True)
class Halving:
    """Early stopping, as far as it shortens trials: after each of ``rungs`` epochs one in ``reduction`` goes on."""

    rungs: tuple[int, ...] = ()
    reduction: int = 3


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to be done, and with what.

    Attributes:
        trials: new ones that the number of trials allows.
        planned: epochs of a new one that is not stopped.
        concurrency: trials at a time.
        cpus, gpus: a trial's share.
        seconds: until the hours are over; infinity without a limit.
    """

    trials: int
    planned: int
    concurrency: int
    cpus: float
    gpus: float
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to come.

    Attributes:
        trials: new ones that will start, as far as the budgets allow.
        epochs: to be trained, by those that run too.
        seconds: of wall time.
        cost: None without a price.
        next_cost: of the next trial together with what runs already; None without a price.
    """

    trials: int
    epochs: float
    seconds: float
    cost: float | None = None
    next_cost: float | None = None


def expected_epochs(planned: int, halving: Halving, done: int = 0) -> float:
    """Return after how many epochs a trial that stands at ``done`` is expected to end.

    >>> expected_epochs(9, Halving((1, 3), reduction=3))  # 1 + 2/3 + 6/9
    2.333333333333333
    """
    alive, reached, expected = 1.0, done, float(done)
    for rung in (*(rung for rung in halving.rungs if done < rung < planned), max(planned, done)):
        expected += alive * (rung - reached)
        alive, reached = alive / halving.reduction, rung
    return expected


def forecast(
    trials: Sequence[Pace],
    rest: Rest,
    halving: Halving,
    budget: Budget,
    spent: Spent,
    wall: float,
    ended: Seen | None = None,
) -> Forecast | None:
    """Return what is still to come; None before anything was measured.

    Args:
        trials: all that were asked so far, those that ended included as far as ``ended`` has not counted them.
        rest: what the sweep has left to do.
        halving: of the searched trials.
        budget: of the whole sweep.
        spent: by all trials.
        wall: seconds of all sittings so far.
        ended: what trials tell that ended.
    """
    seen = replace(ended) if ended is not None else Seen()
    for trial in trials:
        seen.add(trial, halving)
    rate = _Rate.of(seen)
    if rate is None:
        return None
    share = _observed_share(seen, halving)
    running, waiting = (
        [_remaining(trial, rate, halving, share) for trial in trials if not trial.ended and trial.waiting is waits]
        for waits in (False, True)
    )
    pending = [*running, *waiting]
    new = min(float(rest.planned), expected_epochs(rest.planned, halving) * share)
    new_seconds = rate.seconds(new)
    started = _new_trials(rest, budget, spent, wall, pending, (new, new_seconds))
    seconds = sum(s for _, s in pending) + started * new_seconds
    coming = sum(s for _, s in running) + (waiting[0][1] if waiting else new_seconds)
    return Forecast(
        trials=started,
        epochs=sum(e for e, _ in pending) + started * new,
        seconds=_wall(seconds, pending, rest),
        cost=_price(budget.prices, rest, seconds, _wall(seconds, pending, rest)),
        next_cost=_price(budget.prices, rest, coming, _wall(coming, running, rest)),
    )


def _wall(seconds: float, pending: Sequence[tuple[float, float]], rest: Rest) -> float:
    """Return the wall time of ``seconds`` of trials, at the least that of the longest one that runs."""
    return max(seconds / rest.concurrency, max((s for _, s in pending), default=0.0))


@dataclass(frozen=True, slots=True)
class _Rate:
    """Seconds of an epoch, where trials have epochs; of a trial, where they have none."""

    per_epoch: float
    per_trial: float

    @classmethod
    def of(cls, seen: Seen) -> _Rate | None:
        if seen.epochs:
            return cls(seen.seconds / seen.epochs, 0.0)
        return cls(0.0, seen.whole / seen.ended) if seen.ended else None

    def seconds(self, epochs: float) -> float:
        return self.per_trial or self.per_epoch * epochs


def _observed_share(seen: Seen, halving: Halving) -> float:
    """Return how much longer than expected searched trials ran; the expectation counts as much as a few of them."""
    return (halving.reduction + seen.longer) / (halving.reduction + seen.searched)


def _remaining(trial: Pace, rate: _Rate, halving: Halving, share: float) -> tuple[float, float]:
    """Return the epochs and seconds that a running trial still takes."""
    if rate.per_trial:
        return 0.0, max(0.0, rate.per_trial - trial.spent.seconds)
    more = expected_epochs(trial.planned, halving if trial.searched else Halving(), trial.done) - trial.done
    more = min(float(trial.planned - trial.done), more * (share if trial.searched else 1.0))
    return max(0.0, more), rate.seconds(max(0.0, more))


def _new_trials(
    rest: Rest,
    budget: Budget,
    spent: Spent,
    wall: float,
    pending: Sequence[tuple[float, float]],
    new: tuple[float, float],
) -> int:
    """Return how many new trials the budgets allow."""
    epochs, seconds = new
    running = sum(s for _, s in pending)
    limits = [float(rest.trials)]
    if budget.epochs is not None and epochs:
        limits.append(_ceil((budget.epochs - spent.epochs - sum(e for e, _ in pending)) / epochs))
    each = _price(budget.prices, rest, seconds, seconds / rest.concurrency)
    if budget.max_cost is not None and budget.prices is not None and each:
        before = cost_of(budget.prices, spent, wall)
        before += _price(budget.prices, rest, running, running / rest.concurrency) or 0.0
        limits.append(_floor((budget.max_cost - before) / each))
    if math.isfinite(rest.seconds) and seconds:
        limits.append(_ceil((max(0.0, rest.seconds) * rest.concurrency - running) / seconds))
    return max(0, int(min(limits)))


def _ceil(x: float) -> int:
    """Round up, except what rounding errors have left above a whole number."""
    return math.ceil(x - 1e-9)


def _floor(x: float) -> int:
    return math.floor(x + 1e-9)


def _price(prices: Prices | None, rest: Rest, seconds: float, wall: float) -> float | None:
    """Return what ``seconds`` of trials cost that take ``wall`` seconds of the sweep."""
    if prices is None:
        return None
    return cost_of(prices, Spent(seconds, 0, seconds * rest.cpus, seconds * rest.gpus), wall)
