"""Where a trial computes, with which numbers, and how images get there: from a pack to batches on the device.

Letters: b batch, s side in pixels, n images of a split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carcls.data.augment import Augmentation, augment, draw_view
from carcls.errors import NoDevice
from carcls.machine import PACK_SHARE, held_gpus
from carcls.training.memory import halved
from carcls.training.preload import preloaded

NumberFormat = Literal["fp32", "bf16"]
Answer = TypeVar("Answer")

BLOCK_PIXELS = 200_000
"""Pixels that a CPU thread takes through all passes at a time: 4 images of 224 pixels, which stay in its cache."""

AHEAD = 2
"""Threads of a CPU that make batches, each one batch."""

ANSWERED_PIXELS, GPU_ANSWERED_PIXELS = 8 * 224**2, 64 * 224**2
"""Pixels that a network answers at a time, for each thread of a CPU. What it makes of more would leave the thread's
cache: efficientnet_lite0 answers images of 224 pixels 1.7 times as fast in batches of 8 as in batches of 64."""

COPIED_AT_ONCE = 1024


def pick_device() -> torch.device:
    """Return the GPU that this process's trial was given, or the CPU for one that was given none.

    Of a GPU of which the trial was given a part, PyTorch takes no more memory than that; Ray itself only keeps books.
    Where nobody said (``carcls.machine.hold_gpus``), such as outside trials, it is a GPU if there is one.

    Raises:
        NoDevice: the trial was given a GPU, and none can be used.
    """
    share = held_gpus()
    if share != 0 and torch.cuda.is_available():
        # Read once, when cuBLAS starts; without it equal products may differ (NVIDIA's cuBLAS, "Results
        # reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if share is not None:  # of a whole one, too: the trial before in this process may have had a part
            torch.cuda.set_per_process_memory_fraction(min(1.0, share))
        return torch.device("cuda")
    if not share:
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


def autocast(device: torch.device, precision: NumberFormat) -> torch.autocast:
    """Return the context in which the backbone runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True)
class ImageSource:
    """Decoded images and how a backbone wants them.

    Attributes:
        pixels: uint8 [total, s, s, 3], RGB, usually a memory map.
        mean, std: normalisation of the backbone, in units of [0, 1] pixels.
        device: where batches go.
    """

    pixels: NDArray[np.uint8]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: torch.device

    @property
    def side(self) -> int:
        """s."""
        return int(self.pixels.shape[1])

    def batch(self, rows: NDArray[np.int64], view: View | None = None) -> Tensor:
        """Return normalised images, float32 [b, 3, s, s] in channels_last order, changed as the view says."""
        if self.device.type != "cpu":
            (images,) = self._stream_to_gpu([[rows]], view)
            return images
        return self._prepare(self._read(rows), self._draw(rows, view), view)

    def stream(self, parts: Sequence[NDArray[np.int64]], view: View | None = None) -> Generator[Tensor]:
        """Yield ``batch(rows, view)`` for each of ``parts``, made while the one before is used; close it when done.

        On a CPU up to two threads make whole batches. For a GPU one only reads them into pinned memory, and nothing at
        all when the pixels are on the GPU: the GPU does the rest, several small batches at a time, and nobody waits
        for it.
        """
        if self.device.type == "cpu":
            yield from preloaded(lambda rows: self.batch(rows, view), parts, min(AHEAD, torch.get_num_threads()))
        elif parts:
            yield from self._stream_to_gpu(grouped(parts, answering_batch(self.device, self.side)), view)

    def _stream_to_gpu(self, groups: Sequence[Sequence[NDArray[np.int64]]], view: View | None) -> Generator[Tensor]:
        """Yield as ``stream``. What is copied from memory that is not pinned waits for the GPU: once, for all of it."""
        wanted = [np.concatenate(group) for group in groups]
        draws = self._draw(np.concatenate(wanted), view)
        with closing(self._raw(wanted)) as read:
            first = 0
            for group, raw in zip(groups, read, strict=True):
                drawn = None if draws is None else draws[first : first + len(raw)]
                images = self._prepare(raw.to(self.device, non_blocking=True), drawn, view)
                yield from torch.split(images, [len(rows) for rows in group])
                first += len(raw)

    def _raw(self, wanted: Sequence[NDArray[np.int64]]) -> Generator[Tensor]:
        """Yield the pixels of each, uint8 [b, s, s, 3], on the GPU or pinned for it."""
        if self._on_gpu is None:
            yield from preloaded(self._read, wanted)
            return
        places = torch.from_numpy(np.concatenate(wanted)).to(self.device)
        for rows in torch.split(places, [len(rows) for rows in wanted]):
            yield self._on_gpu.index_select(0, rows)

    def through(
        self,
        network: Callable[[Tensor], Answer],
        rows: NDArray[np.int64],
        precision: NumberFormat,
        view: View | None = None,
    ) -> Generator[Answer]:
        """Yield what a network in evaluation mode makes of the images, some at a time, in order; close it when done.

        Where the memory does not suffice for as many as are answered best, it is half as many from then on.

        Args:
            network: takes normalised images, float32 [b, 3, s, s].
            rows: int64 [n], of the pack.
            precision: of its arithmetic.
            view: the epoch's changes; None for the images as they are.
        """
        size = answering_batch(self.device, self.side)
        parts = batches(len(rows), size)
        with closing(self.stream([rows[positions] for positions in parts], view)) as stream:
            for images in stream:
                while len(images):
                    with torch.inference_mode(), autocast(self.device, precision):
                        answer, size = halved(partial(_first, network, images), size)
                    yield answer
                    images = images[size:]

    @cached_property
    def _on_gpu(self) -> Tensor | None:
        """The pixels in the GPU's memory; None where batches go elsewhere, or there are too many for it.

        That is more than a quarter of what is free, or of what the trial may use of it.
        """
        if self.device.type != "cuda":
            return None
        torch.cuda.empty_cache()  # what an earlier trial of this process has left is free
        free, total = torch.cuda.mem_get_info(self.device)
        # Of the current GPU: unlike the line above, PyTorch (2.11 to 2.14) takes no device without a number here.
        allowed = torch.cuda.get_per_process_memory_fraction() * total
        if self.pixels.nbytes > PACK_SHARE * min(free, allowed):
            return None
        resident = torch.empty(self.pixels.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(self.pixels), COPIED_AT_ONCE):
            block = slice(start, start + COPIED_AT_ONCE)
            resident[block] = torch.from_numpy(np.ascontiguousarray(self.pixels[block]))
        return resident

    @cached_property
    def _colours(self) -> Tensor:
        """Mean and std, float32 [2, 3, 1, 1]."""
        return torch.tensor([self.mean, self.std], device=self.device)[:, :, None, None]

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        """Return pixels in memory, uint8 [b, s, s, 3]; pinned where they go to a GPU."""
        shape = (len(rows), *self.pixels.shape[1:])
        raw = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.take(self.pixels, rows, axis=0, out=raw.numpy(), mode="clip")  # "raise" would take them twice
        return raw

    def _draw(self, rows: NDArray[np.int64], view: View | None) -> Tensor | None:
        """Return the numbers that decide what the view does to the images, float32 [b, DRAWS]."""
        if view is None:
            return None
        return draw_view(torch.from_numpy(rows), len(self.pixels), view.seed, view.epoch).to(self.device)

    def _prepare(self, raw: Tensor, draws: Tensor | None, view: View | None) -> Tensor:
        """Return uint8 [b, s, s, 3] on the device as ``batch`` does."""
        count, side = raw.shape[:2]
        images = torch.empty((count, 3, side, side), device=self.device, memory_format=torch.channels_last)
        mean, std = self._colours
        size = _block(self.device, count, side)
        for block in (slice(start, start + size) for start in range(0, count, size)):
            # In planes, which is what the passes want.
            planes = raw[block].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            if view is not None and draws is not None:
                planes = augment(planes, draws[block], view.augmentation)
            images[block] = planes.sub_(mean).div_(std)
        return images


@dataclass(frozen=True, slots=True)
class View:
    """One epoch's random changes of the images."""

    augmentation: Augmentation
    seed: int
    epoch: int


def batches(count: int, size: int, order: Tensor | None = None) -> Iterator[NDArray[np.int64]]:
    """Yield positions 0…count−1 in batches, int64 [b]; in training order (``order``) a last batch of one is left out.

    BatchNorm may be unable to take its variance, and the step would be as long as that of a whole batch. It is another
    image in every epoch. Batches of one are yielded where all are such: where ``size`` or ``count`` is 1.
    """
    positions = np.arange(count) if order is None else order.numpy()
    for start in range(0, count, size):
        batch = positions[start : start + size]
        if order is not None and len(batch) == 1 and size > 1 and count > 1:
            return
        yield batch


def grouped(parts: Sequence[NDArray[np.int64]], most: int) -> list[list[NDArray[np.int64]]]:
    """Return the parts in groups of neighbours, of at most so many positions; what is longer stands alone.

    >>> [[len(part) for part in group] for group in grouped([np.arange(n) for n in (2, 2, 1, 5, 3)], 4)]
    [[2, 2], [1], [5], [3]]
    """
    groups: list[list[NDArray[np.int64]]] = []
    room = 0
    for part in parts:
        if not groups or len(part) > room:
            groups.append([])
            room = most
        groups[-1].append(part)
        room -= len(part)
    return groups


def fetched(answers: Iterable[Mapping[str, Tensor]]) -> dict[str, NDArray[np.float32]]:
    """Return what a network made, batch after batch, put together in memory: float32 [n, …] by name.

    A GPU is waited for once, after the last batch; each is copied to pinned memory when it is done.
    """
    found = [{name: part.float().to("cpu", non_blocking=True) for name, part in each.items()} for each in answers]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return {name: np.concatenate([each[name].numpy() for each in found]) for name in found[0]}


def answering_batch(device: torch.device, side: int) -> int:
    """Return how many images of ``side`` pixels a network that does not train answers at a time, at least 1."""
    pixels = torch.get_num_threads() * ANSWERED_PIXELS if device.type == "cpu" else GPU_ANSWERED_PIXELS
    return max(1, pixels // side**2)


def _first(network: Callable[[Tensor], Answer], images: Tensor, count: int) -> Answer:
    return network(images[:count])


def _block(device: torch.device, count: int, side: int) -> int:
    """Return how many images are changed at a time: on a CPU a few for each thread, on a GPU the whole batch."""
    if device.type != "cpu":
        return count
    return torch.get_num_threads() * max(1, BLOCK_PIXELS // side**2)
