"""Ray started ahead of the trials."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from sweeps.engine.session import RaySession, _make_folder


@ray.remote(num_cpus=1)
class Process:
    """A trial's process."""

    def loaded(self) -> set[str]:
        """Return the modules that were loaded before this actor came."""
        return set(sys.modules)

    def collects(self) -> tuple[bool, int]:
        """Tell whether the garbage collector is on, and how many objects it leaves alone."""
        return gc.isenabled(), gc.get_freeze_count()


GROWTH = """
import threading
import numpy as np
from carcls.machine import keep_freed_memory

def held():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def work(sizes, done, leave):
    blocks = [np.ones(2**17) for _ in range(200)]
    del blocks
    sizes.append(held())
    done.set()
    leave.wait()

def grow():
    keep_freed_memory()
    sizes, leave = [], threading.Event()
    for _ in range(4):
        done = threading.Event()
        threading.Thread(target=work, args=(sizes, done, leave)).start()
        done.wait()
    leave.set()
    return sizes
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize("cluster", [False, True])
def test_what_one_thread_has_freed_the_next_one_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: bool
) -> None:
    """Four threads take 200 MiB each, one after the other, and wait, as trials of a process do: it holds them once."""
    (tmp_path / "growing.py").write_text(GROWTH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    @ray.remote(num_cpus=1)
    def sizes() -> list[int]:
        grown: list[int] = importlib.import_module("growing").grow()
        return grown

    with ExitStack() as stack:
        if cluster:  # whose machines do not have this process's environment
            monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
            (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
            there = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
            stack.callback(there.shutdown)
            session = stack.enter_context(RaySession(there.address))
        else:
            session = stack.enter_context(RaySession())
            session.start_in_background(tmp_path / "ray.log", preload=True)
        session.connect(tmp_path / "ray.log")
        first, *later = ray.get(sizes.remote())
    assert max(later) < 1.1 * first


BEGIN = """
import time
import sweeps.engine.session
sweeps.engine.session._LONGEST_FOLDER = 1000
print(sweeps.engine.session._make_folder(), flush=True)
time.sleep(600)
"""


def test_the_folder_of_a_process_that_was_killed_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of processes that live stay, and those of which nobody knows whose they are."""
    monkeypatch.setattr("sweeps.engine.session._LONGEST_FOLDER", 1000)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    older = tmp_path / "carsweep-older"
    older.mkdir()
    with subprocess.Popen([sys.executable, "-c", BEGIN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        first = Path(_make_folder())
        assert {*tmp_path.iterdir()} == {older, theirs, first}
        process.kill()
    assert {Path(_make_folder()), older, first} == {*tmp_path.iterdir()}


def test_a_session_uses_the_ray_that_it_started_ahead(tmp_path: Path) -> None:
    """Its processes have loaded what trials need and no compiler, trials get them; no message gets to the terminal."""
    with RaySession() as session:
        session.start_in_background(tmp_path / "ray.log", preload=True, processes=1)
        assert session.connect(tmp_path / "ray.log")
        assert [type(handler) for handler in logging.getLogger("ray").handlers] == [logging.FileHandler]
        process = Process.remote()
        loaded = ray.get(process.loaded.remote())
        assert {"sweeps.engine.worker", "carcls.families.retrieval", "torch"} <= loaded
        assert not {"torch._dynamo", "timm", "mlflow", "sklearn"} & loaded
        enabled, frozen = ray.get(process.collects.remote())
        assert enabled
        assert frozen > 100_000
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_the_sweeps_of_a_job_share_the_ray_that_the_first_started_ahead(tmp_path: Path) -> None:
    """It outlives the first one; a session that finds a Ray uses it and leaves it alone."""
    with RaySession() as session:
        for user in (session, session, RaySession()):
            user.start_in_background(tmp_path / "ray.log", preload=False)
            user.connect(tmp_path / "ray.log")
            assert "sys" in ray.get(Process.remote().loaded.remote())
            time.sleep(0.5)
        with user:
            pass
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_a_ray_that_nobody_needed_is_ended(tmp_path: Path) -> None:
    """A mistake is found in the images: no trial comes."""
    with RaySession() as session:
        session.start_in_background(tmp_path / "ray.log", preload=False)
    assert not ray.is_initialized()


def test_no_thread_may_free_a_handle_of_ray_while_it_ends(tmp_path: Path) -> None:
    """Ray's core would end the process without a word: a handle in a knot is freed before, and the collector rests."""
    code = f"""
import gc, threading
from pathlib import Path
import ray
from sweeps.engine.resources import Machine
from sweeps.engine.session import RaySession, _make_folder

freed = []

class Knot:
    def __init__(self, handle):
        self.me, self.handle = self, handle

    def __del__(self):
        freed.append((threading.current_thread().name, ray.is_initialized()))

shutdown = ray.shutdown
def watched_shutdown(**options):
    print("collects", gc.isenabled(), "freed", freed)
    shutdown(**options)
ray.shutdown = watched_shutdown
with RaySession(machine=Machine(1)) as session:
    session.connect(Path({str(tmp_path / "ray.log")!r}))
    gc.set_threshold(10_000_000)
    Knot(ray.put(1))
print("collects", gc.isenabled())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "collects False freed [('MainThread', True)]\ncollects True\n"
