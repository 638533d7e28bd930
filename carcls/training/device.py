"""Where a trial computes, and with which numbers."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carcls.config import TrialConfig
from carcls.errors import OutOfMemory

NumberFormat = Literal["fp32", "bf16"]
PACK_SHARE = 0.25
"""Of a GPU's memory, that decoded images may take; a network that trains needs the rest."""
COPIED_AT_ONCE = 1024


def pick_device() -> torch.device:
    """Return the GPU that the trial was given, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pixels_on_gpu(pixels: NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """Return the pixels copied into the GPU's memory, or None when they are too many for it.

    That is more than a quarter of what is free, or of what the trial may use of it.
    """
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    if pixels.nbytes > PACK_SHARE * min(free, allowed):
        return None
    resident = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), COPIED_AT_ONCE):
        block = slice(start, start + COPIED_AT_ONCE)
        resident[block] = torch.from_numpy(np.ascontiguousarray(pixels[block]))
    return resident


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
    """Turn the device's out-of-memory error into a failure that says what to change.

    Raises:
        OutOfMemory: the body ran out of the device's memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(
            f"out of device memory at batch_size {config.batch_size} and image_size {config.image_size}; "
            "lower one of them, or give each trial more of the GPU."
        ) from error
