"""Who may import whom: the arrows of the design, held against the source."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Layers of carcls, lowest first; a module may import from its own layer and from lower ones.
CARCLS_LAYERS: list[set[str]] = [
    {"carcls.errors", "carcls.machine", "carcls.gpus", "carcls.disk", "carcls.helpers"},
    {"carcls.catalog", "carcls.unfreezing"},
    {"carcls.config", "carcls.architecture"},
    {"carcls.outcome", "carcls.seeding", "carcls.stages"},
    {"carcls.data", "carcls.evaluation", "carcls.models", "carcls.neighbours"},
    {"carcls.training", "carcls.export"},
    {"carcls.families", "carcls.serving"},
]
# Rooms of sweeps, lowest first, after the modules that every room may use.
SWEEPS_LAYERS: list[set[str]] = [
    {
        "sweeps.text",
        "sweeps.tables",
        "sweeps.interrupts",
        "sweeps.lock",
        "sweeps.waits",
        "sweeps.trial",
        "sweeps.failures",
    },
    {"sweeps.spec"},
    {"sweeps.study"},
    {"sweeps.results"},
    {"sweeps.report"},
    {"sweeps.tracking"},
    {"sweeps.engine"},
    {"sweeps.run"},
    {"sweeps.cli"},
    {"sweeps.api"},
    {"sweeps", "sweeps.__main__"},
]
# What of carcls the orchestrator may use.
SWEEPS_USES = {
    "carcls.config",
    "carcls.architecture",
    "carcls.catalog",
    "carcls.disk",
    "carcls.errors",
    "carcls.helpers",
    "carcls.gpus",
    "carcls.machine",
    "carcls.outcome",
    "carcls.data",
    "carcls.stages",
    "carcls.stages_disk",
    "carcls.families",
    "carcls.export",
    "carcls.serving",
    "carcls.seeding",
    "carcls.unfreezing",
    "carcls.evaluation",
}
LIBRARY_USERS = {
    "optuna": {"sweeps.study"},
    "ray": {"sweeps.engine"},
    "mlflow": {"sweeps.tracking"},
    "click": {"sweeps.cli"},
    "rich": {"sweeps.cli", "sweeps.tables", "sweeps.text"},
    "jinja2": {"sweeps.report"},
    "starlette": {"carcls.serving"},
    "uvicorn": {"sweeps.cli"},
}
TORCH = {"torch", "torchvision", "timm"}
TORCH_FREE_DATA = {"manifest", "layouts", "splits", "pack", "dataset", "demo"}


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of both packages by its dotted name."""
    found = {}
    for package in ("carcls", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports_of(name: str, *, lazy: bool = True, typing: bool = False) -> set[str]:
    """Return the dotted names that a module imports; ``lazy`` ones are inside functions."""
    nodes = ast.walk(modules()[name]) if lazy else _top_level(modules()[name])
    skipped = set() if typing else _type_checking_nodes(modules()[name])
    found: set[str] = set()
    for node in nodes:
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules() else str(node.module))
    return found


def _top_level(tree: ast.Module) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, inside)]
    return nodes


def _type_checking_nodes(tree: ast.Module) -> set[ast.AST]:
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def unit_of(module: str, layers: list[set[str]]) -> str:
    """Return the part of the table that a module belongs to (``sweeps.spec.yaml_text`` to ``sweeps.spec``)."""
    head = ".".join(module.split(".")[:2])
    parts = {part for layer in layers for part in layer}
    owners = [part for part in parts if head == part or head.startswith(f"{part}_")]
    assert owners, f"{module} has no place in the table of tests/unit/test_imports.py"
    return max(owners, key=len)


def layer_of(module: str, layers: list[set[str]]) -> int:
    """Return the height of a module in its package."""
    return next(height for height, layer in enumerate(layers) if unit_of(module, layers) in layer)


@pytest.mark.parametrize(("package", "layers"), [("carcls", CARCLS_LAYERS), ("sweeps", SWEEPS_LAYERS)])
def test_no_module_imports_from_a_higher_layer(package: str, layers: list[set[str]]) -> None:
    """Every import inside a package points to the same layer or down."""
    wrong = [
        f"{name} imports {target}"
        for name in modules()
        if name.startswith(f"{package}.")
        for target in imports_of(name, typing=True)
        if target.startswith(f"{package}.") and layer_of(target, layers) > layer_of(name, layers)
    ]
    assert not wrong


def test_carcls_knows_nothing_of_sweeps() -> None:
    """What a trial does can be used without the orchestrator."""
    wrong = [n for n in modules() if n.startswith("carcls") and any(t.startswith("sweeps") for t in imports_of(n))]
    assert not wrong


def test_sweeps_uses_only_the_doors_of_carcls() -> None:
    """The orchestrator never reaches into models or training."""
    wrong = [
        f"{name} imports {target}"
        for name in modules()
        if name.startswith("sweeps")
        for target in imports_of(name)
        if target.startswith("carcls.") and ".".join(target.split(".")[:2]) not in SWEEPS_USES
    ]
    assert not wrong


def test_rooms_are_entered_by_their_faces() -> None:
    """What a room offers to others stands in the FACE of its package, and nothing else does."""
    offered = {
        (f"{package}.{module}", name)
        for package, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACE"
        for module, names in ast.literal_eval(node.value).items()
        for name in names
    }
    taken = {
        (node.module, alias.name)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.count(".") == 2
        if node.module.startswith(("carcls.", "sweeps.")) and name.split(".")[:2] != node.module.split(".")[:2]
        for alias in node.names
    }
    assert sorted(taken - offered) == []
    assert sorted(offered - taken) == []


@pytest.mark.parametrize("library", LIBRARY_USERS)
def test_each_foreign_library_is_imported_only_where_the_table_says(library: str) -> None:
    """One place touches one foreign library, even inside a function."""
    users = {name for name in modules() for target in imports_of(name) if target.split(".")[0] == library}
    wrong = [name for name in users if unit_of(name, CARCLS_LAYERS + SWEEPS_LAYERS) not in LIBRARY_USERS[library]]
    assert not wrong


def test_sweeps_never_touches_tensors_when_imported() -> None:
    """Nothing of the orchestrator imports torch at its top."""
    wrong = [n for n in modules() if n.startswith("sweeps") and roots(imports_of(n, lazy=False)) & TORCH]
    assert not wrong


def test_data_is_read_without_torch() -> None:
    """Manifests, splits, packs and demo cars import no torch, even inside a function."""
    names = [f"carcls.data.{name}" for name in TORCH_FREE_DATA if f"carcls.data.{name}" in modules()]
    wrong = [name for name in names if any(roots(imports_of(seen)) & TORCH for seen in reachable(name))]
    assert names
    assert not wrong


def test_no_submodule_takes_a_name_that_its_package_uses() -> None:
    """Importing ``package.gc`` replaces the ``gc`` that the package imported: it must call that otherwise."""
    packages = {name.rpartition(".")[0] for name in modules() if "." in name}
    wrong = []
    for package in packages:
        below = {name.rpartition(".")[2]: name for name in modules() if name.rpartition(".")[0] == package}
        for node in _top_level(modules()[package]):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None)
                taken = {(a.asname or a.name): f"{module}.{a.name}" if module else a.name for a in node.names}
                wrong += [f"{package}: {name}" for name, full in taken.items() if below.get(name, full) != full]
    assert not wrong


def test_no_import_cycle() -> None:
    """No module needs itself, not even through an import inside a function, which would hide a circle."""
    cycles = [name for name in modules() if name in reachable(name, lazy=True)]
    assert not cycles


def reachable(name: str, *, lazy: bool = False) -> set[str]:
    """Return our own modules that importing ``name`` imports; ``name`` itself only through a cycle."""
    seen: set[str] = set()
    waiting = [t for t in imports_of(name, lazy=lazy) if t in modules()]
    while waiting:
        target = waiting.pop()
        if target not in seen:
            seen.add(target)
            waiting += [t for t in imports_of(target, lazy=lazy) if t in modules()]
    return seen


def roots(names: set[str]) -> set[str]:
    """Return the first parts of dotted names."""
    return {name.split(".")[0] for name in names}


def test_each_imported_library_is_a_declared_dependency() -> None:
    """The wheel asks for everything it imports; timm brings the hub that it downloads from.

    What an extra brings is imported where it is used, but by the example that is written beside an exported model.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[<>=]", line)[0].lower().replace("-", "_") for line in project["dependencies"]}
    distribution_of = {"PIL": "pillow", "sklearn": "scikit_learn", "yaml": "pyyaml"}
    distribution_of |= {"huggingface_hub": "timm", "pydantic_core": "pydantic"}
    extras = [line for name in ("heic", "onnx") for line in project["optional-dependencies"][name]]
    extra = {re.split(r"[\[<>=]", line)[0].replace("-", "_") for line in extras}
    early = [n for n in modules() if n != "carcls.export.example" and roots(imports_of(n, lazy=False)) & extra]
    assert early == []
    used = set().union(*(roots(imports_of(name)) for name in modules())) - {"carcls", "sweeps"} - extra
    foreign = {distribution_of.get(name, name) for name in used if name not in sys.stdlib_module_names}
    assert foreign <= declared


def test_no_class_name_is_there_twice() -> None:
    """A name means one thing in all of the tree."""
    names = Counter(
        node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def room_of(module: str) -> str:
    """Return the room that a module lies in (``carcls.data.decode`` to ``carcls.data``)."""
    return ".".join(module.split(".")[:2])


@cache
def longest_chain(module: str) -> tuple[str, ...]:
    """Return the longest chain of imports from a module through its own room."""
    own = (t for t in imports_of(module) if t in modules() and t != module and room_of(t) == room_of(module))
    return (module, *max(map(longest_chain, own), key=len, default=()))


def test_no_chain_of_modules_within_a_room_is_longer_than_four() -> None:
    """What a room does is found in a few steps."""
    chains = [longest_chain(name) for name in modules()]
    assert [" > ".join(c) for c in chains if len(c) > 4] == []


def test_no_chain_of_rooms_is_longer_than_eight() -> None:
    """The rooms of the orchestrator lie on eight floors at most."""
    below: dict[str, set[str]] = {}
    for name in modules():
        for target in imports_of(name):
            if name.startswith("sweeps.") and target.startswith("sweeps.") and room_of(target) != room_of(name):
                below.setdefault(room_of(name), set()).add(room_of(target))

    @cache
    def floors(room: str) -> int:
        return 1 + max((floors(other) for other in below.get(room, ())), default=0)

    assert max(map(floors, below)) <= 8
