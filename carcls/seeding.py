"""Random numbers that are a function of what they are for, not of what was drawn before.

Every draw names its purpose (``"order"``, ``"view"``, …) and its epoch. So an epoch draws the same numbers whether
the trial ran through or was resumed there, and whether its features were cached or computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from carcls.config import digest_of


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2⁶³) for one purpose of the trial's seed.

    >>> derived_seed(0, "order", 3) == derived_seed(0, "order", 3) != derived_seed(0, "order", 4)
    True
    """
    return int(digest_of([seed, *purpose]), 16) % 2**63


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose of the trial's seed."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))


@contextmanager
def drawing(seed: int, *purpose: str | int) -> Iterator[None]:
    """Draw weights on the CPU for one purpose of the trial's seed; all global generators are as before afterwards.

    ``torch.manual_seed`` would seed those of GPUs too. They would stay so, and a network that is built amid an epoch
    would change the dropout of the rest of it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, *purpose))
        yield


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed torch's global generators (dropout, stochastic depth) for one epoch in the process of this rank."""
    torch.manual_seed(derived_seed(seed, "epoch", epoch, *((rank,) if rank else ())))


def make_deterministic() -> None:
    """Ask torch for the same numbers on the same machine.

    On a CPU that holds for an equal number of threads. On a GPU the few kernels without a deterministic version only
    warn, and cuBLAS has its setting from ``carcls.training.images.pick_device``. There fp32 is float32 in convolutions
    as well, which PyTorch would round to the 10 bits of TF32: as served on a CPU, and as folding compares.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time for nothing
    # As use_deterministic_algorithms(True, warn_only=True), which also loads PyTorch's compiler, for a second or two.
    torch.set_deterministic_debug_mode("warn")
