"""How a sweep ends: signals at any moment of it, Ray's servers lost, folders that fill or vanish. Real commands."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sweeps.run.status import sweep_status

SETTINGS = ["image_size=32", "depth=2", "width=4", "stem=none", "experiments=[]", "batch_size=16"]
SENTENCE = "everything so far is kept"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Return class folders of coloured noise."""
    return draw_tints(tmp_path_factory.mktemp("pictures"), 16, 4, size=(64, 96), tints=[(0, 0, 0)] * 3, noise=256)


class Command:
    """A running command whose words on stderr are read as they come."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.folder, self.mark = folder, f"ends-{time.monotonic_ns()}"
        self.log = folder / f"{self.mark}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.cli", *words],
                cwd=folder,
                env={**os.environ, "CARSWEEP_ENDS": self.mark, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, words: str, seconds: float = 240) -> None:
        """Wait until it has said something."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def wait(self, seconds: float = 240) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(timeout=seconds)

    def processes(self, patience: float = 10) -> list[str]:
        """Return the titles of its processes that are left, once they had time to end."""
        end = time.monotonic() + patience
        while (found := [title for _, title in self._now()]) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def servers(self) -> list[int]:
        """Return Ray's servers."""
        return [pid for pid, title in self._now() if "gcs_server" in title or "raylet/raylet" in title]

    def _now(self) -> list[tuple[int, str]]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"CARSWEEP_ENDS={self.mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                    title = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(place.name), title))
            except OSError:
                continue
        return found


def begin(folder: Path, pictures: Path, *words: str, epochs: int = 1, **environment: str) -> Command:
    """Start the sweep ``mine``."""
    settings = [*SETTINGS, f"epochs={epochs}", "early_stopping.enabled=false"]
    data = ["--data", str(pictures), "--trials", "2", "--name", "mine"]
    return Command(folder, "run", "scratch", *data, *words, "--set", *settings, **environment)


def open_runs(folder: Path) -> int:
    """Count the runs that MLflow believes to go on."""
    database = folder / "runs" / "mlflow.db"
    if not database.is_file():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0])


def result_of(folder: Path) -> dict[str, object]:
    """Return the sweep's result."""
    result: dict[str, object] = json.loads((folder / "runs" / "mine" / "result.json").read_text())
    return result


def state_of(folder: Path) -> str:
    """Return what ``carsweep status`` says of the sweep."""
    return sweep_status(folder / "runs", "mine").state


def goes_on(folder: Path) -> None:
    """Check that the sweep goes on to its end, and leaves nothing running."""
    resumed = Command(folder, "resume", "mine")
    assert resumed.wait() == 0, resumed.said
    result = result_of(folder)
    assert result["registered"]
    assert len([t for t in result["trials"] if t["status"] == "complete"]) == 2  # type: ignore[attr-defined]
    assert open_runs(folder) == 0
    assert resumed.processes() == []


MOMENTS = {
    "reading": "reading images",
    "starting": "3 classes;",
    "training": "epoch 2/",
    "evaluating": "evaluating trial",
    "registering": "registering",
}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("reading", signal.SIGTERM),
        ("reading", signal.SIGKILL),
        ("training", signal.SIGHUP),
        ("evaluating", signal.SIGTERM),
        *(
            pytest.param(moment, number, marks=pytest.mark.slow)
            for moment in MOMENTS
            for number in (signal.SIGTERM, signal.SIGINT)
            if (moment, number) not in (("reading", signal.SIGTERM), ("evaluating", signal.SIGTERM))
        ),
    ],
)
def test_a_signal_to_the_process_group_ends_a_sweep_that_goes_on_later(
    pictures: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    """Whatever it was doing: no process, no open run; and `resume` knows it, after kill -9 too.

    Of any other signal it says one sentence, with exit code 130.
    """
    command, is_kill = begin(tmp_path, pictures, epochs=400 if moment == "training" else 2), number == signal.SIGKILL
    command.wait_for(MOMENTS[moment])
    os.killpg(command.process.pid, number)
    if not is_kill:
        os.killpg(command.process.pid, number)  # as `timeout` does: to the process, and then to its group
    assert command.wait(60) == (-number if is_kill else 130), command.said
    assert command.said.count(SENTENCE) == (not is_kill)
    assert "Traceback" not in command.said
    assert command.processes() == []
    assert open_runs(tmp_path) == 0
    assert state_of(tmp_path) == "unfinished"
    if moment != "training":  # what is left of 400 epochs would take too long
        goes_on(tmp_path)
        assert state_of(tmp_path) == "finished"


@pytest.mark.parametrize(
    ("number", "count", "code", "said"),
    [
        (signal.SIGTERM, 3, 130, SENTENCE),  # a control group is signalled: both servers and the command
        (signal.SIGKILL, 1, 1, "Ray's servers on this machine have ended"),  # as the kernel ends what takes memory
    ],
)
def test_a_sweep_whose_ray_servers_end_says_so_at_once(
    pictures: Path, tmp_path: Path, number: signal.Signals, count: int, code: int, said: str
) -> None:
    """Ray would have its driver wait for a minute, and end without a word; the command tells how it goes on."""
    command = begin(tmp_path, pictures, epochs=400)
    command.wait_for("epoch 2/")
    servers = command.servers()
    assert len(servers) == 2
    for pid in (*servers, command.process.pid)[:count]:
        os.kill(pid, number)
    start = time.monotonic()
    assert command.wait(60) == code, command.said
    assert time.monotonic() - start < (20 if code == 130 else 60)
    assert command.said.count(said) == 1
    assert "carsweep resume mine" in command.said
    assert open_runs(tmp_path) == 0
    assert command.processes() == []


def test_a_ray_that_does_not_start_in_time_is_one_sentence(pictures: Path, tmp_path: Path) -> None:
    """With how the sweep goes on; nothing of it is left running, and Ray's folder is gone."""
    slow = begin(tmp_path, pictures, RAY_gcs_server_port_wait_time_s="0")
    assert slow.wait() == 1
    last = slow.said.splitlines()[-1]
    folder = re.match(r"carsweep: Ray did not start on this machine \(Timed out waiting for file (.*?)/session", last)
    assert folder
    assert last.endswith("Once that is mended: carsweep resume mine")
    assert (slow.processes(), open_runs(tmp_path), Path(folder[1]).exists()) == ([], 0, False)
    goes_on(tmp_path)


def test_ray_gets_a_short_folder_of_its_own_and_leaves_none(pictures: Path, tmp_path: Path) -> None:
    """Batch systems give long folders for temporary files; the path of a socket has 107 characters at most."""
    place = tmp_path / ("t" * 150)
    place.mkdir()
    before = set(Path("/tmp").glob("carsweep-*"))  # noqa: S108
    command = begin(tmp_path, pictures, TMPDIR=str(place))
    assert command.wait() == 0, command.said
    assert not set(Path("/tmp").glob("carsweep-*")) - before  # noqa: S108
    assert not [path.name for path in place.iterdir() if "ray" in path.name or "carsweep" in path.name]


def test_a_folder_that_vanishes_after_the_trials_is_one_line(pictures: Path, tmp_path: Path) -> None:
    """It is named, and there is no traceback."""
    command = begin(tmp_path, pictures)
    command.wait_for("evaluating trial")
    (tmp_path / "runs" / "mine").rename(tmp_path / "gone")
    assert command.wait() == 1, command.said
    assert "Traceback" not in command.said
    assert "internal error" not in command.said
    assert str(tmp_path / "runs" / "mine") in command.said
    assert command.processes() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 24 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", place]).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


@pytest.mark.parametrize("moment", ["evaluating", "registering"])
def test_a_disk_that_fills_after_the_trials_costs_no_trial(pictures: Path, small_disk: Path, moment: str) -> None:
    """One line says so, without a traceback; after making room `resume` registers the winner, in MLflow too."""
    command = begin(small_disk, pictures)
    command.wait_for(MOMENTS[moment])
    filling = fill(small_disk)
    assert command.wait() == 1, command.said
    filling.unlink()
    assert "Traceback" not in command.said
    assert "carsweep resume mine" in command.said
    assert command.processes() == []
    goes_on(small_disk)
