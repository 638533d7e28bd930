"""What a sweep would do, before it does anything: trials, the work that they share, disk and time. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from carcls.stages import StageStore
from sweeps.engine.resources import Machine
from sweeps.run.check import Checked, fit_to_data, fit_to_images
from sweeps.run.data import NOT_READ, begun_data, located, prepare_data
from sweeps.run.estimate import Workload, estimate
from sweeps.spec.samplers import SAMPLERS
from sweeps.spec.spec import SweepSpec
from sweeps.tables import UNLIMITED, Grid, lines_of
from sweeps.text import changes_text, counts_text, money_text, plural, rough_duration, size_text

if TYPE_CHECKING:
    from carcls.catalog import BackboneRecord
    from carcls.data.config import DataSummary
    from sweeps.engine import Progress
    from sweeps.engine.resources import Share
    from sweeps.run.command import Command

# Starting Ray and the first workers; then each trial's own start. In seconds.
_STARTING, _PER_TRIAL = 15.0, 1.0
_NOUNS = {"pack": "image pack", "features": "feature file", "embeddings": "embedding file", "test": "test evaluation"}


@dataclass(frozen=True)
class Plan:
    """What a sweep would do. ``lines()`` is for people, ``to_dict()`` for scripts.

    Attributes:
        spec: the sweep.
        summary: the numbers of its data set.
        machine: what its trials run on; GPUs that they do not take are none.
        share: of a trial, by which its cost is reckoned; None reckons none.
        networks: figures of backbones by name, where they are known better than from the catalog.
        notes: what was found on the way, a sentence each.
        images_read: whether the numbers are those of images that were read.
        gpu_share: which part of a GPU trials get, and why, in a sentence; empty without GPUs, or where it was given.
    """

    spec: SweepSpec
    summary: DataSummary
    machine: Machine
    share: Share | None = None
    networks: Mapping[str, BackboneRecord] = field(default_factory=dict)
    notes: Sequence[str] = ()
    images_read: bool = False
    gpu_share: str = ""

    @property
    def used(self) -> Machine:
        """The machine without GPUs that the trials do not take."""
        return replace(self.machine, gpus=0) if self.spec.gpus_per_trial == 0 else self.machine

    @cached_property
    def work(self) -> tuple[Workload, ...]:
        """What is computed once for all trials, by kind."""
        return estimate(self.spec, self.summary, self.used, self.networks)

    @property
    def cost(self) -> float | None:
        """Rough cost of the trials; None without a price."""
        if self.share is None or self.spec.prices is None:
            return None
        return self.spec.prices.cost_of(self.share.spend(self.seconds * self.share.concurrency, wall=self.seconds))

    @property
    def experiments(self) -> tuple[str, ...]:
        """Documented experiments that fit into the trials."""
        return self.spec.experiments[: self.spec.trials]

    @property
    def disk_bytes(self) -> int:
        """Rough space of all cached stages."""
        return sum(int(work.disk_bytes) for work in self.work)

    @property
    def seconds(self) -> float:
        """Rough time of the whole sweep, from start to the registered model."""
        runs = self.spec.trials + self.spec.extent.runs
        return _STARTING + _PER_TRIAL * runs + sum(work.seconds for work in self.work)

    def lines(self, width: int = UNLIMITED) -> list[str]:
        """Return the plan as plain lines of text; its tables are not wider than ``width``."""
        spec, data = self.spec, self.summary
        searched = f", then {spec.trials - len(self.experiments)} searched" if self._is_drawn else ""
        counts = f"{data.images:,} images, {data.classes} classes; {counts_text(data.splits)}"
        counts = f"{data.layout}: {counts}" if data.layout and spec.data.path else counts
        search = Grid(None, [(name, str(domain)) for name, domain in spec.search.items()])
        shared = ", ".join(plural(int(work.count), _NOUNS.get(work.kind, work.kind)) for work in self.work)
        return [
            f"Plan of {spec.name or spec.family} on {data.name} ({counts})",
            *self.notes,
            "",
            f"Trials: {spec.trials} ({plural(len(self.experiments), 'documented experiment')}{searched})",
            *_experiment_lines(spec, self.experiments),
            *_afterwards(spec),
            *([f"  Note: {spec.note}"] if spec.note and self.experiments else []),
            "",
            f"Search: {spec.sampler} {SAMPLERS[spec.sampler].about}" if spec.search else "Search: nothing",
            *lines_of(search, width=width, indent="  "),
            *spec.goals.lines(),
            *([_stopping(spec)] if spec.goals.stop_early else []),
            "",
            f"Computed once, for all trials and later sweeps, or found in the store: {shared}.",
            f"Disk: about {size_text(self.disk_bytes)}.",
            *self._processes_lines(),
            f"Time: about {rough_duration(self.seconds)} on {self.used}. {self._caveat()}",
            *([self.gpu_share] if self.gpu_share else []),
            *self._cost_lines(),
        ]

    @property
    def _is_drawn(self) -> bool:
        return self.spec.trials > len(self.experiments)

    def _processes_lines(self) -> list[str]:
        """Return what trains a trial, where that is more than one process."""
        gpus, processes = self.share.gpus if self.share else 0, self.spec.trial_config({}).processes
        if gpus <= 1 and (gpus or processes == 1):
            return []
        where = f"on {gpus:g} GPUs" if gpus else f"in {processes} processes"
        return [f"Each trial that trains its backbone does so {where} (DistributedDataParallel)."]

    def _cost_lines(self) -> list[str]:
        if self.cost is None or self.spec.prices is None:
            return []
        currency, most = self.spec.prices.currency, self.spec.max_cost
        line = f"Cost: about {money_text(self.cost, currency)} at {self.spec.price}, as rough as the time."
        if most is None or self.cost <= most:
            return [line]
        return [f"{line} The limit of {money_text(most, currency)} comes first: no trial starts that would exceed it."]

    def _caveat(self) -> str:
        drawn = ", from an example of the trials the search might draw" if self._is_drawn else ""
        rough = f"A rough estimate{drawn}: expect half to twice of it."
        if self.spec.hours is None:
            return rough
        if self.seconds <= self.spec.hours * 3600:
            return f"{rough} No new trial starts after {self.spec.hours:g} hours."
        return f"{rough} The limit of {self.spec.hours:g} hours comes first: no new trial starts after it."

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values for JSON; times in seconds, space in bytes."""
        data, changed = self.summary, dict[str, Any]()
        for name in self.experiments:
            changes = self.spec.changed_settings(name).items()
            changed[name] = {setting: {"documented": own, "used": used} for setting, (own, used) in changes}
        return {
            "family": self.spec.family,
            "data": {"name": data.name, "images": data.images, "classes": data.classes, **data.splits},
            "trials": self.spec.trials,
            "experiments": list(self.experiments),
            "changed": changed,
            "sampler": self.spec.sampler,
            "search": {name: domain.plain() for name, domain in self.spec.search.items()},
            "early_stopping": self.spec.early_stopping.model_dump(),
            "objectives": list(self.spec.objectives),
            "constraints": list(self.spec.constraints),
            "stages": [asdict(work) for work in self.work],
            "disk_bytes": self.disk_bytes,
            "seconds": round(self.seconds),
            "cost": self.cost,
            "machine": asdict(self.used),
            "gpu_share": self.gpu_share or None,
            "note": self.spec.note,
            "notes": list(self.notes),
            "images_read": self.images_read,
            "confirming_runs": self.spec.extent.runs,
            "refit": self.spec.refit,
        }


def plan_sweep(checked: Checked, command: Command, reading: Progress | None = None) -> Plan:
    """Return what a sweep would take; of images that were read before it tells what the run does.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass. The time is told for this machine.
        command: that it would be run by.
        reading: told while the images are read into the store, as the run does; None counts them by their listing.

    Raises:
        InputError: as the run does.
    """
    from carcls.data.dataset import find_dataset
    from carcls.data.splits import listing_notes

    spec, out, dataset = checked.spec, command.root, None
    if reading is not None:
        dataset = prepare_data((spec, *command.specs), out, StageStore(out / "stages"), reading, checked.listing)
    elif checked.listing is not None and (out / "stages").is_dir():
        begun = begun_data(out / str(spec.name))
        dataset = find_dataset(located(spec.data, out), checked.listing, StageStore(out / "stages"), begun)
    if dataset is not None:
        summary, (spec, found) = dataset.summary, fit_to_images(checked, command, dataset)
    else:
        summary, (spec, changed) = checked.listed, fit_to_data(spec, checked.listed.train)
        found = [NOT_READ, *(listing_notes(checked.listing, spec.data) if checked.listing else ()), *changed]
    notes = (*checked.notes, *found)
    machine, share, networks, gpus = checked.machine, checked.share, checked.networks, checked.gpu_share
    return Plan(spec, summary, machine, share, networks, notes, images_read=dataset is not None, gpu_share=gpus)


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


def _stopping(spec: SweepSpec) -> str:
    stopping = spec.early_stopping
    if not stopping.enabled:
        return "Early stopping: none."
    first = "a fifth of the epochs" if stopping.min_epochs is None else f"epoch {stopping.min_epochs}"
    return (
        f"Early stopping of searched trials: successive halving, from {first}, "
        f"the best 1 in {stopping.reduction} goes on."
    )
