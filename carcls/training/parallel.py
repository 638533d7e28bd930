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
from typing import NamedTuple, cast

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


class Piece(NamedTuple):
    """What one process computes with at a time.

    Attributes:
        positions: of the images, int64 [p], never none.
        weight: of their mean loss. The mean over all processes of the sums over their parts is the loss of the batch.
    """

    positions: NDArray[np.int64]
    weight: float


@dataclass(frozen=True, slots=True)
class Parallel:
    """The processes that train a classifier together, and which of them this is.

    Attributes:
        rank: of this process, from 0.
        processes: in all; one alone exchanges nothing.
    """

    rank: int = 0
    processes: int = 1

    def parts(self, config: TrialConfig, batch: NDArray[np.int64]) -> list[Piece]:
        """Return what this process has of a batch of positions int64 [b], one after the other; all have as many.

        They must: synchronised BatchNorm is an exchange in each forward pass.
        """
        found = micro_batches(config, batch, self.processes)
        return [self._part(piece, len(batch), config.image_size) for piece in found]

    def _part(self, piece: NDArray[np.int64], size: int, image_size: int) -> Piece:
        """Return this process's share of some images of a batch of ``size``, as equal as can be.

        BatchNorm may be unable to take one image, so none is alone but of SINGLE_PIXELS or more, as long as another is
        in the batch. Where they do not suffice for all, some repeat what another has, without any weight: not every
        network takes no image at all.
        """
        if self.processes == 1:
            return Piece(piece, len(piece) / size)
        least = 1 if image_size >= SINGLE_PIXELS else 2
        shares = np.array_split(piece, max(1, min(self.processes, len(piece) // least)))
        own = shares[self.rank % len(shares)]
        return Piece(own, self.processes * len(own) / size if self.rank < len(shares) else 0.0)

    def connect(self, network: nn.Module) -> nn.Module:
        """Return the network as it is to be called, so that gradients are averaged at the end of each backward pass.

        All processes call it at the same point. The weights of the first one become those of all. Call it again when
        other parameters train.
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


def micro_batches(config: TrialConfig, batch: NDArray[np.int64], processes: int = 1) -> list[NDArray[np.int64]]:
    """Return a batch of positions int64 [b] in parts of at most ``micro_batch`` images for each process.

    They are as equal as can be.

    BatchNorm may be unable to take one image, so none is alone but in parts of one of SINGLE_PIXELS or more, the last
    step that saves memory: an odd batch in parts of 2 has one of 3.
    """
    if config.micro_batch is None or config.micro_batch * processes >= len(batch):  # array_split takes a while for it
        return [batch]
    least = 1 if config.micro_batch == 1 and config.image_size >= SINGLE_PIXELS else 2
    count = math.ceil(len(batch) / (max(config.micro_batch, least) * processes))
    return list(np.array_split(batch, min(count, max(1, len(batch) // least))))


ALONE = Parallel()
