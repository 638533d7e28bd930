"""A fake card in the process of a trial, and what runs there (see ``fake_card``).

PyTorch takes seconds to load, so the limit of a process is the share that it was given; in ``fake_site``, where PyTorch
is loaded anyway, it is what carsweep tells PyTorch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fake_card import FOLDER, GIB
from filelock import FileLock

from carcls.config import TrialConfig
from carcls.machine import held_gpus, visible_uuids
from carcls.outcome import Measurement, Outcome


class OutOfMemoryError(RuntimeError):
    """As ``torch.OutOfMemoryError``."""


@dataclass
class Cuda:
    """The card as a trial's process has it, and what ``torch.cuda`` means there; the folder has what lasts."""

    folder: Path
    fraction: float = 1.0

    def allocate(self, mib: int) -> None:
        """Take memory, in MiB, until ``free``.

        Raises:
            OutOfMemoryError: the card has no more, or the process may take no more of it.
        """
        with FileLock(self.folder / "lock"):
            card, mine, free = self._state(self.visible()[0])
            allowed = int(self.fraction * card["total"])
            if mib > free or mine + mib > allowed:
                self.note("refused", mib)
                raise OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {mib / GIB:.2f} GiB. GPU 0 has a total capacity of "
                    f"{card['total'] / GIB:.2f} GiB of which {free / GIB:.2f} GiB is free. Including non-PyTorch "
                    f"memory, this process has {mine / GIB:.2f} GiB memory in use. {allowed / GIB:.2f} GiB allowed; "
                    f"Of the allocated memory {mine / GIB:.2f} GiB is allocated by PyTorch, and 0 bytes is reserved by "
                    "PyTorch but unallocated."
                )
            self._enter(card["uuid"], mib)
        self.note("allocated", mib)

    def free(self) -> None:
        """Give back what this process holds."""
        with FileLock(self.folder / "lock"):
            for card, mine, _ in map(self._state, self.visible()):
                self._enter(card["uuid"], -mine)

    @property
    def events(self) -> Path:
        """The file of what happened."""
        return self.folder / "events"

    def note(self, event: str, value: Any) -> None:
        """Keep what happened for the test."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        with self.events.open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), "visible": visible, "event": event, "value": value}) + "\n")

    def _enter(self, uuid: str, mib: int) -> None:
        with (self.folder / "ledger").open("a") as file:
            file.write(json.dumps({"uuid": uuid, "pid": os.getpid(), "mib": mib}) + "\n")

    def _state(self, card: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        """Return a card, what this process holds of it, and what is free, in MiB."""
        entries = map(json.loads, (self.folder / "ledger").read_text().splitlines())
        on_it = [one for one in entries if one["uuid"] == card["uuid"] and Path(f"/proc/{one['pid']}").exists()]
        mine = sum(one["mib"] for one in on_it if one["pid"] == os.getpid())
        others = card["hidden"] + sum(mib for *_, mib in card["processes"])
        return card, mine, card["total"] - others - sum(one["mib"] for one in on_it)

    def visible(self) -> list[dict[str, Any]]:
        """Return the cards that CUDA_VISIBLE_DEVICES leaves: numbers, UUIDs or their beginnings, or parts (MIG)."""
        cards: list[dict[str, Any]] = json.loads((self.folder / "cards.json").read_text())
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if listed is None:
            return cards
        found = []
        for word in filter(None, (word.strip() for word in listed.split(","))):
            named = [card for card in cards if any(u.startswith(word) for u in (card["uuid"], *card["parts"]))]
            found += [cards[int(word)]] if word.isdigit() and int(word) < len(cards) else named[:1]
        return found

    def is_available(self) -> bool:
        """Tell whether there is one."""
        return bool(self.visible())

    def init(self) -> None:
        """Begin to use it."""
        if not self.visible():
            raise RuntimeError("No CUDA GPUs are available")

    def set_per_process_memory_fraction(self, fraction: float, _: Any = None) -> None:
        """Limit this process to a part of the card."""
        self.init()
        if not isinstance(fraction, float) or not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        self.fraction = fraction
        self.note("limit", fraction)

    def get_per_process_memory_fraction(self, _: Any = None) -> float:
        """Return the part that this process may use."""
        return self.fraction

    def mem_get_info(self, _: Any = None) -> tuple[int, int]:
        """Return what is free, and all there is, in bytes."""
        self.init()
        card, _mine, free = self._state(self.visible()[0])
        return free * 2**20, card["total"] * 2**20

    def get_device_name(self, _: Any = None) -> str:
        """Return its name."""
        self.init()
        return str(self.visible()[0]["name"])


_NAMES = (
    "is_available", "init", "set_per_process_memory_fraction",
    "get_per_process_memory_fraction", "mem_get_info", "get_device_name",
)  # fmt: skip
_attached: list[Cuda] = []


def attach() -> Cuda:
    """Return the card of this process."""
    if not _attached:
        _attached.append(Cuda(Path(os.environ[FOLDER])))
    return _attached[0]


@contextmanager
def meant_by_torch() -> Iterator[Cuda]:
    """Have ``torch.cuda`` mean the card of this process; not for ever, since PyTorch itself would ask for more."""
    import torch

    cuda = attach()
    with ExitStack() as patched:
        for name in _NAMES:
            patched.enter_context(patch.object(torch.cuda, name, getattr(cuda, name)))
        yield cuda


def _take(mib: int) -> Cuda:
    """Take memory as a trial or a task does that was given a part of a GPU."""
    cuda, share = attach(), held_gpus()
    if share:
        cuda.fraction = min(1.0, share)
        cuda.allocate(mib)
    return cuda


def load(path: Path) -> dict[str, Any]:
    """Return the data set of ``run``.

    ``needs`` are MiB by dropout; a trial waits until so many have begun as ``together`` says.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def run(config: TrialConfig, data: dict[str, Any], _: Any, report: Callable[[Measurement], None]) -> Outcome:
    """Take the memory that the trial's dropout needs, in parts of micro-batches the less, and report its epochs."""
    cuda, key = attach(), f"{config.dropout:.2f}"
    cuda.note("began", {"key": key, "at": time.time(), "micro_batch": config.micro_batch, "given": held_gpus()})
    part = (config.micro_batch or config.batch_size) / config.batch_size
    _take(math.ceil(data.get("needs", {}).get(key, GIB) * part))
    while sum('"began"' in line for line in cuda.events.read_text().splitlines()) < data.get("together", 0):
        time.sleep(0.05)
    for epoch in range(1, config.epochs + 1):
        report(Measurement(epoch, {"val_accuracy": 1 - config.dropout}))
    cuda.free()
    cuda.note("ended", {"key": key, "at": time.time()})
    return Outcome({"val_accuracy": 1 - config.dropout}, config.epochs, 0.0, False, "m", "p")


class Holder:
    """A process that keeps what Ray gave it."""

    def sees(self) -> list[str]:
        """Return the UUIDs of the GPUs that it sees."""
        return visible_uuids()

    def numbered_by(self) -> str:
        """Return what CUDA numbers GPUs by."""
        return os.environ["CUDA_DEVICE_ORDER"]


def use_memory(_: Any, __: Any, *, mib: int, micro_batch: int = 64) -> int:
    """Take memory as a task (``sweeps.engine.task.run_task``) and give it back; return the process's id.

    In micro-batches, of batches of 64, it takes the less.
    """
    _take(mib * micro_batch // 64).free()
    return os.getpid()


def break_gpu(_: Any, __: Any, *, times: int) -> int:
    """Fail as CUDA does, so many times in all; return which time it was."""
    cuda = attach()
    cuda.note("used", times)
    done = sum(json.loads(line)["value"] == times for line in cuda.events.read_text().splitlines())
    if done <= times:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return done
