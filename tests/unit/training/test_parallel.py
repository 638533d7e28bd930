"""Several processes that train one classifier: their step is the batch's, and none outlives whom it works for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import importable
from hypothesis import given
from hypothesis import strategies as st

from carcls.config import TrialConfig
from carcls.errors import DiskFull, InputError, LostProcess, NonFiniteLoss, OutOfMemory
from carcls.helpers import Helpers, end_helpers
from carcls.models.classifier import Classifier, build_classifier
from carcls.outcome import Measurement
from carcls.seeding import make_deterministic
from carcls.training import launcher
from carcls.training.checkpoint import load_model, save_checkpoint
from carcls.training.images import ImageSource
from carcls.training.launcher import Launcher
from carcls.training.loop import Trainer, image_logits
from carcls.training.memory import memory_errors_named
from carcls.training.parallel import Parallel
from carcls.training.process import _device_errors_named

CLASSES, SIDE, IMAGES = 3, 32, 36
ROWS = np.arange(IMAGES)
LABELS = ROWS % CLASSES
TRAIN, VALIDATION = ROWS[:24], ROWS[24:]
PLAIN = TrialConfig(
    family="scratch",
    backbone="scratch",
    depth=2,
    width=4,
    image_size=SIDE,
    epochs=2,
    batch_size=8,
    precision="fp32",
    crop="random",
    flip=True,
    label_smoothing=0.1,
)


_others = set[int]()


@pytest.fixture(autouse=True)
def _reproducibly() -> Iterator[None]:
    """Numbers depend on the threads of each process: two here are one for each of two processes."""
    threads = torch.get_num_threads()
    _others.clear()
    _others.update(children())
    make_deterministic()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """Return a file of noise with a tint for each class."""
    noise = np.random.default_rng(0).integers(0, 60, (IMAGES, SIDE, SIDE, 3))
    tints = np.array([[190, 0, 0], [0, 190, 0], [0, 0, 190]])
    np.save(tmp_path / "pixels.npy", (noise + tints[LABELS][:, None, None, :]).astype(np.uint8))
    return tmp_path / "pixels.npy"


def changed(**settings: Any) -> TrialConfig:
    """The plain trial with other settings, as its training sees it."""
    return PLAIN.model_copy(update=settings).training()


def launched(config: TrialConfig, pixels: Path) -> Launcher:
    """Several processes, which share the threads of this one."""
    return Launcher(config, CLASSES, pixels, LABELS, TRAIN, VALIDATION, "fp32", torch.device("cpu"))


def trainer(config: TrialConfig, pixels: Path) -> Trainer:
    """One process of one thread."""
    torch.set_num_threads(1)
    classifier = build_classifier(config, CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = ImageSource(np.load(pixels), classifier.backbone.mean, classifier.backbone.std, torch.device("cpu"))
    return Trainer(config, classifier, images, LABELS, TRAIN, VALIDATION, "fp32", None)


def model_in(folder: Path, config: TrialConfig) -> Classifier:
    """The classifier as it was written."""
    classifier = build_classifier(config, CLASSES)
    load_model(folder, classifier)
    return classifier


def differences(ours: Classifier, theirs: Classifier) -> dict[str, float]:
    """The largest difference of each parameter."""
    expected = dict(theirs.named_parameters())
    return {name: float((p - expected[name]).detach().abs().max()) for name, p in ours.named_parameters()}


def interrupt_after(epoch: int) -> Callable[[Measurement], None]:
    """Stop at a report."""

    def report(measurement: Measurement) -> None:
        if measurement.epoch == epoch:
            raise KeyboardInterrupt

    return report


# Numbers


def test_two_processes_train_what_one_does_in_two_parts(tmp_path: Path, pixels: Path) -> None:
    """Bit for bit, with BatchNorm and clipping: two processes and micro-batches of half the batch add the same halves.

    The running statistics of BatchNorm are those of the first process's parts, as if only these had been seen; the
    model that was written has them, and is the one that was validated.
    """
    settings = {"batch_norm": True, "clip_norm": 0.5, "optimizer": "adamw", "lr_schedule": "onecycle"}
    reports: list[Measurement] = []
    logits = launched(changed(**settings, processes=2), pixels).fit(tmp_path, reports.append)
    one, alone = trainer(changed(**settings, micro_batch=4), pixels), list[Measurement]()
    (tmp_path / "one").mkdir()
    one.fit(tmp_path / "one", alone.append)
    two = model_in(tmp_path, one.config)
    assert set(differences(two, one.classifier).values()) == {0.0}
    assert [r.metrics["train_loss"] for r in reports] == pytest.approx(
        [r.metrics["train_loss"] for r in alone], rel=1e-6
    )
    counted = {name: value for name, value in two.state_dict().items() if name.endswith("num_batches_tracked")}
    assert set(map(int, counted.values())) == {2 * 3}
    np.testing.assert_allclose(image_logits(two, one.images, VALIDATION, "fp32"), logits, rtol=1e-5, atol=1e-5)
    assert (logits.shape, [r.epoch for r in reports]) == ((len(VALIDATION), CLASSES), [1, 2])
    assert {path.name for path in tmp_path.iterdir()} >= {"model.safetensors", "checkpoint.pt"}
    assert not {"logits.npy", "meeting"} & {path.name for path in tmp_path.iterdir()}


def test_the_step_is_that_of_the_whole_batch(tmp_path: Path, pixels: Path) -> None:
    """Without BatchNorm and dropout three processes train what one does with whole batches, whatever is left of these.

    Batches of 7, 7, 7 and 3 images in parts of 3, 2, 2 and of 3, which the two others repeat without weight. Sums of
    the same numbers in another order differ in their last bits, of 2⁻²⁴; a few hundred of them, and eight steps of SGD,
    make less than 10⁻⁵ of it.
    """
    settings = {"batch_size": 7, "optimizer": "sgd", "head_lr": 0.05, "crop": "none", "flip": False}
    three, whole = list[Measurement](), list[Measurement]()
    launched(changed(**settings, processes=3), pixels).fit(tmp_path, three.append)
    one = trainer(changed(**settings), pixels)
    (tmp_path / "one").mkdir()
    one.fit(tmp_path / "one", whole.append)
    for ours, theirs in zip(three, whole, strict=True):
        for name in ("train_loss", "val_loss"):
            assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-5)
    for name, difference in differences(model_in(tmp_path, one.config), one.classifier).items():
        assert difference <= 1e-5, name


def test_a_training_goes_on_in_another_number_of_processes(tmp_path: Path, pixels: Path) -> None:
    """Two epochs of one process, then two of two, then one of one: what one process trains in five, up to rounding.

    The stages are unfrozen one after the other, so the first epochs train the head alone.
    """
    settings = {"epochs": 5, "optimizer": "adamw", "unfreezing": "1:1,3:all", "crop": "none", "flip": False}
    config = changed().model_copy(update=settings)
    folder = tmp_path / "trial"
    folder.mkdir()
    trainer(config, pixels).train_until(2, folder, lambda _: None)
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        launched(config.model_copy(update={"processes": 2}), pixels).fit(folder, interrupt_after(4))
    reports: list[Measurement] = []
    resumed = trainer(config, pixels)
    resumed.fit(folder, reports.append)
    whole = trainer(config, pixels)
    (tmp_path / "whole").mkdir()
    whole.fit(tmp_path / "whole", lambda _: None)
    assert [r.trained for r in reports] == [False] * 4 + [True]
    expected = [metrics["val_loss"] for metrics in whole.progress.history]
    assert [r.metrics["val_loss"] for r in reports] == pytest.approx(expected, rel=1e-4)
    assert max(differences(resumed.classifier, whole.classifier).values()) <= 1e-4


@given(
    size=st.integers(1, 40),
    processes=st.integers(1, 9),
    micro=st.none() | st.integers(1, 9),
    side=st.sampled_from([32, 64]),
)
def test_every_image_counts_in_one_process(size: int, processes: int, micro: int | None, side: int) -> None:
    """All processes have as many parts, none of them empty, and those that count make the batch, as equal as can be.

    Otherwise synchronised BatchNorm would wait for ever, or a network be given no image. None has one small image
    alone, unless the batch has no other; and none more than ``micro_batch``, unless three that cannot be divided.
    """
    config = TrialConfig(batch_size=size, micro_batch=micro, image_size=side)
    of_ranks = [Parallel(rank, processes).parts(config, np.arange(size)) for rank in range(processes)]
    counted = list[int]()
    for at_a_time in zip(*of_ranks, strict=True):
        counting = [part for part in at_a_time if part.weight]
        assert at_a_time[0].weight
        assert all(part.weight == pytest.approx(processes * len(part.positions) / size) for part in counting)
        counted += [position for part in counting for position in part.positions.tolist()]
        lengths = [len(part.positions) for part in at_a_time]
        assert max(lengths) <= min(lengths) + 1
        assert min(lengths) >= min(size, 1 if side == 64 else 2)
        assert max(lengths) <= max(micro or size, 3)
    assert counted == list(range(size))


def test_no_process_draws_the_dropout_of_another() -> None:
    """The first draws as one alone does."""
    from carcls.seeding import seed_epoch

    drawn = []
    for rank in (None, 0, 1, 2):
        seed_epoch(3, 1) if rank is None else seed_epoch(3, 1, rank)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn))) == 3


# Failures

FAILING = """
import os, signal
from carcls import errors
from carcls.helpers import serve

def fails(caller):
    kind, rank = {kind!r}, caller.order["rank"]
    if rank == 0:
        caller.wait()
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("a library's own words")
    raise (getattr(errors, kind)("of process 1") if hasattr(errors, kind) else ValueError("a bug"))

serve(fails)
"""


@pytest.mark.parametrize(
    ("kind", "raised", "said"),
    [
        ("OutOfMemory", OutOfMemory, "^of process 1$"),
        ("DiskFull", DiskFull, "^of process 1$"),
        ("InputError", InputError, "^of process 1$"),
        ("ValueError", RuntimeError, "^ValueError: a bug"),
        ("LostProcess", LostProcess, "^process 1 of the 2 that train together of process 1$"),
        ("killed", LostProcess, "process 1 of the 2 that train together died .signal SIGKILL"),
    ],
)
def test_a_failure_of_one_process_is_the_trials(
    tmp_path: Path, pixels: Path, monkeypatch: pytest.MonkeyPatch, kind: str, raised: type[Exception], said: str
) -> None:
    """Whichever fails, the trial fails at once and in the same way, though the others wait; all of them are gone."""
    monkeypatch.setattr(launcher, "MODULE", f"failing_{kind.lower()}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(launcher, "_NEWS_SECONDS", 0.2)
    with importable(tmp_path, launcher.MODULE, FAILING.format(kind=kind)), pytest.raises(raised, match=said) as caught:
        launched(changed(processes=2), pixels).fit(tmp_path, lambda _: None)
    assert not children()
    if kind == "ValueError":
        assert "raise (getattr" in caught.value.__notes__[0]
        assert "process 1 of 2" in caught.value.__notes__[0]


def children() -> list[int]:
    """The processes that this one has started since the test began and that live."""
    tasks = Path("/proc/self/task").glob("*/children")
    return [pid for task in tasks for pid in map(int, task.read_text().split()) if pid not in _others]


def test_one_that_is_killed_in_the_middle_ends_the_others(tmp_path: Path, pixels: Path) -> None:
    """The first process notices it in its exchange; it is the other's death that is told, and nobody is left."""

    def kill_one(_: Measurement) -> None:
        os.kill(children()[1], signal.SIGKILL)

    before = time.monotonic()
    with pytest.raises(LostProcess, match=r"died \(signal SIGKILL\)\.$"):
        launched(changed(processes=2, epochs=50), pixels).fit(tmp_path, kill_one)
    assert time.monotonic() - before < 120
    assert not children()


def test_a_loss_that_is_no_number_ends_all(tmp_path: Path, pixels: Path) -> None:
    """Every process sees the loss of the whole batch, and the trial fails as one of one process does."""
    begun = trainer(changed(), pixels)
    begun.train_until(1, tmp_path, lambda _: None)
    with torch.no_grad():
        begun.classifier.head.bias[0] = float("inf")
    save_checkpoint(tmp_path, begun.classifier, begun.optimizer, begun.progress)
    with pytest.raises(NonFiniteLoss, match=r"training loss became nan in epoch 2.*lower the learning rates"):
        launched(changed(processes=2), pixels).fit(tmp_path, lambda _: None)
    assert not children()


def test_a_broken_gpu_costs_the_process_that_has_it() -> None:
    """What CUDA and NCCL say is told as the loss of a process; a lack of memory and a bug are what they are."""
    said = "NCCL error in: x.cpp:40\nLast error:\nCuda failure {}"
    with pytest.raises(LostProcess, match=r"^failed \(DistBackendError: NCCL error"), _device_errors_named():
        raise torch.distributed.DistBackendError(said.format("999 'unknown error'"))
    with pytest.raises(OutOfMemory), _device_errors_named(), memory_errors_named(PLAIN):
        raise torch.distributed.DistBackendError(said.format("2 'out of memory'"))
    with pytest.raises(RuntimeError, match=r"^size mismatch$"), _device_errors_named():
        raise RuntimeError("size mismatch")


def test_batch_norm_is_synchronised_on_gpus_only(tmp_path: Path, pixels: Path) -> None:
    """On a CPU it is refused before a process starts."""
    config = changed(processes=2, batch_norm=True, sync_batch_norm=True)
    with pytest.raises(InputError, match="sync_batch_norm must be false where trials have no GPUs"):
        launched(config, pixels).fit(tmp_path, lambda _: None)


@pytest.mark.parametrize(
    ("listed", "seen"), [("4,GPU-b", ["4", "GPU-b"]), (None, ["0", "1"]), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])]
)
def test_each_process_sees_one_gpu_of_the_trials(
    pixels: Path, monkeypatch: pytest.MonkeyPatch, listed: str | None, seen: list[str]
) -> None:
    """As CUDA lists them; they exchange by loopback only, unless somebody said otherwise. No card is asked."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    on_gpus = replace(launched(changed(processes=2), pixels), device=torch.device("cuda"))
    environments = [on_gpus._environment(rank) for rank in range(2)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == seen
    assert {environment["GLOO_SOCKET_IFNAME"] for environment in environments} == {"lo"}
    assert {environment["NCCL_SOCKET_IFNAME"] for environment in environments} == {"eth0"}


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has two GPUs")
def test_fewer_gpus_than_processes_are_refused(tmp_path: Path, pixels: Path) -> None:
    """Before a process starts."""
    on_gpus = replace(launched(changed(processes=2), pixels), device=torch.device("cuda"))
    with pytest.raises(InputError, match=r"processes must be at most the trial's GPUs.*--gpus-per-trial 2"):
        on_gpus.fit(tmp_path, lambda _: None)


# Ends

SLEEPING = """
from carcls.helpers import Caller
caller = Caller()
caller.say(ready=True)
caller.wait()
"""
STARTING = """
import threading, time
from carcls.helpers import Helpers

def hold():
    helpers = Helpers("sleeping", [{{}}, {{}}], [{{}}, {{}}])
    helpers.__enter__()
    for _ in range(2):
        helpers.hear()
    print(*[process.pid for process in helpers._processes], flush=True)
    {then}

threading.Thread(target=hold).start()
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["killed", "killed while they are stopped", "its thread ends"])
def test_no_helper_outlives_whom_it_works_for(tmp_path: Path, how: str) -> None:
    """They end when the process that started them is killed, or the thread of it that did and that left them."""
    code = STARTING.format(then="pass" if how == "its thread ends" else "time.sleep(600)")
    with importable(tmp_path, "sleeping", SLEEPING):
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    if how != "its thread ends":
        assert all(map(lives, pids))
        for pid in pids if "stopped" in how else []:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    wait_until_gone(pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()


def lives(pid: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: Sequence[int]) -> None:
    """Wait until none of them lives."""
    deadline = time.monotonic() + 20
    while any(map(lives, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_stopped_trial_left_ends_when_its_process_does_something_else(tmp_path: Path) -> None:
    """A trial that is stopped early waits in its report, with its helpers; the next order, or a task, ends them."""
    with importable(tmp_path, "sleeping", SLEEPING), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        left = Helpers("sleeping", [{}, {}], [{}, {}]).__enter__()
        for _ in range(2):
            assert left.hear(60)[1] == {"ready": True}
        assert len(children()) == 2
        end_helpers()
        assert not children()
        left.end()  # its thread leaves at last


def test_a_helper_that_cannot_start_is_heard_of() -> None:
    """It has no module: nobody waits for it, and its last words are told."""
    with Helpers("there_is_no_such_module", [{"a": json.dumps([1])}], [{}]) as helpers:
        assert helpers.hear(60) == (0, None)
        assert "No module named there_is_no_such_module" in helpers.end_of(0)


@pytest.mark.parametrize("said", ['{"half', '{"whole": 1}\n{"half'])
def test_half_a_word_is_none(tmp_path: Path, said: str) -> None:
    """Of a helper that is killed while it says something, the end is heard all the same."""
    code = f"import os, sys; sys.stdin.readline(); os.write(1, {said.encode()!r}); os.kill(os.getpid(), 9)"
    with importable(tmp_path, "cut_off", code), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with Helpers("cut_off", [{}], [{}]) as helpers:
            heard = [helpers.hear(60)]
            while heard[-1][1] is not None:
                heard.append(helpers.hear(60))
            assert helpers.end_of(0) == "signal SIGKILL"
    assert [word for _, word in heard[:-1]] == [{"whole": 1}] * said.count("whole")


def test_helpers_start_beside_each_other(tmp_path: Path) -> None:
    """An order longer than a pipe holds waits for its own process to be ready, not for those before it."""
    code = "import time; time.sleep(3); from carcls.helpers import serve; serve(lambda c: c.say(begun=time.time()))"
    with importable(tmp_path, "slow", code), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with Helpers("slow", [{"rows": [0] * 100_000}] * 4, [{}] * 4) as helpers:
            heard = [said or {} for _, said in (helpers.hear(60) for _ in range(8))]
    begun = [said["begun"] for said in heard if "begun" in said]
    assert len(begun) == 4
    assert max(begun) - min(begun) < 6  # one after the other, the last would be 9 s behind
