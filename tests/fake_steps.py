"""What a process measures on a fake card (see ``fake_card``): memory and speed as ``steps.json`` in its folder says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fake_card import FakeCards
from fake_cuda import Cuda, attach

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Told:
    """What a test says of the steps.

    Attributes:
        peak: MiB that a process takes besides its context.
        speeds: images per second of all processes, by how many compute at the same moment.
        context: MiB of a process's context.
        does: what each process does once it is prepared: computes, is ``silent``, has a ``bug``, or ``dies``.
    """

    peak: int
    speeds: Mapping[int, float]
    context: int = 512
    does: str = ""


def tell(cards: FakeCards, told: Told) -> None:
    """Have processes measure that from now on."""
    (cards.folder / "steps.json").write_text(json.dumps(asdict(told)))


def steps(load: Mapping[str, Any], _: Path) -> Iterator[dict[str, float]]:
    """Yield as ``carcls.training.shared.steps``; the card tells who computes with whom."""
    cuda = attach()
    told = json.loads((cuda.folder / "steps.json").read_text())
    cuda.allocate(told["context"])
    cuda.allocate(told["peak"])
    cuda.note("prepared", dict(load))
    yield _said(cuda, told, 0.0)
    while True:
        if told["does"] == "bug":
            raise ZeroDivisionError("a bug of the prober's")
        if told["does"] == "dies":
            os._exit(1)
        time.sleep(3600 if told["does"] == "silent" else 0)
        together = _count_together(cuda.folder)
        yield _said(cuda, told, told["speeds"][str(together)] / together)


def _count_together(folder: Path) -> int:
    """Return how many processes compute at the same moment, at most."""
    mine, most, end = folder / f"computing-{os.getpid()}", 0, time.monotonic() + LOOK_SECONDS
    mine.touch()
    while time.monotonic() < end:
        most = max(most, len(list(folder.glob("computing-*"))))
        time.sleep(0.02)
    mine.unlink()
    return most


def _said(cuda: Cuda, told: Mapping[str, Any], speed: float) -> dict[str, float]:
    size = told["peak"] * 2**20
    return {"images_per_second": speed, "peak": size, "held": size, "free": cuda.mem_get_info()[0]}
