"""What the machine has, and what each trial gets of it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from carcls.errors import InputError

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU cores and GPUs that trials may use; of a whole cluster when there is one."""

    cores: int
    gpus: int


class Share(NamedTuple):
    """What a trial gets, and how many trials run at a time."""

    cpus: float
    gpus: float
    concurrency: int


def this_machine() -> Machine:
    """Return what this process may use here."""
    return Machine(usable_cores(), visible_gpus())


def usable_cores(cgroups: Path = _CGROUPS) -> int:
    """Return how many cores this process may use: its affinity, cut to the quota of its container."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, math.floor(_quota(cgroups) + 0.01)))


def _quota(cgroups: Path) -> float:
    """Cores that the container may use on average; a huge number where there is no limit or nobody says."""
    try:
        limit, period = (cgroups / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            limit = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
        except OSError:
            return 1e9
    return 1e9 if limit in ("max", "-1") else int(limit) / int(period)


def visible_gpus(devices: Path = Path("/dev")) -> int:
    """Return how many NVIDIA GPUs this process sees, without loading torch."""
    present = sum(bool(re.fullmatch(r"nvidia\d+", entry.name)) for entry in devices.glob("nvidia*"))
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None or not present:
        return present
    return len([part for part in allowed.split(",") if part.strip() not in ("", "-1")])


def trial_resources(spec: SweepSpec, machine: Machine | None = None) -> Share:
    """Return the share of a trial and how many run at a time.

    Where the spec is silent: with GPUs a trial gets a whole one, otherwise cores are divided among as many trials as
    there are, up to one each. More concurrency than fits is cut to what fits.

    Raises:
        InputError: a trial asks for more than the machine has.
    """
    machine = machine or this_machine()
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else float(machine.gpus > 0)
    _check_fits(spec, machine, gpus)
    slots = spec.trials if gpus == 0 else _slots(machine.gpus, gpus)
    wanted = min(slots, spec.concurrency or slots, spec.trials)
    cpus = spec.cpus_per_trial or _even_share(machine.cores, wanted, oversubscribed=spec.concurrency or gpus)
    fitting = math.floor(machine.cores / cpus + 1e-6)
    return Share(cpus, gpus, max(1, min(wanted, fitting)))


def _slots(gpus: int, per_trial: float) -> int:
    """Trials that fit on the GPUs; a fraction stays on one of them."""
    return gpus * math.floor(1 / per_trial + 1e-6) if per_trial < 1 else math.floor(gpus / per_trial)


def _even_share(cores: int, trials: int, *, oversubscribed: float) -> float:
    if cores >= trials:
        return float(cores // trials)
    # Whoever asked for more trials than cores, or has more room on GPUs, shares cores; others get one each.
    return math.floor(100 * cores / trials) / 100 if oversubscribed else 1.0


def _check_fits(spec: SweepSpec, machine: Machine, gpus: float) -> None:
    if gpus > machine.gpus:
        there = "there is none" if machine.gpus == 0 else f"there are {machine.gpus}"
        raise InputError(
            f"gpus_per_trial must be at most the number of GPUs here ({there}), got {gpus:g}. "
            "Leave --gpus-per-trial out, or lower it."
        )
    if spec.cpus_per_trial is not None and spec.cpus_per_trial > machine.cores:
        raise InputError(
            f"cpus_per_trial must be at most the cores here ({machine.cores}), got {spec.cpus_per_trial:g}. "
            "Leave --cpus-per-trial out, or lower it."
        )
