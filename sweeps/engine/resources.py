"""What the machine has, and what each trial gets of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from carcls.errors import InputError
from sweeps.engine.rates import Machine, this_machine
from sweeps.trial import Spent

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

__all__ = ["LEAST_SECONDS", "LEAST_VARIABLE", "Machine", "Share", "least_seconds", "this_machine", "trial_resources"]

# For so long every trial may be silent, unless the variable says otherwise (see sweeps.engine.hangs).
LEAST_SECONDS = 300.0
LEAST_VARIABLE = "CARSWEEP_HANG_SECONDS"


class Share(NamedTuple):
    """What a trial gets, and how many trials run at a time."""

    cpus: float
    gpus: float
    concurrency: int

    def spend(self, seconds: float, epochs: int = 0, wall: float = 0.0) -> Spent:
        """Return what so many seconds of a trial with this share are."""
        return Spent(seconds, epochs, seconds * self.cpus, seconds * self.gpus, wall)


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
    slots = spec.trials if gpus == 0 else sum(_slots(machine.gpus, gpus) for machine in places)
    wanted = min(slots, spec.concurrency or slots, spec.trials)
    cpus = spec.cpus_per_trial or _even_share(places, gpus, wanted, oversubscribed=bool(spec.concurrency or gpus))
    return Share(cpus, gpus, max(1, min(wanted, _fitting(places, gpus, cpus))))


def _slots(gpus: int, per_trial: float) -> int:
    """Trials that fit on the GPUs; each stays on one of them."""
    return gpus * math.floor(1 / per_trial + 1e-6)


def _fitting(machines: Sequence[Machine], gpus: float, cpus: float) -> int:
    """Trials that fit, each on one machine."""
    by_cores = [math.floor(machine.cores / cpus + 1e-6) for machine in machines]
    if gpus == 0:
        return sum(by_cores)
    return sum(min(fit, _slots(machine.gpus, gpus)) for fit, machine in zip(by_cores, machines, strict=True))


def _even_share(machines: Sequence[Machine], gpus: float, trials: int, *, oversubscribed: bool) -> float:
    """Return the most cores with which so many trials still fit."""
    for cores in range(max(machine.cores for machine in machines), 0, -1):
        if _fitting(machines, gpus, cores) >= trials:
            return float(cores)
    # Whoever asked for more trials than cores, or has more room on GPUs, shares cores; others get one each.
    shares = [hundredths / 100 for hundredths in range(99, 0, -1)] if oversubscribed else []
    return next((share for share in shares if _fitting(machines, gpus, share) >= trials), 1.0)


def _check_fits(spec: SweepSpec, machines: Sequence[Machine], gpus: float, where: str) -> None:
    most_gpus = max(machine.gpus for machine in machines)
    if gpus > most_gpus:
        there = "there is none" if most_gpus == 0 else f"there are {most_gpus}"
        raise InputError(
            f"gpus_per_trial must be at most the number of GPUs {where} ({there}), got {gpus:g}. "
            "Leave --gpus-per-trial out, or lower it."
        )
    cpus = spec.cpus_per_trial
    most_cores = max(machine.cores for machine in machines if machine.gpus >= gpus)
    if cpus is not None and cpus > most_cores:
        raise InputError(
            f"cpus_per_trial must be at most the cores {where} ({most_cores}), got {cpus:g}. "
            "Leave --cpus-per-trial out, or lower it."
        )


def least_seconds() -> float:
    """Return for how long any trial may be silent: LEAST_SECONDS, or what CARSWEEP_HANG_SECONDS says.

    Raises:
        InputError: it says no number of seconds.
    """
    said = os.environ.get(LEAST_VARIABLE, "")
    try:
        seconds = float(said) if said else LEAST_SECONDS
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InputError(f"{LEAST_VARIABLE} must be a number of seconds above 0, got {said!r}. Leave it out for 300.")
    return seconds
