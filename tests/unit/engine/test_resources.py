"""Shares of trials on clusters of unlike machines, held against placing them one by one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from carcls.errors import InputError
from carcls.machine import usable_cores
from sweeps.engine.resources import Machine, Process, Share, reserved_cpus, trial_resources
from sweeps.spec.spec import SweepSpec

CLUSTERS = [
    (Machine(8, 0),),
    (Machine(8, 0), Machine(8, 0)),
    (Machine(16, 0), Machine(4, 0), Machine(1, 0)),
    (Machine(4, 0), Machine(16, 2), Machine(8, 1)),
    (Machine(2, 4), Machine(64, 0)),
]


def placed(machines: tuple[Machine, ...], share: Share) -> int:
    """Return how many trials can be put on the machines one by one, each as a whole."""
    count = 0
    for machine in machines:
        cores, gpus = float(machine.cores), [1.0] * machine.gpus
        while cores >= share.cpus - 1e-6 and take_gpus(gpus, share.gpus):
            cores -= share.cpus
            count += 1
    return count


def take_gpus(free: list[float], wanted: float) -> bool:
    """Take a share of one GPU, or several whole ones; False when there is no room."""
    if wanted == 0:
        return True
    if wanted > 1:
        whole = [place for place, left in enumerate(free) if left == 1.0][: int(wanted)]
        for place in whole if len(whole) == wanted else ():
            free[place] = 0.0
        return len(whole) == wanted
    place = next((place for place, left in enumerate(free) if left >= wanted - 1e-6), None)
    if place is None:
        return False
    free[place] -= wanted
    return True


@pytest.mark.parametrize("machines", CLUSTERS)
@pytest.mark.parametrize("trials", [1, 3, 5, 40])
@pytest.mark.parametrize("gpus", [None, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_as_many_trials_fit_as_are_run_at_a_time(
    machines: tuple[Machine, ...], trials: int, gpus: float | None
) -> None:
    """Whatever the machines, that many trials can be placed at once, each on one machine, and none waits for ever."""
    if gpus and not any(machine.gpus >= gpus for machine in machines):
        with pytest.raises(InputError, match="gpus_per_trial"):
            trial_resources(SweepSpec(family="transfer", trials=trials, gpus_per_trial=gpus), *machines)
        return
    share = trial_resources(SweepSpec(family="transfer", trials=trials, gpus_per_trial=gpus), *machines)
    assert 1 <= share.concurrency <= trials
    assert placed(machines, share) >= share.concurrency


@pytest.mark.parametrize(("machines", "trials"), list(itertools.product(CLUSTERS[:3], [1, 2, 4])))
def test_cores_are_not_left_idle(machines: tuple[Machine, ...], trials: int) -> None:
    """With one core more for each trial, not all of them would fit at a time."""
    share = trial_resources(SweepSpec(family="transfer", trials=trials), *machines)
    assert share.concurrency == trials
    assert placed(machines, share._replace(cpus=share.cpus + 1)) < trials


@pytest.mark.parametrize(
    ("asked", "machines", "said"),
    [
        ({"gpus_per_trial": 0.5}, [Machine(2, 0)], r"GPUs here \(there is none\).*--gpus-per-trial"),
        ({"cpus_per_trial": 3.0}, [Machine(2, 0)], r"at most the cores here \(2\).*--cpus-per-trial"),
        ({"cpus_per_trial": 9.0}, [Machine(8, 0)] * 2, "at most the cores of one machine of the cluster"),
        ({"gpus_per_trial": 2.0}, [Machine(8, 1)] * 2, r"GPUs of one machine of the cluster \(there are 1\), got 2"),
        ({"gpus_per_trial": 1.0}, [Machine(8, 0)] * 2, "at most the number of GPUs of one machine of the cluster"),
    ],
)
def test_more_than_a_machine_has_is_refused_with_the_remedy(
    asked: dict[str, float], machines: list[Machine], said: str
) -> None:
    """GPUs without a GPU, and more cores than there are, name the option to change."""
    with pytest.raises(InputError, match=said):
        trial_resources(SweepSpec.model_validate({"family": "transfer", **asked}), *machines)


@pytest.mark.parametrize(
    ("asked", "machines", "share"),
    [
        ({}, [Machine(8, 0)], Share(1.0, 0.0, 8)),
        ({"trials": 2}, [Machine(8, 0)], Share(4.0, 0.0, 2)),
        ({"concurrency": 4}, [Machine(8, 0)], Share(2.0, 0.0, 4)),
        ({"cpus_per_trial": 3.0}, [Machine(8, 0)], Share(3.0, 0.0, 2)),
        ({}, [Machine(16, 2)], Share(8.0, 1.0, 2)),
        ({"gpus_per_trial": 0.25}, [Machine(16, 2)], Share(2.0, 0.25, 8)),
        ({"gpus_per_trial": 2.0}, [Machine(16, 5)], Share(8.0, 2.0, 2)),
        ({"gpus_per_trial": 2.0}, [Machine(16, 3), Machine(16, 1)], Share(16.0, 2.0, 1)),
        # A trial does not span machines, and cores of one without GPUs do not count for trials with GPUs.
        ({"trials": 1}, [Machine(8, 0), Machine(8, 0)], Share(8.0, 0.0, 1)),
        ({"trials": 9}, [Machine(2, 4), Machine(64, 0)], Share(0.5, 1.0, 4)),
    ],
)
def test_shares_follow_the_machines_and_the_spec(
    asked: dict[str, float], machines: list[Machine], share: Share
) -> None:
    """Cores are divided among trials; a GPU carries 1/n trials each; nothing runs that does not fit."""
    assert trial_resources(SweepSpec.model_validate({"family": "transfer", "trials": 20, **asked}), *machines) == share


@pytest.mark.parametrize(
    ("share", "machines", "cpus"),
    [
        ((8.0, 1.0), [Machine(8, 2)], 4.0),
        ((8.0, 0.5), [Machine(8, 2), Machine(64, 0)], 2.0),
        ((1.0, 0.5), [Machine(8, 2)], 1.0),
        ((1.0, 1.0), [Machine(2, 3)], 0.6666),
        # Another machine has cores for trials, and each is to have as many trials as its cores allow.
        ((8.0, 1.0), [Machine(8, 2), Machine(8, 2)], 8.0),
        ((8.0, 0.0), [Machine(8, 2)], 8.0),
    ],
)
def test_what_is_held_of_a_gpu_leaves_cores_for_the_others(
    share: tuple[float, float], machines: list[Machine], cpus: float
) -> None:
    """Reservations that fill one of the GPUs of a machine take no more than its part of the cores."""
    assert reserved_cpus(*share, machines) == cpus


@pytest.mark.parametrize(
    ("held", "asked", "fits"),
    [
        ((4.0, 0.0), Share(2.0, 0.0, 2), True),
        ((2.0, 0.0), Share(4.0, 0.0, 1), False),
        ((2.0, 1.0), Share(2.0, 0.5, 2), True),
        ((2.0, 0.5), Share(2.0, 1.0, 1), False),
        ((2.0, 0.0), Share(2.0, 1.0, 1), False),
        ((2.0, 1.0), Share(2.0, 0.0, 1), False),
    ],
)
def test_a_process_serves_a_sweep_whose_trials_get_no_more(held: tuple[float, float], asked: Share, fits: bool) -> None:
    """One that another sweep has left may have fewer cores, a smaller part of a GPU, or one where none is wanted."""
    assert Process(None, *held).has(asked) is fits


def test_a_container_quota_counts(tmp_path: Path) -> None:
    """A quota of one and a half cores is one usable core; no quota is what the process may run on."""
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
