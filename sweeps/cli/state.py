"""What the live picture of a sweep shows: all of it values, so that drawing neither looks nor waits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.results.leaderboard import find_best
from sweeps.spec.space import Range
from sweeps.text import settings_text
from sweeps.trial import NOTHING

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.cli.machine import MachineUse
    from sweeps.engine.budget import BudgetStatus
    from sweeps.spec.space import Domain
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import Spent, TrialRecord


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """What of a trial takes time to find out, as it was when the trial was told last.

    Attributes:
        record: it was found out of.
        curve: validation accuracies in [0, 1], by epoch.
        settings: as ``distinguishing`` returns them, in words, to two digits.
        saved: seconds that the cached stages took to make which it found made.
    """

    record: TrialRecord
    curve: Sequence[float]
    settings: Sequence[str]
    saved: float


@dataclass(frozen=True, slots=True)
class SweepState:
    """All that the picture shows.

    Attributes:
        spec: of the sweep.
        status: what is spent and what is to come; None before the first trial.
        facts: of all trials by number, derived ones and those of earlier sessions among them.
        told: when each trial that this session has begun was told last, in seconds of the session.
        data: the numbers of the images; None before they are read.
        use: what the machine does; None where nobody looked.
        began: what was spent when this session began.
        seconds: since then.
        seconds_left: until the end; 0 where that is not known.
        is_over: whether nothing runs any more.
    """

    spec: SweepSpec
    status: BudgetStatus | None = None
    facts: Mapping[int, TrialFacts] = field(default_factory=dict)
    told: Mapping[int, float] = field(default_factory=dict)
    data: DataSummary | None = None
    use: MachineUse | None = None
    began: Spent = NOTHING
    seconds: float = 0.0
    seconds_left: float = 0.0
    is_over: bool = False

    @property
    def trials(self) -> list[TrialRecord]:
        """The trials without those that were derived from others."""
        return [one.record for one in self.facts.values() if one.record.derived_from is None]

    @property
    def deciding(self) -> dict[int, TrialRecord]:
        """Of each trial the record that decides: the best of its own and of those derived from it."""
        found: dict[int, list[TrialRecord]] = {}
        for one in self.facts.values():
            found.setdefault(one.record.network, []).append(one.record)
        goals = self.spec.goals
        return {number: (find_best(all_, goals) if all_[1:] else None) or all_[0] for number, all_ in found.items()}

    @property
    def images_per_second(self) -> float:
        """How many images the trials of this session trained on in a second of its own time."""
        if self.status is None or self.data is None:
            return 0.0
        seconds = self.status.spent.wall - self.began.wall
        return (self.status.spent.epochs - self.began.epochs) * self.data.train / seconds if seconds > 0 else 0.0

    def status_of(self, record: TrialRecord) -> str:
        """Return a word for what a trial does."""
        if record.refused:
            return "refused"
        if record.status != "running":
            return record.status
        return "unfinished" if self.is_over else "running" if record.number in self.told else "waiting"

    def seconds_of(self, record: TrialRecord) -> float:
        """Return how long a trial has taken: what it has told, and while it runs the time since then."""
        since = self.told.get(record.number) if record.status == "running" else None
        return record.seconds + (0.0 if since is None else max(0.0, self.seconds - since))


def facts_of(record: TrialRecord, spec: SweepSpec, known: TrialFacts | None = None) -> TrialFacts:
    """Return the facts of a record, those that are known if they are of this one; else reads its epochs' lines."""
    if known and known.record is record:
        return known
    curve = [measurement.metrics["val_accuracy"] for measurement in record.history]
    settings = distinguishing(record, spec).items()
    short = ((name, float(f"{value:.2g}") if isinstance(value, float) else value) for name, value in settings)
    return TrialFacts(record, curve, [settings_text({name: value}) for name, value in short], record.saved)


def distinguishing(record: TrialRecord, spec: SweepSpec) -> dict[str, Any]:
    """Return the searched settings in which a trial differs from the sweep's base, the one that differs most first.

    A number differs by its part of the way from the base to the farther end of its range, on the range's own scale. A
    choice that is another one differs by the share of the choices that it is not, (n - 1) / n. Equal ones stand in the
    order of the search. So the words for a trial stay the same while others come and go.
    """
    base, neutral = spec.trial_config({}).model_dump(), record.trial_config.neutral()
    distances = {
        name: _distance(domain, record.config[name], base[name])
        for name, domain in spec.search.items()
        if name not in neutral and record.config[name] != base[name]
    }
    return {name: record.config[name] for name in sorted(distances, key=lambda name: -distances[name])}


def _distance(domain: Domain, value: Any, base: Any) -> float:
    """Return how different two values are, in [0, 1]; a documented one may lie outside the range, or be none."""
    if not isinstance(domain, Range):
        return 1 - 1 / len(domain.choices)
    low, high, own, other = (
        math.log(number) if domain.log else number
        for number in (domain.low, domain.high, *(min(max(n or 0, domain.low), domain.high) for n in (value, base)))
    )
    return float(abs(own - other) / (max(other - low, high - other) or 1))
