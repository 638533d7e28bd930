"""What machines have and how fast they are, roughly, and what each trial gets of them. No torch.

The table of speeds was measured on two CPU cores with AMX; a GPU is taken to be like an A100. Estimates are within a
factor of two at best, and say so wherever they are shown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.errors import InputError
from carcls.machine import gpu_kind, usable_cores, visible_gpus
from sweeps.text import plural
from sweeps.trial import Spent

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# For so long every trial may be silent, unless the variable says otherwise (see sweeps.engine.hangs).
LEAST_SECONDS = 300.0
LEAST_VARIABLE = "CARSWEEP_HANG_SECONDS"
# Images per second at 224×224 on two cores, in the precision that "auto" takes: (training, inference).
_TWO_CORES = {"resnet50": (18.5, 51.0), "densenet121": (16.6, 75.0), "efficientnet_lite0": (18.0, 55.0)}
# ResNet-50 without bf16 trains 6.6 and infers 18.5 images per second on the same cores.
_FP32_SHARE = 0.36
# Scratch networks do their arithmetic at 0.6–1.2 of ResNet-50's speed (in fp32): their early maps are larger.
_SCRATCH_SHARE = 0.7
# Ray counts in parts of a core that are no smaller than one in so many.
_RAY_PARTS = 10_000
# What an A100 trains of ResNet-50 against two cores: 2,500 against 18.5 images per second.
_GPU_GAIN = 2_500 / 18.5


@dataclass(frozen=True, slots=True)
class Machine:
    """What trials run on: CPU cores, whether they multiply bf16 matrices (AMX), and GPUs.

    ``gpu_kind`` is what the GPUs are called; empty where they are of several kinds, or nobody says.
    """

    cores: int
    gpus: int = 0
    amx: bool = True
    gpu_kind: str = ""

    def __str__(self) -> str:
        if self.gpus:
            return plural(self.gpus, "GPU")
        return plural(self.cores, "CPU core")


def this_machine() -> Machine:
    """Return the machine this process runs on, as far as it may use it."""
    amx = False
    with suppress(OSError):
        amx = "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    gpus = visible_gpus()
    return Machine(usable_cores(), gpus, amx, gpu_kind() if gpus else "")


class Share(NamedTuple):
    """What a trial gets, and how many trials run at a time."""

    cpus: float
    gpus: float
    concurrency: int

    def spend(self, seconds: float, epochs: int = 0, wall: float = 0.0) -> Spent:
        """Return what so many seconds of a trial with this share are."""
        return Spent(seconds, epochs, seconds * self.cpus, seconds * self.gpus, wall)


class Process(NamedTuple):
    """A process that ran trials: Ray's actor, and the share that it has."""

    actor: Any
    cpus: float
    gpus: float

    def has(self, share: Share) -> bool:
        """Return whether it has what a trial with this share gets, or more; a GPU only where that one gets any."""
        return self.cpus >= share.cpus and self.gpus >= share.gpus and (self.gpus > 0) == (share.gpus > 0)


def trial_resources(spec: SweepSpec, *machines: Machine) -> Share:
    """Return the share of a trial and how many run at a time.

    Where the spec is silent: with GPUs a trial gets a whole one, otherwise cores are divided among as many trials as
    there are, up to one each. More concurrency than fits is cut to what fits. A trial runs on one machine.

    Args:
        spec: the sweep.
        machines: of a cluster; none is this machine.

    Raises:
        InputError: a trial asks for more than any machine has.
    """
    places = machines or (this_machine(),)
    where = "of one machine of the cluster" if len(places) > 1 else "here"
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else float(any(m.gpus for m in places))
    _check_fits(spec, places, gpus, where)
    slots = sum(_slots(machine, gpus) for machine in places)
    wanted = int(min(slots, spec.concurrency or slots, spec.trials))
    cpus = spec.cpus_per_trial or _even_share(places, gpus, wanted, oversubscribed=bool(spec.concurrency or gpus))
    return Share(cpus, gpus, max(1, min(wanted, _fitting(places, gpus, cpus))))


def processes_of(config: TrialConfig, gpus: float) -> int:
    """Return in how many processes a trial with so many GPUs trains: one on each, or as many as it says on a CPU.

    >>> processes_of(TrialConfig(unfreezing="full"), 2), processes_of(TrialConfig(unfreezing="frozen"), 2)
    (2, 1)
    """
    if "processes" in config.neutral():
        return 1
    return max(1, int(gpus)) if gpus else config.processes


def reserved_cpus(cpus: float, gpus: float, machines: Sequence[Machine]) -> float:
    """Return how many of a trial's cores Ray counts as taken.

    What is reserved on a GPU that is out of use stays so (see sweeps.engine.recovery), and must leave cores for trials
    on the others. So on the only machine with GPUs a part of a GPU takes no more than this part of the cores.
    How many trials run at a time is known without Ray.

    >>> reserved_cpus(8, 1, [Machine(8, 4)])
    2.0
    """
    places = [machine for machine in machines if machine.gpus]
    if gpus == 0 or len(places) != 1:
        return cpus
    part = places[0].cores / places[0].gpus * gpus
    return min(cpus, math.floor(part * _RAY_PARTS) / _RAY_PARTS)


def _slots(machine: Machine, gpus: float) -> float:
    """Trials that its GPUs carry, each on one of them, or on several of its own."""
    if gpus >= 1:
        return machine.gpus // gpus
    return machine.gpus * math.floor(1 / gpus + 1e-6) if gpus else math.inf


def _fitting(machines: Sequence[Machine], gpus: float, cpus: float) -> int:
    """Trials that fit, each on one machine."""
    return sum(math.floor(min(machine.cores / cpus + 1e-6, _slots(machine, gpus))) for machine in machines)


def _even_share(machines: Sequence[Machine], gpus: float, trials: int, *, oversubscribed: bool) -> float:
    """Return the most cores with which so many trials still fit."""
    shares = [float(cores) for cores in range(max(machine.cores for machine in machines), 0, -1)]
    # Whoever asked for more trials than cores, or has more room on GPUs, shares cores; others get one each.
    shares += [hundredths / 100 for hundredths in range(99, 0, -1)] if oversubscribed else []
    return next((share for share in shares if _fitting(machines, gpus, share) >= trials), 1.0)


def _check_fits(spec: SweepSpec, machines: Sequence[Machine], gpus: float, where: str) -> None:
    most_gpus = max(machine.gpus for machine in machines)
    if gpus > most_gpus:
        there = f"there are {most_gpus}" if most_gpus else "there is none"
        raise InputError(
            f"gpus_per_trial must be at most the number of GPUs {where} ({there}), got {gpus:g}. "
            "Leave --gpus-per-trial out, or lower it."
        )
    most_cores = max(machine.cores for machine in machines if machine.gpus >= gpus)
    if (spec.cpus_per_trial or 0) > most_cores:
        raise InputError(
            f"cpus_per_trial must be at most the cores {where} ({most_cores}), got {spec.cpus_per_trial:g}. "
            "Leave --cpus-per-trial out, or lower it."
        )


def least_seconds() -> float:
    """Return for how long any trial may be silent: LEAST_SECONDS, or what CARSWEEP_HANG_SECONDS says.

    Raises:
        InputError: it says no number of seconds.
    """
    said = os.environ.get(LEAST_VARIABLE) or str(LEAST_SECONDS)
    seconds = math.nan
    with suppress(ValueError):
        seconds = float(said)
    if not seconds > 0:
        raise InputError(f"{LEAST_VARIABLE} must be a number of seconds above 0, got {said!r}. Leave it out for 300.")
    return seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """Images per second of one config on one machine, all of the machine at work."""

    train: float
    infer: float


def rates_of(config: TrialConfig, machine: Machine, network: BackboneRecord | None = None) -> Rates:
    """Return how many images per second ``config`` trains (all stages open) and infers on ``machine``.

    ``network`` has the backbone's figures; None takes the catalog's.
    """
    record = network or find_backbone(config.backbone)
    slow = record.bf16 and (config.precision == "fp32" or not machine.amx)
    on_cores = machine.cores / 2 * (_FP32_SHARE if slow else 1.0)
    scale = _relative_speed(record, config) * (_GPU_GAIN * machine.gpus if machine.gpus else on_cores)
    train, infer = _TWO_CORES.get(record.name, _TWO_CORES["resnet50"])
    return Rates(train * scale, infer * scale)


def _relative_speed(record: BackboneRecord, config: TrialConfig) -> float:
    """Return the speed at the trial's image size beside the measured one, or beside ResNet-50's by the arithmetic."""
    reference = find_backbone("resnet50").gmacs * 1e9
    if record.name == SCRATCH:
        return reference * _SCRATCH_SHARE / architecture_of(config).macs(config.image_size)
    scale = (224 / config.image_size) ** 2
    return scale if record.name in _TWO_CORES else scale * reference / (record.gmacs * 1e9)
