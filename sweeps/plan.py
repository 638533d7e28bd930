"""What a sweep would do, before it does anything: trials, the stages they share, disk and time. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sweeps.plan_stages import DataSummary, PlannedStage, planned_stages
from sweeps.plan_text import bytes_text, seconds_text, table
from sweeps.rates import Machine, detect_machine
from sweeps.spec import SweepSpec

# Starting Ray and the first workers; then each trial's own start. In seconds.
_STARTING, _PER_TRIAL = 15.0, 1.0
_NUMBERS = ("name", "images", "classes", "train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep would do. ``lines()`` is for people, ``to_dict()`` for scripts."""

    spec: SweepSpec
    summary: DataSummary
    machine: Machine
    stages: tuple[PlannedStage, ...]

    @property
    def trials(self) -> int:
        """Trials, documented experiments included."""
        return self.spec.trials

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
        return _STARTING + _PER_TRIAL * self.trials + sum(stage.seconds for stage in self.stages)

    def lines(self) -> list[str]:
        """Return the plan as plain lines of text."""
        searched = self.trials - len(self.experiments)
        documented = f"{len(self.experiments)} documented experiments"
        lines = [f"Plan of {self.spec.name or self.spec.family} on {_data(self.summary)}", ""]
        lines += [f"Trials: {self.trials} ({documented}, then {searched} searched)"]
        lines += [f"  {name}{_changes(self.spec, name)}" for name in self.experiments]
        lines += [f"  Note: {self.spec.note}"] if self.spec.note else []
        lines += ["", f"Search: {'nothing' if not self.spec.search else ''}".rstrip()]
        lines += table([[name, str(domain)] for name, domain in self.spec.search.items()])
        lines += [
            *self.spec.goals.lines(),
            _stopping(self.spec),
            "",
            "Stages (each is computed once, then shared by all trials, and by later sweeps):",
        ]
        header = ["stage", "count", "trials", "time", "disk", "shared by"]
        lines += table([header, *(_row(stage) for stage in self.stages)])
        lines += ["", f"Disk: about {bytes_text(self.disk_bytes)}."]
        lines += [f"Time: about {seconds_text(self.seconds)} on {self.machine}. {self._caveat()}"]
        return lines

    def _caveat(self) -> str:
        rough = "A rough estimate, from an example of the trials the search might draw: expect half to twice of it."
        if self.spec.hours is None or self.seconds <= self.spec.hours * 3600:
            return rough
        return f"{rough} The limit of {self.spec.hours:g} hours comes first: no new trial starts after it."

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values for JSON; times in seconds, space in bytes."""
        return {
            "family": self.spec.family,
            "data": {name: getattr(self.summary, name) for name in _NUMBERS},
            "trials": self.trials,
            "experiments": list(self.experiments),
            "changed": {name: _plain(self.spec.changed_settings(name)) for name in self.experiments},
            "search": {name: domain.plain() for name, domain in self.spec.search.items()},
            "early_stopping": self.spec.early_stopping.model_dump(),
            "objectives": list(self.spec.objectives),
            "constraints": list(self.spec.constraints),
            "stages": [asdict(stage) for stage in self.stages],
            "disk_bytes": self.disk_bytes,
            "seconds": round(self.seconds),
            "machine": asdict(self.machine),
            "note": self.spec.note,
        }


def make_plan(spec: SweepSpec, summary: DataSummary, machine: Machine | None = None) -> Plan:
    """Return what ``spec`` would do on the data set that ``summary`` describes.

    Args:
        spec: the sweep.
        summary: the data set's numbers.
        machine: what to run on; None looks at this one. Without GPUs for the trials, GPUs do not count.
    """
    machine = machine or detect_machine()
    if spec.gpus_per_trial == 0:
        machine = Machine(machine.cores, 0, machine.amx)
    return Plan(spec, summary, machine, planned_stages(spec, summary, machine))


def _data(summary: DataSummary) -> str:
    splits = f"{summary.train:,} train, {summary.validation:,} validation, {summary.test:,} test"
    return f"{summary.name} ({summary.images:,} images, {summary.classes} classes; {splits})"


def _changes(spec: SweepSpec, experiment: str) -> str:
    changed = spec.changed_settings(experiment)
    text = ", ".join(f"{name} {used} instead of {documented}" for name, (documented, used) in changed.items())
    return f" with {text}" if text else ", as documented"


def _plain(changed: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"documented": documented, "used": used} for name, (documented, used) in changed.items()}


def _stopping(spec: SweepSpec) -> str:
    stopping = spec.early_stopping
    if spec.goals.notes:
        return " ".join(spec.goals.notes)
    if not stopping.enabled:
        return "Early stopping: none."
    return (
        f"Early stopping of searched trials: successive halving, from epoch {stopping.min_epochs}, "
        f"the best 1 in {stopping.reduction} goes on."
    )


def _row(stage: PlannedStage) -> list[str]:
    time = seconds_text(stage.seconds)
    return [stage.kind, str(stage.count), str(stage.trials), time, bytes_text(stage.disk_bytes), stage.shared]
