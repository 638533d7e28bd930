"""What the machine has, and what each trial gets of it."""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from carcls.errors import InputError
from carcls.machine import usable_cores, visible_gpus

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec


CLUSTER_SECONDS = 5.0


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


def require_cluster(address: str) -> None:
    """Check that something listens at the address of a Ray cluster; ``auto`` is left for Ray to find.

    Raises:
        InputError: it is no address, or nothing answers within seconds (Ray itself would try for minutes).
    """
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in host:
        raise InputError(f"--address must be HOST:PORT of a Ray head, or auto on one of its machines, got {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=CLUSTER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address must be of a Ray head that answers, got {address!r}: {error}. "
            "Start one with ray start --head, or leave --address out."
        ) from None


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
