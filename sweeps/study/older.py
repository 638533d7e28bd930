"""What older versions wrote beside their journals."""

from __future__ import annotations

import json
from pathlib import Path

from sweeps.trial import Spent


def read_older_spending(folder: Path) -> dict[int, Spent]:
    """Return what trials took by the file of older versions, whose journals did not have it; by number.

    Each line says what a trial has taken in one session so far, and replaces the one before. Lines that a dying machine
    left torn do not count.
    """
    path = folder / "spending.jsonl"
    parts: dict[tuple[int, int], Spent] = {}
    walls: dict[int, float] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            session, wall = line["sitting"], line["wall"]
            spent = Spent(line["seconds"], line["epochs"], line["cpu_seconds"], line["gpu_seconds"])
            parts[line["trial"], session] = spent
        except (ValueError, KeyError, TypeError):
            continue
        walls[session] = max(walls.get(session, 0.0), wall)
    trials: dict[int, Spent] = {}
    for (number, _), spent in parts.items():
        trials[number] = trials.get(number, Spent(wall=sum(walls.values()))) + spent
    return trials
