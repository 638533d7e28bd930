"""The specs that come with carsweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.space import Choice, Domain
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


def cut_neighbours(spec: SweepSpec, gallery: int) -> SweepSpec:
    """Return the spec without those choices of k that exceed the gallery, where nobody gave them; else the spec."""
    domain = spec.search.get("k")
    if not isinstance(domain, Choice):
        return spec
    fitting = tuple(k for k in domain.choices if int(k) <= gallery)
    if fitting in ((), domain.choices) or not is_packaged(spec.family, "k", domain):
        return spec
    return spec.model_copy(update={"search": {**spec.search, "k": replace(domain, choices=fitting)}})


def with_neighbours_of(before: SweepSpec, spec: SweepSpec) -> SweepSpec:
    """Return the spec with no more neighbours than those that the same sweep was begun with, which its gallery has."""
    neighbours = before.search.get("k")
    return spec if neighbours is None else cut_neighbours(spec, int(max(neighbours.ends())))
