"""What is done where the memory of a GPU, or of the machine, does not suffice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from carcls.config import TrialConfig
from carcls.errors import OutOfMemory
from carcls.machine import is_lack_of_memory

Made = TypeVar("Made")


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


def halved(compute: Callable[[int], Made], count: int, least: int = 1) -> tuple[Made, int]:
    """Return ``compute(count)``, and the count: half of it where memory does not suffice, again and again.

    Raises:
        RuntimeError, MemoryError: it does not suffice for ``least`` either, or something else is wrong.
    """
    while True:
        try:
            return compute(count), count
        except (RuntimeError, MemoryError) as error:
            if count <= least or not is_lack_of_memory(error):
                raise
        torch.cuda.empty_cache()  # what the error held is free only now
        count = max(least, math.ceil(count / 2))
