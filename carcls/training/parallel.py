"""One classifier trained by several processes: each computes with a part of every batch, and all take the same step.

Gradients are averaged by torch's DistributedDataParallel. Who starts the processes is ``carcls.training.launcher``.

Letters: b batch, p part.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from carcls.config import TrialConfig

SINGLE_PIXELS = 64
"""Side of images of which the maps of most networks have more than one place, which is enough for BatchNorm."""
PATIENCE = timedelta(days=7)
"""The first process measures, writes and reports between two epochs, as long as it takes; the others wait for it. One
that died is noticed by who started it."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""What gloo and NCCL read from the environment: all processes of a trial are on one machine."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """The processes that train a classifier together, and which of them this is.

    Attributes:
        rank: of this process, from 0.
        processes: in all; one alone exchanges nothing.
    """

    rank: int = 0
    processes: int = 1

    def part(self, batch: NDArray[np.int64], image_size: int) -> NDArray[np.int64]:
        """Return this process's part [p] of a batch [b], as equal as can be; the last ones may get nothing.

        BatchNorm may be unable to take one image, so none is alone but of SINGLE_PIXELS or more, as long as another is
        in the batch.
        """
        if self.processes == 1:
            return batch
        least = 1 if image_size >= SINGLE_PIXELS else 2
        parts = np.array_split(batch, max(1, min(self.processes, len(batch) // least)))
        return parts[self.rank] if self.rank < len(parts) else batch[:0]

    def connect(self, network: nn.Module) -> nn.Module:
        """Return the network as it is to be called, so that gradients are averaged at the end of each backward pass.

        All processes call it at the same point. The weights and buffers of the first one become those of all. Call it
        again when other parameters train.
        """
        if self.processes == 1:
            return network
        # The running statistics that count are the first process's, which measures and writes them. Parameters that a
        # network has and does not use would end in an error otherwise. A static graph would tell them once and for all,
        # but its first step may not be cut into micro-batches.
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )

    def averaging(self, network: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and a backward pass: whether gradients are averaged, or added up alone."""
        return nullcontext() if now or self.processes == 1 else cast(DistributedDataParallel, network).no_sync()

    def average(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes, which all call this at the same point."""
        if self.processes == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.processes


def join(parallel: Parallel, meeting: Path, device: torch.device) -> None:
    """Become one of the processes, which all name the same file, in a folder that is nobody else's.

    They exchange by NCCL between GPUs, and by gloo between CPUs.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(meeting), parallel.processes)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=parallel.rank, world_size=parallel.processes, timeout=PATIENCE)


def micro_batches(config: TrialConfig, batch: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return a batch of positions int64 [b] in parts of at most ``micro_batch`` images, as equal as can be.

    BatchNorm may be unable to take one image, so none is alone but in parts of one of SINGLE_PIXELS or more, the last
    step that saves memory: an odd batch in parts of 2 has one of 3.
    """
    most = config.micro_batch or config.batch_size
    if most >= config.batch_size or not len(batch):  # array_split takes a while to cut nothing
        return [batch]
    least = 1 if most == 1 and config.image_size >= SINGLE_PIXELS else 2
    return list(np.array_split(batch, min(math.ceil(len(batch) / most), max(1, len(batch) // least))))


ALONE = Parallel()
