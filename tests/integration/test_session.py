"""Ray started ahead of the trials."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import ray

from sweeps.session import one_session, ray_ahead, ray_session

# Of the standard library, and loaded by nobody else here.
MODULE = "sunau"


@ray.remote(num_cpus=1)
class Process:
    """A trial's process."""

    def has_loaded(self, module: str) -> bool:
        """Tell whether the module was loaded before this actor came."""
        return module in sys.modules


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_session_takes_over_the_ray_that_was_started_ahead_and_ends_it(tmp_path: Path) -> None:
    """Its processes have loaded what they were told to, and trials get these processes."""
    with ray_ahead(tmp_path / "ray.log", [MODULE]):
        with ray_session(tmp_path / "ray.log") as machines:
            assert machines
            processes = [Process.remote() for _ in range(machines[0].cores)]
            assert all(ray.get([process.has_loaded.remote(MODULE) for process in processes]))
        assert not ray.is_initialized()


def test_a_ray_that_nobody_needed_is_ended(tmp_path: Path) -> None:
    """A mistake is found in the images: no session comes."""
    with pytest.raises(ValueError, match="no images"), ray_ahead(tmp_path / "ray.log", []):
        raise ValueError("no images")
    assert not ray.is_initialized()


def test_the_sweeps_of_a_job_share_the_ray_that_the_first_started_ahead(tmp_path: Path) -> None:
    """It outlives the first one's sitting."""
    with one_session():
        for _ in range(2):
            with ray_ahead(tmp_path / "ray.log", []), ray_session(tmp_path / "ray.log"):
                assert ray.get(Process.remote().has_loaded.remote("sys"))
            time.sleep(0.5)
            assert ray.is_initialized()
    assert not ray.is_initialized()


def test_a_ray_that_runs_already_is_used_and_left_alone(tmp_path: Path) -> None:
    """A job's sweeps share one."""
    with ray_session(tmp_path / "ray.log"):
        with ray_ahead(tmp_path / "ray.log", []), ray_session(tmp_path / "ray.log"):
            pass
        assert ray.is_initialized()
