"""One of each that docs/extending.md tells of, added in a module of its own through public names only."""

from __future__ import annotations

import ast
import copy
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from carcls import catalog
from carcls.config import TrialConfig
from carcls.data import layouts
from carcls.data.config import DataSummary
from carcls.errors import DataError, SpecError
from carcls.families import run_trial
from sweeps import failures
from sweeps.cli.summary import print_result
from sweeps.results import leaderboard
from sweeps.results.result import SweepResult
from sweeps.run.comparison import compare
from sweeps.run.several import with_start
from sweeps.spec import samplers
from sweeps.spec.loading import load_spec
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.study import sampling
from sweeps.tracking import gates, promotion, pyfunc
from sweeps.tracking.models import ModelFiles
from sweeps.tracking.store import check_tracking
from sweeps.trial import TrialRecord

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = '''
"""One of each."""

from optuna.samplers import RandomSampler

from carcls.catalog import BACKBONES, FAMILIES, BackboneRecord, FamilyRecord
from carcls.data.layouts import READERS, Reader
from carcls.data.manifest import ImageRecord, Manifest
from carcls.outcome import Outcome
from sweeps.failures import POLICIES, Policy
from sweeps.results.leaderboard import COLUMNS
from sweeps.spec.samplers import SAMPLERS, SamplerKind
from sweeps.study.sampling import BUILDERS, Builder
from sweeps.tables import Column
from sweeps.text import percent
from sweeps.tracking.gates import GATES, Gate, Refusal


class NoLicense(Exception):
    """A library has no license."""


class EchoTrial:
    """A trial that measures its dropout."""

    def __init__(self, config, data, stages):
        self.config = config

    def run(self, report):
        """Measure."""
        return Outcome({"val_accuracy": self.config.dropout}, 1, 0.0, reused=False, model="", predictions="")


def read_list(folder, config):
    """Read a list of training images and their classes."""
    if not folder.has("list.txt"):
        return None
    root = folder.path
    paths, labels = zip(*(line.split() for line in (root / "list.txt").read_text().splitlines()))
    classes = tuple(sorted(set(labels)))
    images = (ImageRecord(path, classes.index(label), "train", None) for path, label in zip(paths, labels))
    return Manifest(root, classes, tuple(images))


def is_no_friday(contest):
    """Refuse everything."""
    raise Refusal(f"Version {contest.challenger} came on a Friday. Wait until Monday.")


SAMPLERS["dice"] = SamplerKind("throws dice", several_objectives=False)
BUILDERS["dice"] = Builder(lambda seed, _: RandomSampler(seed), learns=False)
BACKBONES["tiny"] = BackboneRecord("tiny", "timm", "test_resnet", parameters=0.5)
READERS.insert(0, Reader("list.txt", read_list))
COLUMNS.append(Column("recall", lambda row: row.trial.measured("val_recall"), "recall here", percent))
POLICIES["license"] = Policy(raised=lambda error: isinstance(error, NoLicense), then="again", counts=True)
FAMILIES["echo"] = FamilyRecord("extension:EchoTrial", "echoes: nothing is trained", "dropout=0.5", neighbours=True)
GATES.insert(0, Gate("friday", "It is no Friday.", is_no_friday, of_first=True))
'''
TABLES: list[tuple[ModuleType, str]] = [
    (samplers, "SAMPLERS"),
    (sampling, "BUILDERS"),
    (catalog, "BACKBONES"),
    (catalog, "FAMILIES"),
    (layouts, "READERS"),
    (leaderboard, "COLUMNS"),
    (failures, "POLICIES"),
    (gates, "GATES"),
]


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import the module; afterwards the tables are what they were."""
    (tmp_path / "extension.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(tmp_path)
    before = [copy.copy(getattr(module, name)) for module, name in TABLES]
    yield __import__("extension")
    del sys.modules["extension"]
    for (module, name), held in zip(TABLES, before, strict=True):
        table: Any = getattr(module, name)
        table.clear()
        (table.update if isinstance(table, dict) else table.extend)(held)


def test_the_extension_uses_public_names_that_the_document_tells_of() -> None:
    """No name of ours in it begins with an underscore, and docs/extending.md names each table, and its file."""
    imported = [node for node in ast.walk(ast.parse(EXTENSION)) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imported for alias in node.names]
    assert not [name for name in names if name.startswith("_")]
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for module, name in TABLES:
        assert name in names
        assert f"`{name}`" in text
        assert f"`{module.__name__.replace('.', '/')}.py`" in text
    paths = re.findall(r"`([a-z_/]+\.(?:py|md))`", text)
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.usefixtures("extension")
def test_a_sampler_proposes() -> None:
    """A spec names it, one that it cannot take is refused, and what it draws lies in the space."""
    assert load_spec("transfer", sets=["sampler=dice"]).sampler == "dice"
    with pytest.raises(SpecError, match="dice"):
        load_spec("transfer", sets=["sampler=dice", "objectives=[accuracy, f1]"])
    sampler = sampling.Sampler({"dropout": Range(0.2, 0.3)}, seed=0, name="dice")
    assert 0.2 <= sampler.draw([], 0)["dropout"] <= 0.3


@pytest.mark.usefixtures("extension")
def test_a_backbone_is_built() -> None:
    """A config names it, and timm builds it."""
    import torch

    from carcls.models.classifier import build_classifier

    config = TrialConfig(backbone="tiny", weights="random", image_size=64)
    assert build_classifier(config, classes=3).eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.usefixtures("extension")
def test_a_layout_is_read(tmp_path: Path) -> None:
    """A folder of no other layout is read by it."""
    with pytest.raises(DataError, match="must be in a known layout"):
        layouts.read_layout(tmp_path)
    (tmp_path / "list.txt").write_text("a.jpg audi\nb.jpg bmw\n")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    listed = layouts.read_layout(tmp_path)
    assert (listed.classes, [image.path for image in listed.images]) == (("audi", "bmw"), ["a.jpg", "b.jpg"])


@pytest.mark.usefixtures("extension")
def test_a_column_is_in_table_and_json() -> None:
    """The end of a sweep shows it; ``leaderboard.json``, which MLflow keeps, and ``compare --json`` have it."""
    config = TrialConfig().model_dump()
    trial = TrialRecord(0, None, {}, config, "complete", {"val_accuracy": 0.5, "val_recall": 0.25}, 1, 1.0)
    board, data = leaderboard.Leaderboard((trial,), config, 100), DataSummary("cars", "abc", 9, 2, {"validation": 9})
    shown, result = io.StringIO(), SweepResult("a", "echo", ".", data, board, 0, None, None, "", 1.0)
    print_result(Console(file=shown, width=120), result)
    assert "recall here" in shown.getvalue()
    assert "25.0%" in shown.getvalue()
    (group,) = compare([result], {})
    assert board.as_dict()["rows"][0]["recall"] == group.as_dict()["sweeps"][0]["top"][0]["recall"] == 0.25


def test_a_kind_of_failure_is_recognised(extension: ModuleType) -> None:
    """What its exception means is what its policy says."""
    failure = failures.failure_of(extension.NoLicense("none is left."))
    assert (failure.kind, failure.reason) == ("license", "none is left.")
    assert failures.POLICIES[failure.kind].then == "again"
    assert failures.failure_of(RuntimeError("x")).kind == "bug"


@pytest.mark.usefixtures("extension")
def test_a_family_runs_and_is_listed(tmp_path: Path) -> None:
    """Its class runs a trial that names it, its model has the columns of neighbours, `carsweep run` has a command."""
    nothing: Any = None
    outcome = run_trial(TrialConfig(family="echo", dropout=0.25), nothing, nothing, lambda _: None)
    assert outcome.metrics == {"val_accuracy": 0.25}
    assert "neighbour_images" in pyfunc.signature_of("echo").outputs.input_names()
    begun = SimpleNamespace(family="transfer", best=SimpleNamespace(config=TrialConfig(dropout=0.75).model_dump()))
    (start,) = with_start(SweepSpec(family="echo", name="echoes", trials=1), tmp_path, [begun]).starts
    assert start["dropout"] == 0.75
    code = "import extension; from sweeps.cli.app import carsweep; carsweep(['run', '--help'])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.search(r"^  echo +Echoes: nothing is trained\.$", shown.stdout, flags=re.MULTILINE)


@pytest.mark.usefixtures("extension")
def test_a_gate_refuses_a_promotion(tmp_path: Path) -> None:
    """A challenger that it refuses does not become champion, and is told why."""
    store = check_tracking(None, tmp_path)
    client, name = store.client(), "carsweep-transfer"
    client.create_registered_model(name)
    version = client.create_model_version(name, source=f"file://{tmp_path}").version
    client.set_registered_model_alias(name, "challenger", version)
    promoted = promotion.promote(store, "transfer", ModelFiles(store))
    assert (promoted.accepted, promoted.gate) == (False, "friday")
    assert promoted.reason == "Version 1 came on a Friday. Wait until Monday."
    assert "champion" not in client.get_registered_model(name).aliases
