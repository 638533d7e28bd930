"""What a sweep would do, before it does anything: trials, the stages they share, disk and time. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carcls.catalog import BackboneRecord
from sweeps.engine.rates import Machine
from sweeps.run.plan_stages import PlannedStage, planned_stages
from sweeps.spec.spec import SweepSpec
from sweeps.text import (
    UNLIMITED,
    Column,
    Grid,
    changes_text,
    counts_text,
    lines_of,
    money_text,
    plural,
    rough_duration,
    size_text,
    table_of,
)

if TYPE_CHECKING:
    from carcls.data.config import DataSummary

# Starting Ray and the first workers; then each trial's own start. In seconds.
_STARTING, _PER_TRIAL = 15.0, 1.0

_STAGES: tuple[Column[PlannedStage], ...] = (
    Column("kind", lambda stage: stage.kind, "stage", is_word=True),
    Column("count", lambda stage: stage.count, "count"),
    Column("trials", lambda stage: stage.trials, "trials"),
    Column("seconds", lambda stage: stage.seconds, "time", rough_duration),
    Column("disk_bytes", lambda stage: stage.disk_bytes, "disk", size_text),
    Column("shared", lambda stage: stage.shared, "shared by", is_word=True),
)


@dataclass(frozen=True)
class Plan:
    """What a sweep would do. ``lines()`` is for people, ``to_dict()`` for scripts.

    Attributes:
        spec: the sweep.
        summary: the numbers of its data set.
        machine: what its trials run on; GPUs that they do not take are none.
        hourly: what an hour of all trials at work costs; None where no price is known.
        networks: figures of backbones by name, where they are known better than from the catalog.
        notes: what was found on the way, a sentence each.
        images_read: whether the numbers are those of images that were read.
    """

    spec: SweepSpec
    summary: DataSummary
    machine: Machine
    hourly: float | None = None
    networks: Mapping[str, BackboneRecord] = field(default_factory=dict)
    notes: Sequence[str] = ()
    images_read: bool = False

    @property
    def used(self) -> Machine:
        """The machine without GPUs that the trials do not take."""
        return replace(self.machine, gpus=0) if self.spec.gpus_per_trial == 0 else self.machine

    @cached_property
    def stages(self) -> tuple[PlannedStage, ...]:
        """What the trials compute and share."""
        return planned_stages(self.spec, self.summary, self.used, self.networks)

    @property
    def cost(self) -> float | None:
        """Rough cost of the trials; None without a price."""
        return None if self.hourly is None else self.hourly * self.seconds / 3600

    @property
    def experiments(self) -> tuple[str, ...]:
        """Documented experiments that fit into the trials."""
        return self.spec.experiments[: self.spec.trials]

    @property
    def disk_bytes(self) -> int:
        """Rough space of all stages."""
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Rough time of the whole sweep, from start to the registered model."""
        runs = self.spec.trials + self.spec.extent.runs
        return _STARTING + _PER_TRIAL * runs + sum(stage.seconds for stage in self.stages)

    def lines(self, width: int = UNLIMITED) -> list[str]:
        """Return the plan as plain lines of text; its tables are not wider than ``width``."""
        searched = self.spec.trials - len(self.experiments)
        documented = plural(len(self.experiments), "documented experiment")
        data, name = self.summary, self.spec.name or self.spec.family
        counts = f"{data.images:,} images, {data.classes} classes; {counts_text(data.splits)}"
        lines = [f"Plan of {name} on {data.name} ({counts})", *self.notes, ""]
        lines += [f"Trials: {self.spec.trials} ({documented}{f', then {searched} searched' if searched else ''})"]
        lines += _experiment_lines(self.spec, self.experiments)
        lines += _afterwards(self.spec)
        lines += [f"  Note: {self.spec.note}"] if self.spec.note else []
        lines += ["", "Search:" if self.spec.search else "Search: nothing"]
        lines += lines_of(
            Grid(None, [(n, str(domain)) for n, domain in self.spec.search.items()]), width=width, indent="  "
        )
        lines += [
            *self.spec.goals.lines(),
            _stopping(self.spec),
            "",
            "Stages (each is computed once, then shared by all trials, and by later sweeps):",
        ]
        lines += lines_of(table_of(_STAGES, self.stages, fold=("shared",)), width=width, indent="  ")
        lines += ["", f"Disk: about {size_text(self.disk_bytes)}."]
        lines += [f"Time: about {rough_duration(self.seconds)} on {self.used}. {self._caveat()}"]
        return lines + self._cost_lines()

    def _cost_lines(self) -> list[str]:
        if self.cost is None or self.spec.prices is None:
            return []
        currency, most = self.spec.prices.currency, self.spec.max_cost
        line = f"Cost: about {money_text(self.cost, currency)} at {self.spec.price}, as rough as the time."
        if most is None or self.cost <= most:
            return [line]
        return [f"{line} The limit of {money_text(most, currency)} comes first: no trial starts that would exceed it."]

    def _caveat(self) -> str:
        is_drawn = self.spec.trials > len(self.experiments)
        drawn = ", from an example of the trials the search might draw" if is_drawn else ""
        rough = f"A rough estimate{drawn}: expect half to twice of it."
        if self.spec.hours is None or self.seconds <= self.spec.hours * 3600:
            return rough
        return f"{rough} The limit of {self.spec.hours:g} hours comes first: no new trial starts after it."

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values for JSON; times in seconds, space in bytes."""
        data = self.summary
        return {
            "family": self.spec.family,
            "data": {"name": data.name, "images": data.images, "classes": data.classes, **data.splits},
            "trials": self.spec.trials,
            "experiments": list(self.experiments),
            "changed": {name: _changes_json(self.spec.changed_settings(name)) for name in self.experiments},
            "search": {name: domain.plain() for name, domain in self.spec.search.items()},
            "early_stopping": self.spec.early_stopping.model_dump(),
            "objectives": list(self.spec.objectives),
            "constraints": list(self.spec.constraints),
            "stages": [asdict(stage) for stage in self.stages],
            "disk_bytes": self.disk_bytes,
            "seconds": round(self.seconds),
            "cost": self.cost,
            "machine": asdict(self.used),
            "note": self.spec.note,
            "notes": list(self.notes),
            "images_read": self.images_read,
            "confirming_runs": self.spec.extent.runs,
            "refit": self.spec.refit,
        }


def _experiment_lines(spec: SweepSpec, names: Sequence[str]) -> list[str]:
    """Return a line for each documented experiment, and one for what all of them run otherwise than documented."""
    changes = {name: spec.changed_settings(name) for name in names}
    first = next(iter(changes.values()), {})
    shared = {n: change for n, change in first.items() if all(other.get(n) == change for other in changes.values())}
    lines = [f"  all with {changes_text(shared)}"] if shared else []
    for name, changed in changes.items():
        own = {setting: change for setting, change in changed.items() if setting not in shared}
        with_own = f" with {changes_text(own)}" if own else "" if shared else ", as documented"
        lines.append(f"  {name}{with_own}")
    return lines


def _afterwards(spec: SweepSpec) -> list[str]:
    lines, extent = [], spec.extent
    if extent.runs:
        best = "best" if extent.top == 1 else f"{extent.top} best"
        runs = plural(extent.runs, "more training")
        lines.append(f"Then the {best}, with {extent.seeds} fresh seeds each: {runs}, which choose the winner.")
    if spec.refit:
        lines.append("At last the winner once more, on training and validation images.")
    return lines


def _changes_json(changed: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"documented": documented, "used": used} for name, (documented, used) in changed.items()}


def _stopping(spec: SweepSpec) -> str:
    stopping = spec.early_stopping
    if spec.goals.notes:
        return " ".join(spec.goals.notes)
    if not stopping.enabled:
        return "Early stopping: none."
    first = "a fifth of the epochs" if stopping.min_epochs is None else f"epoch {stopping.min_epochs}"
    return (
        f"Early stopping of searched trials: successive halving, from {first}, "
        f"the best 1 in {stopping.reduction} goes on."
    )
