"""What is known of a sweep while it runs; the views draw it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.goals import ACCURACY_ALONE, Goals

if TYPE_CHECKING:
    from sweeps.ledger import Standing
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec


@dataclass(slots=True)
class TrialLine:
    """One trial, as far as it has come; accuracies in [0, 1].

    ``rank`` orders those that may win, the best first; ``value`` is of the first objective.
    """

    number: int
    name: str
    settings: str
    epochs: int
    epoch: int = 0
    status: str = "running"
    accuracy: float | None = None
    reason: str = ""
    refused: bool = False
    rank: tuple[float, ...] | None = None
    value: float | None = None


@dataclass(slots=True)
class RunningSweep:
    """The trials of a sweep so far, in the order in which they started."""

    total: int
    started: float = field(default_factory=time.monotonic)
    lines: dict[int, TrialLine] = field(default_factory=dict)
    goals: Goals = ACCURACY_ALONE
    standing: Standing | None = None
    told: float = field(default_factory=time.monotonic)

    def stand(self, standing: Standing) -> None:
        """Note what is spent and what is to come."""
        self.standing, self.told = standing, time.monotonic()

    def change(self, spec: SweepSpec, record: TrialRecord) -> TrialLine:
        """Note how a trial is getting on, or how it ended."""
        line = self.lines.get(record.number) or self._begin(spec, record)
        line.status, line.epoch, line.reason = record.status, record.epochs, record.reason or ""
        line.refused = record.refused
        may_win = record.status == "complete" and record.confirms is None
        line.rank = self.goals.rank(record.number, record.metrics) if may_win else None
        line.value = record.metrics.get(self.goals.first.metric)
        line.accuracy = record.metrics.get("val_accuracy", line.accuracy)
        return line

    def _begin(self, spec: SweepSpec, record: TrialRecord) -> TrialLine:
        from sweeps.job import base_settings
        from sweeps.leaderboard import differing_settings

        name = record.experiment or "search" if record.confirms is None else f"confirms trial {record.confirms}"
        differing = differing_settings(record.config, base_settings(spec))
        line = TrialLine(record.number, name, write_settings(differing), record.config["epochs"])
        self.lines[record.number] = line
        return line

    @property
    def best(self) -> TrialLine | None:
        """The complete trial that would win now; runs with fresh seeds are none of the search."""
        ranked = [(line.rank, line) for line in self.lines.values() if line.rank is not None]
        return min(ranked, key=lambda one: one[0], default=(None, None))[1]

    @property
    def best_known(self) -> tuple[int, float] | None:
        """Number and first objective of the trial that would win now, those of earlier sittings included."""
        if self.standing:
            return self.standing.best
        return (self.best.number, self.best.value or 0.0) if self.best else None

    @property
    def done(self) -> int:
        """Trials that ended, however, those of earlier sittings too; those that were never run do not count."""
        here = sum(line.status != "running" and not line.refused for line in self.lines.values())
        return max(here, self.standing.ended if self.standing else 0)

    @property
    def elapsed(self) -> float:
        """Seconds since the first sign of the sweep."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float | None:
        """Seconds still to go by the last forecast; None before anything was measured."""
        if self.standing is None or self.standing.forecast is None:
            return None
        return max(0.0, self.standing.forecast.seconds - (time.monotonic() - self.told))


def write_settings(settings: Mapping[str, Any]) -> str:
    """Write settings in one short line.

    >>> write_settings({"head_lr": 0.0012345, "flip": True, "crop": "random"})
    'head_lr=0.00123 flip crop=random'
    """
    return " ".join(_write_setting(name, value) for name, value in settings.items())


def _write_setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"


def write_duration(seconds: float) -> str:
    """Write a duration in its two largest units.

    >>> [write_duration(s) for s in (8.21, 75, 7325)]
    ['8.2 s', '1 min 15 s', '2 h 02 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def write_twins(twins: Sequence[tuple[int, int, bool]], most: int = 10) -> str:
    """Write which trials were not run since others answer them: (number, the other's number, whether only nearly).

    >>> write_twins([(9, 7, False), (12, 7, True)])
    '2 drawn trials were not run: 9 (same as trial 7), 12 (nearly the same as trial 7)'
    """
    what = "1 drawn trial was" if len(twins) == 1 else f"{len(twins)} drawn trials were"
    named = [f"{n} ({'nearly the ' if near else ''}same as trial {other})" for n, other, near in sorted(twins)[:most]]
    more = f" and {len(twins) - most} more" if len(twins) > most else ""
    return f"{what} not run: {', '.join(named)}{more}"


def write_share(share: float | None) -> str:
    """Write a share of [0, 1] in percent; a dash when there is none."""
    return "–" if share is None or share != share else f"{share:.1%}"
