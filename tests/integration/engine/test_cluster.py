"""A real Ray head on this machine: sweeps join it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers import free_port

from sweeps.engine.cluster import mistake_of

BIN = Path(sys.executable).parent
SMALL = ["--trials", "2", "--concurrency", "1", "--set", "backbone=efficientnet_lite0", "image_size=32", "epochs=1"]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def run(*words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run ``carsweep run transfer`` to its end."""
    command = [str(word) for word in (BIN / "carsweep", "run", "transfer", *words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False)


def mistakes_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what stderr tells besides what is waited for."""
    return [line for line in done.stderr.splitlines() if not line.endswith("…")]


def answers(port: int) -> bool:
    """Tell whether something listens at a port of this machine."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a head in the foreground, and stop it by its process id; yields its port."""
    # Ray's sockets lie in this folder, and their paths may not be long.
    folder, port, deadline = tmp_path_factory.mktemp("r"), free_port(), time.monotonic() + 90
    words = [BIN / "ray", "start", "--head", "--block", f"--port={port}", f"--metrics-export-port={free_port()}"]
    words += [f"--dashboard-agent-listen-port={free_port()}", "--include-dashboard=false"]
    words += ["--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={folder}"]
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-aaaa-1)'\n")
    (folder / "nvidia-smi").chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{folder}:{ENVIRONMENT['PATH']}"}
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while not answers(port):
                assert process.poll() is None, "the head died"
                assert time.monotonic() < deadline
                time.sleep(0.3)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 8 training and 3 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 8, 3, size=(40, 40))


@pytest.mark.slow
def test_a_sweep_runs_on_a_cluster_that_is_there(head: int, images: Path, tmp_path: Path) -> None:
    """With --address the trials run on the head, which goes on when the sweep is over."""
    done = run("--address", f"127.0.0.1:{head}", "--data", images, "--out", tmp_path, "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [trial["status"] for trial in result["trials"]] == ["complete", "complete"]
    assert result["registered"]["name"] == "carsweep-transfer"
    assert answers(head)


@pytest.mark.slow
def test_each_machine_tells_whether_it_can_run_trials(head: int, tmp_path: Path) -> None:
    """A machine tells its cores and its kind of GPU; one that does not see the folder is refused with its address."""
    (tmp_path / "seen").touch()
    for name, mistake in (("seen", ""), ("unseen", "--out must be a folder that every machine")):
        command = [sys.executable, "-m", "sweeps.engine.cluster", f"127.0.0.1:{head}", str(tmp_path / name)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=True)
        (machine,) = json.loads(done.stdout.splitlines()[-1])
        assert (machine["cores"], machine["gpu_kind"]) == (2, "NVIDIA L4")
        assert machine["mistake"][: len(mistake) or None] == mistake


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"carsweep": version("carsweep"), "sees": True}, ""),
        ({"carsweep": version("carsweep"), "sees": False}, "--out must be a folder that every machine .* '/runs'"),
        ({"carsweep": "0.0.1", "sees": True}, "every machine .* must have carsweep .*, got carsweep 0.0.1 on 10.0.0.7"),
        ({"carsweep": "", "sees": True}, "got none on 10.0.0.7. Install it there."),
        ({"error": "no worker started"}, "10.0.0.7 does not: no worker started."),
    ],
)
def test_a_machine_that_cannot_run_trials_is_refused_by_its_address(told: dict[str, Any], said: str) -> None:
    """One without this carsweep, that does not see the folder, or does not answer."""
    mistake = mistake_of("10.0.0.7", told, Path("/runs"))
    assert re.search(said, mistake)
    assert bool(said) == bool(mistake)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus-per-trial", "3"], "cpus_per_trial must be at most the cores here (2), got 3"),
        (["--gpus-per-trial", "1"], "gpus_per_trial must be at most the number of GPUs here (there is none)"),
    ],
)
def test_more_than_the_cluster_has_is_refused(
    words: list[str], said: str, head: int, images: Path, tmp_path: Path
) -> None:
    """Exit code 2 and one line, before any image is read."""
    small = ["--data", images, "--set", "backbone=efficientnet_lite0"]
    done = run("--address", f"127.0.0.1:{head}", "--out", tmp_path, *words, *small)
    assert (done.returncode, len(mistakes_of(done))) == (2, 1)
    assert said in done.stderr
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_what_listens_but_is_no_ray_is_told_within_half_a_minute(images: Path, tmp_path: Path) -> None:
    """Ray itself would try for minutes and print a page of warnings."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("--address", address, "--data", images, "--out", tmp_path, timeout=90)
    assert (done.returncode, len(mistakes_of(done))) == (2, 1)
    assert "does not speak as the head of a Ray cluster does" in done.stderr


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:{}", "a Ray head that answers"), ("ray://127.0.0.1:{}", "must be HOST:PORT")]
)
def test_an_address_that_leads_nowhere_is_told_at_once(address: str, said: str, tmp_path: Path) -> None:
    """Exit code 2 and one line, long before Ray would give up."""
    done = run("--address", address.format(free_port()), "--out", tmp_path, timeout=90)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
