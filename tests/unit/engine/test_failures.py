"""What goes wrong with trials: how it is named, what is tried next, and when a sweep or a machine is given up."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ask, events_of, small_disk, study_spec
from safetensors.torch import save_file

from carcls.config import TrialConfig
from carcls.disk import full_disk_named, replacing, reserve
from carcls.errors import BadData, DiskFull, LostProcess, NoDevice, NonFiniteLoss, OutOfMemory, TrialFailure
from carcls.machine import is_broken_device
from carcls.models.classifier import build_classifier
from carcls.outcome import Measurement
from carcls.stages import StageStore
from carcls.training.checkpoint import TrainingProgress, load_checkpoint, save_checkpoint, save_model
from carcls.training.memory import memory_errors_named
from carcls.training.optim import build_optimizer
from sweeps.engine.halt import Halt
from sweeps.engine.recovery import Recovery, Running
from sweeps.engine.worker import free_gpu_memory
from sweeps.failures import (
    POLICIES,
    Failure,
    Try,
    failure_of,
    failure_of_death,
    has_whole_share,
    next_try,
)
from sweeps.study.study import Study

# What Ray says of every process that was killed, whoever did it.
KILLED = (
    "The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) SIGSEGV."
)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OutOfMemory("out of device memory at batch_size 64"), "out_of_memory", "out of device memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", "Cannot allocate memory"),
        (NoDevice("the trial was given a GPU"), "device", "was given a GPU"),
        (RuntimeError("No CUDA GPUs are available"), "device", "No CUDA GPUs"),
        (RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."), "device", "initialization"),
        (RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802: system not ready"), "device", "802"),
        (NonFiniteLoss("the training loss became nan"), "diverged", "became nan"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/cars/1.jpg"), "bad_data", "'/cars/1.jpg'"),
        (OSError(errno.EIO, "Input/output error", "/cars/2.jpg"), "bad_data", "Input/output error"),
        (BadData("/cars/3.jpg is cut off"), "bad_data", "/cars/3.jpg"),
        (DiskFull("the disk of '/runs' is full"), "full_disk", "'/runs'"),
        (OSError(errno.ENOSPC, "No space left on device"), "full_disk", "No space left"),
        (LostProcess("process 1 of the 2 that train together died"), "lost", "process 1 of the 2"),
        (TrialFailure("pooling must be average"), "settings", "pooling"),
        (KeyError("oh"), "bug", "KeyError: 'oh'"),
        (RuntimeError("size mismatch"), "bug", "RuntimeError: size mismatch"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "bug", "illegal memory access"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "bug", "EXECUTION_FAILED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_exception_has_its_kind_and_its_words(error: Exception, kind: str, said: str) -> None:
    """It is told in one line. A CUDA error leaves a context that no later trial can use; watches let others pass."""
    failure = failure_of(error)
    assert (failure.kind, "\n" in failure.reason) == (kind, False)
    assert said in failure.reason
    assert is_broken_device(error) == ("CUDA error" in str(error) or "cuDNN error" in str(error))
    with pytest.raises(type(error)) as passed, memory_errors_named(TrialConfig()):
        raise error
    assert passed.value is error
    if kind != "full_disk":
        with pytest.raises(type(error)) as passed, full_disk_named(Path("runs")):
            raise error
        assert passed.value is error


def test_a_bug_is_known_again_by_its_type_and_place() -> None:
    """Two errors of one line have one mark, whatever they say; those of other lines and types have others."""

    def failing(error: Exception, line: bool) -> Failure:
        try:
            if line:
                raise error
            raise error
        except Exception as caught:
            return failure_of(caught)

    one, same = failing(ValueError("1"), True), failing(ValueError("2"), True)
    assert one.mark == same.mark
    assert "ValueError in test_failures.py:" in one.mark
    assert len({one.mark, failing(ValueError("1"), False).mark, failing(TypeError("1"), True).mark}) == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "NCCL error in: NCCLUtils.hpp:268, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"
        ),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:1090, please report a bug"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_a_lack_of_memory_is_one_in_any_words(error: Exception) -> None:
    """It is no broken device, and training says at which batch and image size it came."""
    failure = failure_of(error)
    assert (failure.kind, "\n" in failure.reason) == ("out_of_memory", False)
    assert failure.reason.startswith("out of")
    assert not is_broken_device(error)
    with (
        pytest.raises(OutOfMemory, match="at batch_size 48 and image_size 96"),
        memory_errors_named(TrialConfig(batch_size=48, image_size=96)),
    ):
        raise error


# Ray's memory monitor ends the youngest first; one that took less than another goes on as it is.
ENDED_TOGETHER = (
    "2 worker(s) were killed due to the node running low on memory.\nConsidered workers: [\n"
    "Selected to kill: (Actor(aa1b): job ID=01, pid=12614, actual memory used=0.69GB, worker ID=aa90)\n"
    "Selected to kill: (Actor(863f): job ID=01, pid=12615, actual memory used=11.10GB, worker ID=ec07)\n]\n"
    "12615 11.1 python carsweep run --name preempted"
)


@pytest.mark.parametrize(
    ("said", "actor", "kind"),
    [
        (KILLED, "", "lost"),
        ("The process receives a SIGTERM.", "", "preempted"),
        ("Task was killed due to the node running low on memory.", "", "out_of_memory"),
        (ENDED_TOGETHER, "863f", "out_of_memory"),
        (ENDED_TOGETHER, "aa1b", "preempted"),
        (ENDED_TOGETHER, "", "out_of_memory"),
        (ENDED_TOGETHER, "ffff", "out_of_memory"),
    ],
)
def test_deaths_are_told_apart(said: str, actor: str, kind: str) -> None:
    """Only Ray's words for its memory monitor mean memory, and of processes ended together the largest is to blame."""
    assert failure_of_death(said, actor).kind == kind


def test_a_process_that_has_said_nothing_yet_is_known_when_it_dies() -> None:
    """The memory monitor ends the youngest first."""
    nobody: Any = None
    trial = Running(0, TrialConfig(), Try(1.0, 0.0), process=SimpleNamespace(_actor_id=bytes.fromhex("aa1b")))
    Recovery(nobody, nobody, nobody, 2.0).note_death(trial, ENDED_TOGETHER)
    assert trial.failure == failure_of_death(ENDED_TOGETHER, "aa1b")
    assert trial.failure.kind == "preempted"


def ladder(first: Try, batch_size: int, cores: float) -> list[Try]:
    """Every try until all was tried."""
    tries = [first]
    while (more := next_try(tries[-1], batch_size, cores)) is not None:
        tries.append(more)
    return tries


def test_a_process_whose_gpu_is_broken_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a CUDA error PyTorch cannot even give memory back, which must not take the error's place."""

    def empty_cache() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    free_gpu_memory()


def test_a_lack_of_memory_is_answered_with_a_larger_share_and_then_with_smaller_parts() -> None:
    """GPUs double to a whole one, cores to all, then micro-batches halve four times, or to one image."""
    on_gpu = ladder(Try(1, 0.25), 32, 8)
    assert [(t.gpus, t.micro_batch) for t in on_gpu] == [
        (0.25, None), (0.5, None), (1, None), (1, 16), (1, 8), (1, 4), (1, 2),
    ]  # fmt: skip
    assert on_gpu[2].tried == ("0.5 of a GPU", "a whole GPU")
    on_cpu = ladder(Try(1, 0), 3, 6)
    assert [(t.cpus, t.micro_batch) for t in on_cpu] == [(1, None), (2, None), (4, None), (6, None), (6, 2), (6, 1)]
    assert [has_whole_share(t, 6) for t in on_cpu] == [False, False, False, True, True, True]
    assert [t.micro_batch for t in ladder(Try(1, 1, 32), 8, 8)] == [32, 4, 2, 1]
    on_several = ladder(Try(1, 4), 32 // 4, 8)
    assert [(t.gpus, t.micro_batch) for t in on_several] == [(4, None), (4, 4), (4, 2), (4, 1)]
    assert ladder(Try(6, 0), 1, 6) == [Try(6, 0)]
    assert Try(**asdict(on_cpu[-1])) == on_cpu[-1]


def test_every_kind_has_a_policy_and_is_documented() -> None:
    """The table in docs/cli.md says what is done about each."""
    documented = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [kind for kind in POLICIES if f"| `{kind}` | " not in documented] == []


def test_three_of_a_kind_in_a_row_stop_the_sweep(tmp_path: Path) -> None:
    """Bugs count by their mark, bad data and full disks by their kind; anything else in between starts anew."""

    def stopped_by(*failures: Failure | None) -> list[str]:
        halt, stopped = Halt(tmp_path, lambda _: None, math.inf), []
        for failure in failures:
            halt.note(failure)
            stopped.append(halt.stopped)
        return stopped

    bug, other = Failure("bug", "E: 1", "E in a.py:1"), Failure("bug", "E: 2", "E in a.py:2")
    *before, last = stopped_by(bug, bug, other, bug, bug, None, bug, bug, bug)
    assert (before, "same error, E in a.py:1: E: 1" in last) == ([""] * 8, True)
    assert stopped_by(*[Failure("diverged", "NaN")] * 9) == [""] * 9
    *before, last = stopped_by(*(Failure("bad_data", f"{n}.jpg cannot be read") for n in range(3)))
    assert (before, "2.jpg" in last) == (["", ""], True)


SPEC = study_spec(trials=2, config={"epochs": 3})


def test_what_is_tried_next_survives_the_driver(tmp_path: Path) -> None:
    """A trial given back comes again under its number with its retry, also to the next driver; it is no new attempt."""
    more = asdict(Try(2, 0, 16, ("2 CPUs", "micro-batches of 16")))
    with Study.open(tmp_path, SPEC) as study:
        number = ask(study).number
        for _ in range(5):
            study.hand_back(number, counted=False, retry=more)
            again = ask(study)
            assert (again.number, again.retry) == (number, {**more, "tried": list(more["tried"])})
        study.release()
    with Study.open(tmp_path, SPEC) as study:
        again = ask(study)
        assert (again.number, again.retry["micro_batch"]) == (number, 16)
        assert again.config.micro_batch is None
        assert study.record(number).config["micro_batch"] == 16


def test_deaths_count_only_without_progress(tmp_path: Path) -> None:
    """Five deaths with an epoch between are nothing; three without one fail the trial, as lost."""
    with Study.open(tmp_path, SPEC.model_copy(update={"trials": 1, "config": {"epochs": 9}})) as study:
        for epoch in range(1, 6):
            asked = ask(study)
            study.report(asked.number, Measurement(epoch, {"val_accuracy": 0.5}))
            study.hand_back(asked.number, counted=True)
        deaths = 0
        while (asked := study.ask()) is not None:
            study.hand_back(asked.number, counted=True)
            deaths += 1
        record = study.record(0)
        assert (record.status, record.failure, record.epochs) == ("failed", "lost", 5)
        assert deaths == 3
        assert "3 times" in record.reason


def test_micro_batches_change_no_digest_until_they_are_used() -> None:
    """Trials of old journals keep their digests; a trial in micro-batches is another one."""
    plain = TrialConfig(unfreezing="full")
    assert "micro_batch" not in plain.canonical()
    assert plain.model_copy(update={"micro_batch": 8}).digest != plain.digest
    assert plain.model_copy(update={"micro_batch": 8}).training().canonical()["micro_batch"] == 8


# Stages


def make_stage(store: StageStore, made: list[str], kind: str = "training") -> Path:
    """Get or make a stage of two files; note when it is made."""

    def make(folder: Path) -> None:
        made.append(kind)
        np.save(folder / "average.npy", np.arange(1000, dtype=np.float32))
        save_file({"w": torch.ones(1000)}, folder / "model.safetensors")

    return store.get_or_make(kind, {"a": 1}, make)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use is a process's first."""

    class Nothing(set):  # type: ignore[type-arg]
        def add(self, _: object) -> None:
            pass

    monkeypatch.setattr("carcls.stages._whole", Nothing())


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", ["average.npy", "model.safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_stage_is_dropped_and_made_again(tmp_path: Path, name: str, how: str) -> None:
    """A flipped byte, a cut file and a missing one are each noticed on use; the log says which file it was."""
    store, made = StageStore(tmp_path), list[str]()
    file = make_stage(store, made) / name
    whole = file.read_bytes()
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(whole[:-1] if how == "cut" else whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    assert [make_stage(store, made) for _ in range(2)] == [file.parent] * 2
    assert (made, file.read_bytes()) == (["training"] * 2, whole)
    events = events_of(store)
    assert [event.event for event in events] == ["made", "dropped", "made", "reused"]
    assert name in events[1].reason
    assert sorted(path.name for path in file.parent.parent.iterdir() if path.is_dir()) == [file.parent.name]


@pytest.mark.usefixtures("forgetful")
def test_stages_older_than_checksums_are_used_as_they_are(tmp_path: Path) -> None:
    """Without files.json a stage is taken on trust."""
    store, made = StageStore(tmp_path), list[str]()
    (make_stage(store, made) / "files.json").unlink()
    make_stage(store, made)
    assert made == ["training"]


def test_large_files_are_checked_in_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the first and the last block still count, and so does the size."""
    monkeypatch.setattr("carcls.disk.WHOLE_BYTES", 2**20)
    store, size = StageStore(tmp_path), 100 * 2**20 + 7

    def make(folder: Path) -> None:
        (folder / "pixels.npy").touch()
        os.truncate(folder / "pixels.npy", size)

    folder = store.get_or_make("pack", {"a": 1}, make)
    name = folder.relative_to(tmp_path).as_posix()
    assert store.find_damage(name) == ""
    with (folder / "pixels.npy").open("r+b", buffering=0) as file:
        for place in (0, size - 1):
            os.pwrite(file.fileno(), b"x", place)
            assert "another content" in store.find_damage(name)
            os.pwrite(file.fileno(), b"\0", place)
    os.truncate(folder / "pixels.npy", 2**20)
    assert "bytes instead of" in store.find_damage(name)


# Full disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 4 MiB."""
    with small_disk(tmp_path / "small", "4m") as folder:
        yield folder


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Path) -> None:
    """The failure names the folder and the remedy, the old checkpoint loads, and nothing is left of the new one."""
    config = TrialConfig(family="scratch", backbone="scratch", depth=3, width=16, image_size=32).training()
    classifier = build_classifier(config, 4)
    optimizer = build_optimizer(classifier, config)
    save_checkpoint(disk, classifier, optimizer, TrainingProgress(1, ({"val_accuracy": 0.5},)))
    (disk / "others").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 8192))
    before, longer = sorted(disk.iterdir()), TrainingProgress(1, ({"val_accuracy": 0.5},) * 2)
    saves = (lambda: save_checkpoint(disk, classifier, optimizer, longer), lambda: save_model(disk, classifier, 3))
    for save in saves:
        with pytest.raises(DiskFull, match=rf"{disk}.*full\. Make room, for instance with carsweep gc") as caught:
            save()
        assert failure_of(caught.value).kind == "full_disk"
        assert sorted(disk.iterdir()) == before
    assert len(load_checkpoint(disk, classifier, optimizer).history) == 1


def test_a_stage_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    """Arrays, memory maps and files of a maker that runs out of room fail by name; once there is room it is made."""
    store = StageStore(disk / "stages")

    def array(folder: Path) -> None:
        np.save(folder / "a.npy", np.zeros(8 * 2**20, np.uint8))

    def mapped(folder: Path) -> None:
        np.lib.format.open_memmap(folder / "b.npy", mode="w+", dtype=np.uint8, shape=(8 * 2**20,))
        reserve(folder / "b.npy")

    def file(folder: Path) -> None:
        with replacing(folder / "d") as temporary:
            temporary.write_bytes(bytes(8 * 2**20))

    for make in (array, mapped):
        with pytest.raises(DiskFull, match="stages"):
            store.get_or_make("kind", {"a": 1}, make)
        assert [path.name for path in (disk / "stages" / "kind").iterdir() if path.is_dir()] == []
    with pytest.raises(DiskFull):
        store.get_or_make("kind", {"a": 2}, file, keep=True)
    assert not list(store.folder("kind", {"a": 2}).with_suffix(".unfinished").iterdir())
    assert (store.get_or_make("kind", {"a": 1}, lambda folder: (folder / "c").touch()) / "c").exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_file_can_be_read_by_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    """Whatever wrote it: safetensors makes files that only their owner may read."""
    before = os.umask(umask)
    try:
        for name, save in {
            "a": lambda path: save_file({"a": torch.zeros(2)}, path),
            "b": lambda path: path.write_bytes(b"b"),
        }.items():
            with replacing(tmp_path / name) as temporary:
                save(temporary)
            assert (tmp_path / name).stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
