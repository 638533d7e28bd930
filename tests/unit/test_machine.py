"""What a machine has: GPUs as CUDA would give them, memory that is used again, images that are answered at a time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from carcls.errors import InputError, NoDevice
from carcls.machine import _uuids, held_gpus, hold_gpus, visible_gpus
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
COUNTING = """
import json, os, sys, warnings
from carcls.errors import InputError
from carcls.machine import visible_gpus

answers = []
for listed in json.loads(sys.argv[1]):
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if listed is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = listed
    try:
        ours = visible_gpus()
    except InputError as error:
        ours = str(error)
    import torch
    answers.append((ours, torch.cuda._device_count_nvml()))
print(json.dumps(answers))
"""
FORMS = [
    None, "", " ", "0", "1", "0,1", "1,0", "0,1,2", "0,7,1", "7", "-1", "0,-1,1", "-1,0", "NoDevFiles", "none",
    "0,0", "0,1,0", " 0, 1", "0 ,1 ", "1gpu,0x", "00,1", "0;1", "0,", ",0", "gpu0", "cuda:0",
    "GPU-aaaa-1", "GPU-aaaa-1,GPU-bbbb-2", "GPU-a", "GPU-", "GPU-bbbb-2,GPU-cccc", "GPU-cccc,GPU-aaaa-1",
    "GPU-a,GPU-aaaa", "GPU-a,GPU-a", "GPU-a, GPU-b", "0,GPU-b", "GPU-b,0",
]  # fmt: skip


def count_gpus(environment: dict[str, str], forms: list[str | None], **fake: str) -> list[tuple[int | str, int]]:
    """What each form of CUDA_VISIBLE_DEVICES gives: by carsweep, and by PyTorch's own reading of it."""
    said = subprocess.run(
        [sys.executable, "-c", COUNTING, json.dumps(forms)],
        env={**os.environ, **environment, **fake},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [(ours, theirs) for ours, theirs in json.loads(said)]


@pytest.mark.parametrize("cards", [1, 2])
def test_gpus_are_counted_as_cuda_counts_them(fake_nvml: dict[str, str], cards: int) -> None:
    """Every form gives what PyTorch reads in it; where that is nothing, and nobody hid the GPUs, a line names it."""
    answers = count_gpus(fake_nvml, FORMS, FAKE_GPUS=",".join(TWO[:cards]))
    hidden = [form for form, (ours, theirs) in zip(FORMS, answers, strict=True) if (ours, theirs) == (0, 0)]
    assert hidden == ["", " ", "-1", "-1,0", "NoDevFiles", "none", ",0"]
    for form, (ours, theirs) in zip(FORMS, answers, strict=True):
        if theirs:
            assert ours == theirs, form
        elif form not in hidden:
            assert isinstance(ours, str), form
            assert ours.startswith(f"CUDA_VISIBLE_DEVICES must name GPUs of this machine (numbers below {cards}")
            assert f"got {form!r}. " in ours
            assert "\n" not in ours


def test_parts_of_gpus_count_by_their_names(fake_nvml: dict[str, str]) -> None:
    """Each part (MIG) that is there counts, since a process of trials is given one; one that is not there is told."""
    forms = [None, "0", *MIG, ",".join(MIG), "MIG-aaaa-1,MIG-cccc", "MIG-cccc"]
    ours = [ours for ours, _ in count_gpus(fake_nvml, forms, FAKE_GPUS=TWO[0], FAKE_PARTS=",".join(MIG))]
    assert ours[:-1] == [1, 1, 1, 1, 2, 1]
    assert "got 'MIG-cccc'" in str(ours[-1])


def test_without_gpus_nothing_that_is_listed_matters(fake_nvml: dict[str, str]) -> None:
    """A shell may set the variable on every machine; there is no GPU, with and without a library that says so."""
    for environment in ({}, {**fake_nvml, "FAKE_GPUS": ""}, {**fake_nvml, "FAKE_NVML_ERROR": "9"}):
        assert [ours for ours, _ in count_gpus(environment, [None, "0", "7", "GPU-a", ""])] == [0] * 5


def test_a_gpu_whose_driver_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its device is there, the library is not: nobody takes the CPU for that, unless the GPU is hidden on purpose."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr("carcls.machine._DEVICE", tmp_path / "nvidia0")
    monkeypatch.setattr("ctypes.CDLL", lambda _: (_ for _ in ()).throw(OSError("libnvidia-ml.so.1: cannot open")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _uuids.cache_clear()
    with pytest.raises(InputError, match=r"does not answer.*nvidia-smi.*CUDA_VISIBLE_DEVICES= carsweep"):
        visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == 0


def test_a_trial_that_was_given_a_gpu_never_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none it fails and says so; one that was given none takes none; nobody else is asked."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("carcls.machine._held", [])
    assert (held_gpus(), pick_device().type) == (None, "cpu")
    hold_gpus(0.0)
    assert pick_device().type == "cpu"
    hold_gpus(0.5)
    with pytest.raises(NoDevice, match=r"was given a GPU .* can use none: .*--gpus-per-trial 0\."):
        pick_device()


def test_a_trial_without_a_gpu_leaves_the_card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where PyTorch sees one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for share, device in ((0.0, "cpu"), (1.0, "cuda")):
        monkeypatch.setattr("carcls.machine._held", [share])
        assert pick_device().type == device
