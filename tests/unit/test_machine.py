"""What a machine has: GPUs as CUDA would give them, memory that is used again, images that are answered at a time."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from carcls.errors import InputError, NoDevice
from carcls.machine import _listing, gpu_kind, held_gpus, hold_gpus, visible_gpus
from carcls.training.images import answering_batch, pick_device

FAULTS = """
import resource, sys
import numpy as np
from carcls.machine import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    """Ten arrays of 64 MiB, one after the other, touch no page anew, where they otherwise touch all of them."""
    given, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("give", "keep")
    )
    assert kept < given / 10


def test_a_network_answers_as_many_images_as_the_cache_of_its_threads_holds() -> None:
    """Eight of 224 pixels for each thread of a CPU, 64 on a GPU, and never none."""
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert answering_batch(torch.device("cpu"), 224) == 8 * count
            assert answering_batch(torch.device("cpu"), 5000) == 1
            assert answering_batch(torch.device("cuda"), 224) == 64
    finally:
        torch.set_num_threads(threads)


TWO, MIG = ("GPU-aaaa-1", "GPU-bbbb-2"), ("MIG-aaaa-1", "MIG-aaaa-2")
FORMS = [
    None, "", " ", "0", "1", "0,1", "1,0", "0,1,2", "0,7,1", "7", "-1", "0,-1,1", "-1,0", "NoDevFiles", "none",
    "0,0", "0,1,0", " 0, 1", "0 ,1 ", "1gpu,0x", "00,1", "0;1", "0,", ",0", "gpu0", "cuda:0",
    "GPU-aaaa-1", "GPU-aaaa-1,GPU-bbbb-2", "GPU-a", "GPU-", "GPU-bbbb-2,GPU-cccc", "GPU-cccc,GPU-aaaa-1",
    "GPU-a,GPU-aaaa", "GPU-a,GPU-a", "GPU-a, GPU-b", "0,GPU-b", "GPU-b,0",
]  # fmt: skip


def listed(gpus: Sequence[str], parts: Sequence[str] = ()) -> Callable[..., Any]:
    """Answer as ``nvidia-smi -L`` does on a machine with some GPUs, and with parts (MIG) of the first of them."""
    lines = [f"GPU {number}: NVIDIA H200 (UUID: {name})" for number, name in enumerate(gpus)]
    lines[1:1] = [f"  MIG 1g.18gb     Device  {number}: (UUID: {name})" for number, name in enumerate(parts)]
    return lambda *_, **__: SimpleNamespace(stdout="\n".join(lines) + "\n")


def unanswered(*_: object, **__: object) -> None:
    """There is no such command."""
    raise FileNotFoundError("nvidia-smi")


# Of the answer of nvidia-smi and a form of CUDA_VISIBLE_DEVICES.
Count = Callable[[Any, str | None], int | str]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Count:
    """Return what tells how many GPUs a machine has under a form of CUDA_VISIBLE_DEVICES; no device file is there."""
    monkeypatch.setattr("carcls.machine._DEVICE", tmp_path / "nvidia0")

    def counted(answer: Any, listed: str | None) -> int | str:
        monkeypatch.setattr("subprocess.run", answer)
        _listing.cache_clear()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if listed is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        try:
            return visible_gpus()
        except InputError as error:
            return str(error)
        finally:
            _listing.cache_clear()

    return counted


@pytest.mark.parametrize("cards", [1, 2])
def test_gpus_are_counted_as_cuda_counts_them(count: Count, cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form gives what PyTorch reads in it; where that is nothing, and nobody hid the GPUs, a line names it."""
    monkeypatch.setattr("torch.cuda._raw_device_count_nvml", lambda: cards)
    monkeypatch.setattr("torch.cuda._raw_device_uuid_nvml", lambda: list(TWO[:cards]))
    hidden = []
    for form in FORMS:
        ours = count(listed(TWO[:cards]), form)
        theirs = torch.cuda._device_count_nvml()
        if theirs:
            assert ours == theirs, form
        elif ours == 0:
            hidden.append(form)
        else:
            said = f"CUDA_VISIBLE_DEVICES must name GPUs of this machine (numbers below {cards}"
            assert str(ours).startswith(said), form
            assert f"got {form!r}. " in str(ours)
            assert "\n" not in str(ours)
    assert hidden == ["", " ", "-1", "-1,0", "NoDevFiles", "none", ",0"]


def test_parts_of_gpus_count_by_their_names(count: Count) -> None:
    """Each part (MIG) that is there counts, since a process of trials is given one; one that is not there is told."""
    forms = [None, "0", *MIG, ",".join(MIG), "MIG-aaaa-1,MIG-cccc", "MIG-cccc"]
    ours = [count(listed(TWO[:1], MIG), form) for form in forms]
    assert ours[:-1] == [1, 1, 1, 1, 2, 1]
    assert "got 'MIG-cccc'" in str(ours[-1])


LISTED = "GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)\n"
OTHER = "GPU 1: NVIDIA L4 (rev 2) (UUID: GPU-bbbb-2)\n"
PART = "  MIG 1g.18gb     Device  0: (UUID: MIG-aaaa-1)\n"
LARGER = "  MIG 2g.35gb     Device  1: (UUID: MIG-bbbb-2)\n"


@pytest.mark.parametrize(
    ("printed", "listed", "kind"),
    [
        (LISTED + OTHER.replace("L4 (rev 2)", "H200"), None, "NVIDIA H200"),
        (LISTED + PART + PART.replace("aaaa", "bbbb"), None, "NVIDIA H200 1g.18gb"),
        (LISTED + PART + LARGER, None, ""),
        (LISTED + PART + LARGER, "MIG-bbbb-2", "NVIDIA H200 2g.35gb"),
        (LISTED + OTHER, None, ""),
        (LISTED + OTHER, "1", "NVIDIA L4 (rev 2)"),
        (LISTED + OTHER, "GPU-a", "NVIDIA H200"),
        (LISTED + OTHER, "7", ""),
        # As in a process of Ray's that has no GPU.
        (LISTED, "", "NVIDIA H200"),
        ("", None, ""),
    ],
)
def test_gpus_of_one_kind_have_a_name(
    monkeypatch: pytest.MonkeyPatch, printed: str, listed: str | None, kind: str
) -> None:
    """It is that of nvidia-smi, with the profile of parts; of several kinds a trial may get any, so there is none.

    Those that CUDA_VISIBLE_DEVICES leaves out do not count.
    """
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(stdout=printed))
    _listing.cache_clear()
    try:
        assert gpu_kind() == kind
    finally:
        _listing.cache_clear()


@pytest.mark.parametrize("answer", [unanswered, listed([])])
def test_without_gpus_nothing_that_is_listed_matters(count: Count, answer: Any) -> None:
    """A shell may set the variable on every machine; there is no GPU, with and without a driver that says so."""
    assert [count(answer, form) for form in (None, "0", "7", "GPU-a", "")] == [0] * 5


def test_an_answer_that_is_no_text_lists_no_gpu(count: Count, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of no encoding are no error of carsweep's."""
    monkeypatch.setattr("carcls.machine._LIST_GPUS", ("printf", r"\265\377\n"))
    assert count(subprocess.run, None) == 0


@pytest.mark.parametrize("command", [("no-such-smi",), ("false",), ("sleep", "9")])
def test_a_gpu_whose_driver_does_not_answer_is_told(
    count: Count, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """nvidia-smi is not there, fails or hangs: nobody takes the CPU for that, unless the GPU is hidden on purpose."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr("carcls.machine._LIST_GPUS", command)
    run = subprocess.run

    def answer(*args: Any, timeout: float, **options: Any) -> Any:
        return run(*args, timeout=timeout / 200, **options)

    told = str(count(answer, None))
    assert re.search(r"does not answer.*CUDA_VISIBLE_DEVICES= carsweep", told)
    assert count(answer, "") == 0


def test_a_trial_that_was_given_a_gpu_never_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none it fails and says so; one that was given none takes none, also where there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda _: None)
    monkeypatch.setattr("carcls.machine._held", [])
    assert (held_gpus(), pick_device().type) == (None, "cpu")
    hold_gpus(0.0)
    assert pick_device().type == "cpu"
    hold_gpus(0.5)
    with pytest.raises(NoDevice, match=r"was given a GPU .* can use none: .*--gpus-per-trial 0\."):
        pick_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"
    hold_gpus(0.0)
    assert pick_device().type == "cpu"


def test_a_process_takes_no_more_of_a_gpu_than_its_trial_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is used again gets the limit of its next trial, a whole GPU too; outside trials there is none."""
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    monkeypatch.setattr("carcls.machine._held", [])
    assert pick_device().type == "cuda"
    assert limits == []
    for share in (0.25, 0.5, 1.0, 0.25, 0.0, 4.0):
        hold_gpus(share)
        pick_device()
    assert limits == [0.25, 0.5, 1.0, 0.25, 1.0]
