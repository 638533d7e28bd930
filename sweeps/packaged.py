"""The specs that come with carsweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweeps.space import Domain
from sweeps.spec import SweepSpec
from sweeps.spec_text import read_packaged

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


def is_packaged(family: str, setting: str, domain: Domain) -> bool:
    """Tell whether a packaged spec of the family searches the setting so: then nobody need have given it."""
    trees = (read_packaged(packaged.path) for packaged in packaged_specs())
    specs = (SweepSpec.from_tree(tree) for tree in trees if tree["family"] == family)
    return any(spec.search.get(setting) == domain for spec in specs)
