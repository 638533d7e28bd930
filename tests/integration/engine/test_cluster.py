"""A real Ray head on this machine: sweeps join it, and are handed to it as jobs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from sweeps.engine.cluster import mistake_of

CARSWEEP = str(Path(sys.executable).with_name("carsweep"))
RAY = str(Path(sys.executable).with_name("ray"))
SMALL = ["--trials", "2", "--concurrency", "1", "--set", "backbone=efficientnet_lite0", "image_size=32", "epochs=1"]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def free_port() -> int:
    """Return a port that nothing listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run carsweep to its end."""
    return subprocess.run(
        [CARSWEEP, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )


def mistakes_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what stderr tells besides what is waited for."""
    return [line for line in done.stderr.splitlines() if not line.endswith("…")]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Start a head with a dashboard, in the foreground, and stop it by its process id; yields both addresses."""
    # Ray's sockets lie in this folder, and their paths may not be long.
    folder = tmp_path_factory.mktemp("r")
    port, dashboard, agent = free_port(), free_port(), free_port()
    words = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    words += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={free_port()}"]
    words += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={folder}"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
        try:
            for waited in (port, dashboard):
                wait_for(waited, process)
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens at the port."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head died"
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError(f"nothing listens at {port}")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 8 training and 3 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 8, 3, size=(40, 40))


@pytest.mark.slow
def test_a_sweep_runs_on_a_cluster_that_is_there(head: tuple[str, str], images: Path, tmp_path: Path) -> None:
    """With --address the trials run on the head, which goes on when the sweep is over."""
    done = run("run", "transfer", "--address", head[0], "--data", str(images), "--out", str(tmp_path), "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [trial["status"] for trial in result["trials"]] == ["complete", "complete"]
    assert result["registered"]["name"] == "carsweep-transfer"
    host, port = head[0].split(":")
    with closing(socket.create_connection((host, int(port)), 5)):
        pass


@pytest.mark.slow
def test_a_job_runs_a_sweep_and_passes_its_result_on(head: tuple[str, str], images: Path, tmp_path: Path) -> None:
    """A submitted sweep leaves what a sweep leaves, and its output arrives; a job that fails says so."""
    words = ["submit", "transfer", "--address", head[1], "--out", str(tmp_path), "--name", "job"]
    done = run(*words, "--data", str(images), *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Registered as carsweep-transfer" in done.stdout
    assert json.loads((tmp_path / "job" / "result.json").read_text())["registered"]
    failed = run(*words, "--data", str(images / "nowhere"))
    assert failed.returncode == 2
    assert "failed" in failed.stderr


@pytest.mark.slow
def test_each_machine_tells_whether_it_can_run_trials(head: tuple[str, str], tmp_path: Path) -> None:
    """A machine tells its cores and whether it sees a file; one that does not see it is refused with its address."""
    (tmp_path / "seen").touch()
    for name, seen in (("seen", True), ("unseen", False)):
        command = [sys.executable, "-m", "sweeps.engine.cluster", head[0], str(tmp_path / name)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=True)
        (machine,) = json.loads(done.stdout.splitlines()[-1])
        assert (machine["cores"], machine["sees"], machine["carsweep"]) == (2, seen, version("carsweep"))
        told = mistake_of(machine, tmp_path)
        assert not told if seen else told.startswith("--out must be a folder that every machine")
    assert mistake_of({**machine, "carsweep": None}, tmp_path).startswith("every machine of the cluster must have")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus-per-trial", "3"], "cpus_per_trial must be at most the cores here (2), got 3"),
        (["--gpus-per-trial", "1"], "gpus_per_trial must be at most the number of GPUs here (there is none)"),
    ],
)
def test_more_than_the_cluster_has_is_refused(
    words: list[str], said: str, head: tuple[str, str], images: Path, tmp_path: Path
) -> None:
    """Exit code 2 and one line, before any image is read."""
    small = ["--data", str(images), "--set", "backbone=efficientnet_lite0"]
    done = run("run", "transfer", "--address", head[0], "--out", str(tmp_path), *words, *small)
    assert (done.returncode, len(mistakes_of(done))) == (2, 1)
    assert said in done.stderr
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_what_listens_but_is_no_ray_is_told_within_half_a_minute(images: Path, tmp_path: Path) -> None:
    """Ray itself would try for minutes and print a page of warnings."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("run", "transfer", "--address", address, "--data", str(images), "--out", str(tmp_path), timeout=90)
    assert (done.returncode, len(mistakes_of(done))) == (2, 1)
    assert "does not speak as the head of a Ray cluster does" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "transfer", "--address", "http://127.0.0.1:{port}"], "a Ray dashboard that answers"),
        (["submit", "transfer", "--address", "127.0.0.1:{port}"], "must be the dashboard's"),
        (["submit", "transfer", "--address", "http://127.0.0.1:{port}", "--trails", "3"], "No such option '--trails'"),
        (["submit", "transfer", "--address", "http://127.0.0.1:{port}", "--set", "dropout=2"], "dropout: must be"),
        (["submit", "all", "--address", "http://127.0.0.1:{port}", "--trials", "3"], "--trials: must be at least 9"),
        (["submit", "transfer", "--address", "http://127.0.0.1:{port}", "--json"], "--json is of carsweep run"),
        (["submit", "cars", "--address", "http://127.0.0.1:{port}"], "'cars' is not one of"),
        (["run", "transfer", "--address", "127.0.0.1:{port}"], "a Ray head that answers"),
        (["run", "transfer", "--address", "ray://127.0.0.1:{port}"], "must be HOST:PORT"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_at_once(words: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2 and one line, long before Ray would give up."""
    port = str(free_port())
    done = run(*(word.format(port=port) for word in words), "--out", str(tmp_path), timeout=90)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
