"""What a process does with the memory that it frees, and how many images a network answers at a time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from carcls.training.images import answering_batch

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
