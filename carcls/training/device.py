"""Where a trial computes, and with which numbers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from carcls.config import TrialConfig
from carcls.errors import NoDevice, OutOfMemory
from carcls.machine import held_gpus, is_lack_of_memory

NumberFormat = Literal["fp32", "bf16"]


def pick_device() -> torch.device:
    """Return the GPU that this process's trial was given, or the CPU for one that was given none.

    Where nobody said (``carcls.machine.hold_gpus``), such as outside trials, it is a GPU if there is one.

    Raises:
        NoDevice: the trial was given a GPU, and none can be used.
    """
    share = held_gpus()
    if share == 0:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if share is None:
        return torch.device("cpu")
    raise NoDevice(
        f"the trial was given a GPU (CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES')!r}), but "
        f"PyTorch {torch.__version__} can use none: {_why_no_gpu()} See what nvidia-smi says; without GPUs: "
        "--gpus-per-trial 0."
    )


def _why_no_gpu() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).strip().partition('. ')[0].rstrip('.')}."
    return "CUDA found no device."


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device can multiply bf16 matrices; not whether it gains by that."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch._C._has_mkldnn) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def machine_name(device: torch.device) -> str:
    """Return what the GPU or the processor calls itself."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def autocast(device: torch.device, precision: NumberFormat) -> torch.autocast:
    """Return the context in which the backbone runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def memory_errors_named(config: TrialConfig) -> Iterator[None]:
    """Turn a lack of memory, in any words, into a failure that says what to change.

    Raises:
        OutOfMemory: the body ran out of the memory of the GPU or of the machine.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        torch.cuda.empty_cache()
        whose = "machine" if isinstance(error, MemoryError) or "CPUAllocator" in str(error) else "GPU"
        raise OutOfMemory(
            f"out of the {whose}'s memory at batch_size {config.batch_size} and image_size {config.image_size}; "
            f"lower one of them, or give each trial more of the {whose}."
        ) from error
