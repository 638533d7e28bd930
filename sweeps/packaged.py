"""The specs that come with carsweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPECS_FOLDER = Path(__file__).parent / "specs"


@dataclass(frozen=True, slots=True)
class PackagedSpec:
    """A spec that comes with carsweep: its name, the command that runs it (its first comment), and its file."""

    name: str
    command: str
    path: Path


def packaged_specs() -> tuple[PackagedSpec, ...]:
    """Return the specs that come with carsweep, by name."""
    return tuple(
        PackagedSpec(path.stem, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "), path)
        for path in sorted(SPECS_FOLDER.glob("*.yaml"))
    )
