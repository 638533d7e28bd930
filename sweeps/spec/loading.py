"""Where a spec comes from: layers over a packaged YAML, or over the spec that a sweep was begun with.

packaged YAML  <  --spec FILE  <  --set KEY=VALUE  <  options of the command line        (later ones win)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from carcls.config import NEIGHBOUR_SETTINGS
from carcls.errors import SpecError, nearest, shown
from sweeps.spec.layers import layer_of_file, layer_of_overrides, layer_of_sets, merge, names_in
from sweeps.spec.space import Choice, Domain
from sweeps.spec.spec import FAMILIES, SweepSpec, Tree
from sweeps.spec.yaml_text import read_packaged

SPECS_FOLDER = Path(__file__).parent / "presets"


def load_spec(
    family: str,
    *,
    spec_file: Path | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    demo: bool = False,
) -> SweepSpec:
    """Return the spec that the packaged YAML, a file, ``--set`` and the command line's options make together.

    Without a spec file and without a data set of the user's, the demo preset is where it starts.

    Args:
        family: which family of trials.
        spec_file: a user's YAML; may be partial.
        sets: ``KEY=VALUE`` texts; see carcls.config.TrialConfig for the keys that need no path.
        overrides: spec fields or settings of trials by name (``trials``, ``data``, ``weights``, …); None says nothing.
        demo: start from the demo preset whatever else is given.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    if family not in FAMILIES:
        raise SpecError([f"family: must be a known one, got {shown(family)}." + nearest(family, FAMILIES)])
    mistakes: list[str] = []
    layers = [
        layer_of_file(Path(spec_file) if spec_file else None, mistakes),
        layer_of_sets(sets, mistakes),
        layer_of_overrides(overrides or {}, mistakes),
    ]
    own_data = any(isinstance(layer.get("data"), Mapping) and layer["data"].get("path") for layer in layers[1:])
    small = demo or not (spec_file or own_data)
    packaged = SPECS_FOLDER / f"{f'demo-{family}' if small else family}.yaml"
    return _lay_over(read_packaged(packaged), layers, mistakes)


def edit_spec(spec: SweepSpec, sets: Sequence[str], overrides: Mapping[str, Any]) -> SweepSpec:
    """Return the spec with ``--set`` texts and options laid over it.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    mistakes: list[str] = []
    return _lay_over(spec.to_tree(), [layer_of_sets(sets, mistakes), layer_of_overrides(overrides, mistakes)], mistakes)


def _lay_over(tree: Tree, layers: Sequence[Tree], mistakes: list[str]) -> SweepSpec:
    """Return the spec of a tree with all layers over it; none may turn the sweep into one of another family."""
    family = tree["family"]
    for layer in layers:
        tree = merge(tree, layer, mistakes)
        if tree["family"] != family:
            mistakes.append(_other_family(family, tree["family"]))
            tree["family"] = family
        mistakes += _without_neighbours(family, layer)
    # The last two are the command line's, where settings are named alone.
    bare = set().union(*(names_in(layer.get("fixed")) for layer in layers[-2:]))
    return SweepSpec.from_tree(tree, bare=bare, mistakes=mistakes)


def _without_neighbours(family: str, layer: Tree) -> list[str]:
    """Return what a layer says of neighbours where there are none; it would be silently without effect."""
    said = set().union(*(names_in(layer.get(section)) for section in ("config", "fixed", "search")))
    return [
        f"{name}: must be left out, since the {family} family has no neighbours. For those say carsweep run retrieval."
        for name in NEIGHBOUR_SETTINGS
        if name in said and family != "retrieval"
    ]


def _other_family(family: str, got: Any) -> str:
    remedy = f" For that one say carsweep run {got}." if got in FAMILIES else ""
    return f"family: must be {family}, which is what was asked for, got {shown(got)}.{remedy}"


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
