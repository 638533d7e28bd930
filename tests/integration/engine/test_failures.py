"""Failing trials in real Ray processes: what is tried again, with what, and when the sweep gives up."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from filelock import FileLock
from helpers import Diary, importable, light_work, log_of, small_disk
from ray.cluster_utils import Cluster

from carcls.stages import StageStore
from sweeps.engine.engine import EngineResult, run_trials
from sweeps.engine.resources import Machine
from sweeps.engine.session import RaySession
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice
from sweeps.spec.spec import SweepSpec

TOTAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
# Of an epoch: trials shorter than the start of a process would all run in the first one.
LONG = 4.0

RUNNER = """
import json, os, signal, time
from pathlib import Path
import ray
import carcls.stages
from carcls.errors import BadData, NoDevice
from carcls.outcome import Measurement, Outcome

def load(path):
    return json.loads(Path(path).read_text())

def note(data, **what):
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    line = json.dumps({"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(), "gpu": gpu, **what})
    with open(data["log"], "a") as file:
        file.write(line + "\\n")

def run(config, data, stages, report):
    key, folder = f"{config.dropout:.1f}", Path(data["log"]).parent
    spoil = data["spoil"].get(key, "")
    cpus = int(os.environ["OMP_NUM_THREADS"])
    checkpoint = folder / f"epochs-{key}"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    note(data, key=key, cpus=cpus, micro_batch=config.micro_batch, processes=config.processes, done=done)
    if spoil == "gluttonous" or spoil == "greedy" and not (cpus >= 2 and (config.micro_batch or 32) <= 8):
        raise MemoryError("too many pictures")
    if spoil == "bug" and not (folder / "mended").exists():
        raise ZeroDivisionError(key)
    if spoil == "bad":
        raise BadData(f"/cars/{key}.jpg is cut off.")
    if spoil == "gone":
        open(folder / "gone.npy")
    if spoil == "torch":
        from carcls.training.images import pick_device
        pick_device()
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    if data.get("unseen_gpu") == gpu:
        raise NoDevice("no GPU is seen")
    if data.get("bad_gpu", "none") == gpu or data.get("bad_node") == ray.get_runtime_context().get_node_id():
        os._exit(1)
    for epoch in range(1, config.epochs + 1):
        if epoch > done:
            time.sleep(data.get("sleep", 0.0))
            if spoil == "big":
                stages.get_or_make("big", {"key": key}, lambda work: (work / "x").write_bytes(bytes(8 * 2**20)))
            if spoil == "hang" and epoch == 2:
                time.sleep(3600)
            if spoil == "stopped" and epoch == 2 and not (folder / "stopped").exists():
                (folder / "stopped").touch()
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(3600)
            if spoil == "waiting" and epoch == 2:
                carcls.stages.WAIT_SECONDS = 0.5
                stages.get_or_make("slow", {}, lambda work: None)
            if spoil == "hungry" and epoch == 2 and config.micro_batch is None:
                taken = []
                while used_memory() < data["enough"] and len(taken) < 60:
                    taken.append(bytearray(b"x") * 50_000_000)
                time.sleep(30)
            if spoil == "term" and epoch == 2 and len(list(folder.glob("term-*"))) < 4:
                (folder / f"term-{time.time_ns()}").touch()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            checkpoint.write_text(str(epoch))
        report(Measurement(epoch, {"val_accuracy": (1 - config.dropout) * epoch / config.epochs}))
    return Outcome({"val_accuracy": 1 - config.dropout}, config.epochs, 0.0, False, "m", "p")
"""


def used_memory() -> int:
    """Bytes that the machine cannot give any more; a part of the runner too."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * (int(found["MemTotal"].split()[0]) - int(found["MemAvailable"].split()[0]))


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that lets Ray's memory monitor end processes above so many bytes."""

    def set_limit(used: float) -> None:
        monkeypatch.setenv("RAY_memory_usage_threshold", f"{used / TOTAL:.4f}")
        monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")

    return set_limit


@pytest.fixture(scope="module")
def runner_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runner, where trial processes look for modules."""
    code = RUNNER + inspect.getsource(used_memory)
    with importable(tmp_path_factory.mktemp("runner"), "failing_runner", code) as folder:
        yield folder


@contextmanager
def local_ray(folder: Path, *, cpus: int, gpus: int) -> Iterator[None]:
    """Have a Ray that believes to have so much."""
    with RaySession(machine=Machine(cpus, gpus)) as session:
        session.connect(folder / "ray.log")
        yield


@pytest.fixture(scope="class")
def session(runner_folder: Path) -> Iterator[None]:
    """One Ray for the tests that can share it: 4 CPUs in its books."""
    with local_ray(runner_folder, cpus=4, gpus=0):
        yield


def run(
    folder: Path,
    spoil: dict[float, str],
    *,
    said: list[str] | None = None,
    observer: Diary | None = None,
    stages: Path | None = None,
    config: dict[str, Any] | None = None,
    trials: int | None = None,
    edits: list[str] | None = None,
    **data: Any,
) -> EngineResult:
    """Run one trial for each dropout, one at a time on one CPU unless told otherwise; each fails as ``spoil`` says."""
    wrong = {f"{dropout:.1f}": how for dropout, how in spoil.items()}
    changes = {"concurrency": 1, "cpus_per_trial": 1.0, **(config or {})}
    spec = SweepSpec.model_validate(
        {
            "family": "transfer",
            "trials": trials or len(spoil),
            "gpus_per_trial": 0.0,
            "config": {"epochs": 3},
            "search": {"dropout": Choice(tuple(spoil))},
            "early_stopping": EarlyStopping(enabled=False),
            **changes,
        }
    )
    notify = (said if said is not None else []).append
    with light_work(folder, spec, "failing_runner", {"spoil": wrong, **data}, stages) as work:
        return run_trials(work, [observer or Diary()], edits=edits, notify=notify)


@pytest.mark.usefixtures("session")
class TestWithASharedRay:
    """What one Ray can serve test after test."""

    def test_a_trial_out_of_memory_gets_more_and_then_goes_in_parts(self, tmp_path: Path) -> None:
        """The same number runs again with 2 and 4 CPUs, then micro-batches of 16 and 8, which suffice; all is told."""
        said: list[str] = []
        result = run(tmp_path, {0.1: "greedy", 0.2: ""}, said=said, config={"fixed": {"batch_size": 32}})
        assert [record.status for record in result.records] == ["complete", "complete"]
        greedy = next(record for record in result.records if record.settings["dropout"] == 0.1)
        tries = [(line["cpus"], line["micro_batch"]) for line in log_of(tmp_path) if line["key"] == "0.1"]
        assert tries == [(1, None), (2, None), (4, None), (4, 16), (4, 8)]
        assert greedy.config["micro_batch"] == 8
        assert greedy.failure == ""
        prefix = f"trial {greedy.number} ran out of memory; trying again with "
        assert [line.removeprefix(prefix) for line in said] == [
            "2 CPUs, so fewer neighbours",
            "4 CPUs, so fewer neighbours",
            "micro-batches of 16",
            "micro-batches of 8",
        ]

    def test_a_trial_that_no_memory_suffices_fails_with_all_that_was_tried(self, tmp_path: Path) -> None:
        """After the last micro-batch the trial is failed; its reason tells the whole way. Others run on."""
        result = run(tmp_path, {0.1: "gluttonous", 0.2: ""}, config={"fixed": {"batch_size": 8}, "cpus_per_trial": 4.0})
        ends = {record.settings["dropout"]: record for record in result.records}
        assert (ends[0.1].status, ends[0.1].failure) == ("failed", "out_of_memory")
        assert ends[0.1].reason.endswith(
            "too many pictures Tried before it failed: micro-batches of 4; micro-batches of 2; micro-batches of 1."
        )
        assert ends[0.2].status == "complete"

    def test_three_equal_bugs_stop_the_sweep_which_goes_on_once_they_are_mended(self, tmp_path: Path) -> None:
        """The reason names the error and its line, tracebacks are kept, the budget is not used up."""
        spoil = {n / 10: "bug" for n in range(1, 7)}
        result = run(tmp_path, spoil)
        failed = [record for record in result.records if record.status == "failed"]
        assert (len(failed), result.interrupted) == (3, True)
        assert {record.failure for record in failed} == {"bug"}
        assert "3 trials in a row failed with the same error, ZeroDivisionError in failing_runner.py:" in result.stopped
        for record in failed:
            file = tmp_path / "sweep" / "trials" / f"trial-{record.number:04d}" / "error.txt"
            assert str(file) in record.reason
            assert "ZeroDivisionError: 0." in file.read_text()
        (tmp_path / "mended").touch()
        result = run(tmp_path, spoil)
        assert [record.status for record in result.records].count("complete") == 3
        assert (len(result.records), result.stopped, result.interrupted) == (6, "", False)

    @pytest.mark.parametrize(("spoil", "named"), [("bad", ".jpg is cut off"), ("gone", "gone.npy' cannot be read")])
    def test_bad_data_names_the_file_and_three_in_a_row_stop_the_sweep(
        self, tmp_path: Path, spoil: str, named: str
    ) -> None:
        """A damaged or vanished file fails the trial by name; a good trial in between starts the count anew."""
        result = run(tmp_path, {0.1: spoil, 0.2: spoil, 0.3: spoil, 0.4: spoil})
        failed = [record for record in result.records if record.status == "failed"]
        assert len(failed) == 3
        assert all(record.failure == "bad_data" and named in record.reason for record in failed)
        assert "could not read their data" in result.stopped

    def test_a_killed_process_is_replaced_and_goes_on_from_its_checkpoint(self, tmp_path: Path) -> None:
        """SIGKILL by pid in the middle of five different epochs costs no finished epoch and fails nothing."""
        killed: list[int] = []

        def kill(_: int, epoch: int) -> None:
            if epoch <= 5:
                pid = log_of(tmp_path)[-1]["pid"]
                killed.append(pid)
                threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()

        # Shorter epochs would be told several at a time.
        result = run(tmp_path, {0.1: ""}, observer=Diary(kill), sleep=0.6, config={"config": {"epochs": 7}})
        (record,) = result.records
        assert (record.status, record.epochs) == ("complete", 7)
        log = log_of(tmp_path)
        assert len(set(killed)) == 5
        assert [line["done"] for line in log] == sorted(line["done"] for line in log)
        assert log[-1]["done"] == 5

    def test_a_process_taken_away_does_not_count(self, tmp_path: Path) -> None:
        """Four times SIGTERM in the same epoch is no fault of the trial's."""
        result = run(tmp_path, {0.1: "term"})
        assert [(record.status, record.epochs) for record in result.records] == [("complete", 3)]
        assert len(log_of(tmp_path)) == 5

    def test_a_trial_that_hangs_is_ended_and_goes_on_from_its_last_epoch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that sleeps for ever and one whose process is stopped, not one that waits for a stage; all is told."""
        monkeypatch.setenv("CARSWEEP_HANG_SECONDS", "3")
        making = FileLock(f"{StageStore(tmp_path / 'stages').folder('slow', {})}.lock", thread_local=False)
        Path(making.lock_file).parent.mkdir(parents=True)
        making.acquire()
        made = threading.Timer(8.0, making.release)

        def begin_making(*_: int) -> None:
            if made.ident is None and any(line["key"] == "0.3" for line in log_of(tmp_path)):
                made.start()

        spoil, said = {0.1: "hang", 0.2: "stopped", 0.3: "waiting", 0.4: ""}, list[str]()
        result = run(tmp_path, spoil, said=said, observer=Diary(begin_making), sleep=0.1, config={"concurrency": 4})
        ends = {spoil[record.settings["dropout"]]: record for record in result.records}
        assert [ends[how].status for how in ("stopped", "waiting", "")] == ["complete"] * 3
        assert (ends["hang"].status, ends["hang"].failure, ends["hang"].epochs) == ("failed", "lost", 1)
        silent = r"it reported nothing for \d+ s, where an epoch takes at most \d+ s\."
        assert re.fullmatch(f"lost 3 times without finishing another epoch: {silent}", ends["hang"].reason)
        log = log_of(tmp_path)
        assert [line["done"] for line in log if line["key"] == "0.1"] == [0, 1, 1, 1]
        assert [line["done"] for line in log if line["key"] == "0.2"] == [0, 1]
        assert len([line for line in log if line["key"] in ("0.3", "0.4")]) == 2
        for how, times in (("hang", 4), ("stopped", 1)):
            told = f"trial {ends[how].number} hangs and is ended: {silent} It goes on from its last epoch."
            assert sum(re.fullmatch(told, line) is not None for line in said) == times
        assert len(said) == 5
        wait_for(lambda: not any(is_stopped(line["pid"]) for line in log))

    def test_a_full_disk_fails_trials_and_three_in_a_row_stop_the_sweep(self, tmp_path: Path) -> None:
        """On a real disk of 4 MiB the reason names the folder and the remedy; with room a resume runs them all."""
        spoil, said = dict.fromkeys((0.1, 0.2, 0.3, 0.4), "big"), list[str]()
        with small_disk(tmp_path / "small", "4m") as small:
            result = run(tmp_path, spoil, stages=small)
            failed = [record for record in result.records if record.status == "failed"]
            assert [record.failure for record in failed] == ["full_disk"] * 3
            assert all(str(small) in record.reason and "carsweep gc" in record.reason for record in failed)
            assert "found no room" in result.stopped
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
            result = run(tmp_path, spoil, stages=small)
            assert ([record.status for record in result.records].count("complete"), result.stopped) == (1, "")
            result = run(tmp_path, spoil, stages=small, edits=[], said=said)
        assert [record.status for record in result.records] == ["complete"] * 4
        numbers = ", ".join(str(record.number) for record in failed)
        assert said == [f"Tried again, since they failed through no fault of their own: trials {numbers}."]


@pytest.mark.usefixtures("runner_folder")
def test_a_process_that_the_memory_monitor_ends_costs_nobody_else_anything(
    tmp_path: Path, monitor: Callable[[float], None]
) -> None:
    """Ray ends it, perhaps with a smaller one: that one goes on as it is, the greedy one with more, then in parts."""
    limit, said = used_memory() + 2.2e9, list[str]()
    if limit > 0.95 * TOTAL:
        pytest.skip("the machine has no memory to spare")
    monitor(limit)
    with local_ray(tmp_path, cpus=2, gpus=0):
        config = {"concurrency": 2, "fixed": {"batch_size": 64}}
        spoil = {0.1: "hungry", 0.2: "", 0.3: ""}
        result = run(tmp_path, spoil, said=said, config=config, sleep=0.8, enough=limit + 1e8)
    assert [record.status for record in result.records] == ["complete"] * 3
    tries = {
        key: [(line["cpus"], line["micro_batch"]) for line in log_of(tmp_path) if line["key"] == key]
        for key in ("0.1", "0.2", "0.3")
    }
    assert list(dict.fromkeys(tries["0.1"])) == [(1, None), (2, None), (2, 32)]
    assert set(tries["0.2"] + tries["0.3"]) == {(1, None)}
    greedy = next(record.number for record in result.records if record.settings["dropout"] == 0.1)
    prefix = f"trial {greedy} ran out of memory; trying again with "
    assert [line.removeprefix(prefix) for line in said] == ["2 CPUs, so fewer neighbours", "micro-batches of 32"]


@pytest.mark.slow
@pytest.mark.usefixtures("runner_folder")
def test_a_machine_without_memory_to_begin_with_makes_no_trial_smaller(
    tmp_path: Path, monitor: Callable[[float], None]
) -> None:
    """Others hold the memory, so a process is ended as it starts: the trial is lost, which a resume tries again."""
    monitor(used_memory() / 2)
    said: list[str] = []
    with local_ray(tmp_path, cpus=1, gpus=0):
        result = run(tmp_path, {0.1: ""}, said=said)
    assert [(record.status, record.failure) for record in result.records] == [("failed", "lost")]
    assert result.records[0].reason.endswith("the machine had no memory left when its process started.")
    assert said == []


@pytest.mark.slow
@pytest.mark.usefixtures("session")
def test_trials_shorter_than_the_start_of_a_process_run_in_all_of_them(tmp_path: Path) -> None:
    """The second process is let start, though the first one is free again before it has."""
    result = run(tmp_path, {n / 20: "" for n in range(1, 19)}, config={"concurrency": 2}, sleep=0.5)
    assert [record.status for record in result.records] == ["complete"] * 18
    pids = [line["pid"] for line in log_of(tmp_path)]
    assert len(set(pids)) == 2
    assert min(pids.count(pid) for pid in pids) >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("runner_folder")
def test_a_machine_on_which_everything_dies_is_not_used_any_more(tmp_path: Path) -> None:
    """Of two nodes one kills every trial: it is put out of use, told once, and every trial ends complete."""
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        bad = cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False)
        said: list[str] = []
        dropouts = {n / 10: "" for n in range(1, 9)}
        both = {"concurrency": 2}
        result = run(tmp_path, dropouts, said=said, bad_node=bad.node_id, config=both, sleep=LONG)
        assert [record.status for record in result.records] == ["complete"] * 8
        assert [line for line in said if "does not use it any more" in line and bad.node_id[:8] in line] == said
        assert len(said) == 1
        on_bad = [line for line in log_of(tmp_path) if line["node"] == bad.node_id]
        assert 3 <= len(on_bad) <= 6
        wait_for(lambda: ray.available_resources().get("CPU") == 2)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("runner_folder")
@pytest.mark.parametrize(("share", "concurrency"), [(1.0, 2), (0.5, 3)])
@pytest.mark.parametrize(
    ("sick", "least", "why"), [("bad_gpu", 3, "failed 3 times in a row"), ("unseen_gpu", 1, "cannot be used")]
)
def test_a_sick_gpu_is_not_used_any_more(
    tmp_path: Path, share: float, concurrency: int, sick: str, least: int, why: str
) -> None:
    """Of two GPUs one kills every trial, or is seen by none: it alone is put out of use, and every trial completes."""
    with local_ray(tmp_path, cpus=4, gpus=2):
        said: list[str] = []
        config = {"concurrency": concurrency, "gpus_per_trial": share}
        result = run(tmp_path, {n / 10: "" for n in range(1, 9)}, said=said, config=config, sleep=LONG, **{sick: "0"})
        assert [record.status for record in result.records] == ["complete"] * 8
        assert said[0].startswith("GPU 0 of ")
        assert said[0].endswith(f" {why}, so this sweep does not use it any more")
        assert all(line.endswith("goes on elsewhere: no GPU is seen") for line in said[1:])
        assert least <= len([line for line in log_of(tmp_path) if line["gpu"] == "0"]) <= 8
        wait_for(lambda: ray.available_resources().get("GPU") == 2)


@pytest.mark.slow
@pytest.mark.usefixtures("runner_folder")
def test_what_is_held_of_a_sick_gpu_leaves_cores_for_the_other_one(tmp_path: Path) -> None:
    """A trial that gets all cores of the machine dies on the sick GPU, and goes on on the other one."""
    with local_ray(tmp_path, cpus=4, gpus=2):
        config = {"cpus_per_trial": 4.0, "gpus_per_trial": 1.0}
        result = run(tmp_path, {0.1: "", 0.2: ""}, config=config, bad_gpu="0")
        wait_for(lambda: ray.available_resources().get("GPU") == 2)
    assert [record.status for record in result.records] == ["complete"] * 2
    assert {line["cpus"] for line in log_of(tmp_path)} == {4}


@pytest.mark.usefixtures("runner_folder")
def test_a_trial_on_two_gpus_has_two_processes_and_its_record_says_so(tmp_path: Path) -> None:
    """It sees both, their time is booked, and out of memory it takes half of a process's part; with one it has one."""
    folders = tmp_path / "two", tmp_path / "one"
    for folder in folders:
        folder.mkdir()
    settings = {"cpus_per_trial": 2.0, "config": {"epochs": 2, "batch_size": 32, "unfreezing": "full"}}
    with local_ray(tmp_path, cpus=4, gpus=3):
        two = run(folders[0], {0.1: "", 0.2: "greedy"}, config={**settings, "gpus_per_trial": 2.0})
        one = run(folders[1], {0.1: ""}, config={**settings, "gpus_per_trial": 1.0})
    tries = {(line["key"], line["processes"], line["gpu"], line["micro_batch"]) for line in log_of(folders[0])}
    assert {(key, processes, len(gpus.split(",")), micro) for key, processes, gpus, micro in tries} == {
        ("0.1", 2, 2, None), ("0.2", 2, 2, None), ("0.2", 2, 2, 8),
    }  # fmt: skip
    assert [record.status for record in (*two.records, *one.records)] == ["complete"] * 3
    assert [record.trial_config.processes for record in (*two.records, *one.records)] == [2, 2, 1]
    for record in two.records:
        assert record.spent.gpu_seconds == pytest.approx(2 * record.spent.seconds, abs=0.01)


@pytest.mark.usefixtures("runner_folder")
def test_trials_never_take_the_cpu_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """Three fail as ``device`` by what PyTorch says, the sweep stops with the reason, and no GPU hour is booked."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with local_ray(tmp_path, cpus=1, gpus=1):
        result = run(tmp_path, {n / 10: "torch" for n in range(1, 5)}, config={"gpus_per_trial": 1.0})
    failed = [record for record in result.records if record.status == "failed"]
    assert [record.failure for record in failed] == ["device"] * 3
    assert all("CUDA_VISIBLE_DEVICES is '0'" in record.reason for record in failed)
    assert "3 trials in a row could not use the GPU that they were given: " in result.stopped
    assert {record.spent.gpu_seconds for record in result.records} == {0.0}
    assert min(record.spent.cpu_seconds for record in failed) > 0


def is_stopped(pid: int) -> bool:
    """Tell whether a process stands still, having got SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    except OSError:
        return False


def wait_for(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until ``done``; fail after a while."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
