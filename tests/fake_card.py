"""Fake NVIDIA cards, told by a test, under the unchanged carsweep, Ray and its processes: the fixture ``fake_cards``.

A folder connects its parts:

* a command ``nvidia-smi`` on PATH, which answers ``-L``, ``--query-gpu`` and ``--query-compute-apps`` in CSV;
* ``fake_cuda.attach()``, which a runner calls in its trial's process: ``allocate`` takes memory that every process
  sees, or is refused in PyTorch's words; within ``meant_by_torch`` names of ``torch.cuda`` mean the card;
* ``fake_cuda.run``, a runner that takes the memory that its trial's dropout needs (``light_work(…, "fake_cuda", …)``);
* ``fake_site``, a folder for PYTHONPATH, has the real trials of a command compute on the CPU while they hold the card.

What a process holds is given back when it dies. Nothing computes: no tensor can be made on it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carcls.machine import _listing

GIB = 1024
"""MiB."""
FOLDER = "FAKE_CARDS"
"""Names the folder in the environment, which trials' processes inherit."""


@dataclass(frozen=True)
class Card:
    """One GPU.

    Attributes:
        uuid, name: as nvidia-smi prints them.
        total: its memory, MiB.
        parts: UUIDs of its parts (MIG).
        processes: what others hold of it, each a process id, a name and MiB.
        hidden: MiB that others hold whose processes are not told, as in a container.
    """

    uuid: str = "GPU-aaaa-1"
    name: str = "NVIDIA H200"
    total: int = 140 * GIB
    parts: Sequence[str] = ()
    processes: Sequence[tuple[int, str, int]] = ()
    hidden: int = 0


@dataclass
class FakeCards:
    """The cards of this machine while a test runs.

    Attributes:
        folder: of what both halves share.
        cards: see ``tell``.
    """

    folder: Path
    cards: tuple[Card, ...] = ()

    def tell(self, *cards: Card) -> None:
        """Have the machine these cards from now on."""
        self.cards = cards
        (self.folder / "ledger").touch()
        (self.folder / "cards.json").write_text(json.dumps([{**asdict(card), "held": []} for card in cards]))
        script = self.folder / "nvidia-smi"
        code = Path(__file__).with_name("fake_smi.py").read_text()
        script.write_text(f"#!{sys.executable} -IS\n{code}")
        script.chmod(0o755)
        _listing.cache_clear()

    def forget(self) -> None:
        """Have no process hold anything, and nothing been told and asked."""
        for name in ("ledger", "events", "asked"):
            (self.folder / name).write_text("")

    def break_smi(self, script: str) -> None:
        """Have ``nvidia-smi`` do what a line of shell says, but list the cards."""
        names = "\n".join(f"GPU {number}: {card.name} (UUID: {card.uuid})" for number, card in enumerate(self.cards))
        code = f"#!/bin/sh\nif [ \"$1\" = -L ]; then cat <<'END'\n{names}\nEND\nexit\nfi\n{script}\n"
        (self.folder / "nvidia-smi").write_text(code)

    @property
    def asked(self) -> list[str]:
        """What nvidia-smi was asked, one line of words each."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def told(self) -> list[dict[str, Any]]:
        """What trials' processes did with the card: ``pid``, ``visible``, ``event`` and its value, oldest first."""
        file = self.folder / "events"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def fake_cards_in(folder: Path, environment: Any) -> Iterator[FakeCards]:
    """Have the fake ``nvidia-smi`` first on PATH; ``environment`` is a ``pytest.MonkeyPatch``."""
    folder.mkdir()
    environment.setenv("PATH", str(folder), prepend=os.pathsep)
    environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    environment.setenv(FOLDER, str(folder))
    environment.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = FakeCards(folder)
    cards.tell(Card())
    yield cards
    _listing.cache_clear()
