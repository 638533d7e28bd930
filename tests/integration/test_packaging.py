"""The wheel holds what a user needs and nothing else, and the lock file is fit for any machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of what the build reads, so that the tree stays clean."""
    source = tmp_path_factory.mktemp("source")
    for package in ("carcls", "sweeps"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("tests", "mlflow", "docs", "cluster", "benchmarks"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source / file)
    built = source / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(built)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=120)
    (file,) = built.glob("carsweep-*.whl")
    return zipfile.ZipFile(file)


def test_wheel_has_the_command_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """What is in the tree's two packages is in the wheel: no tests, no docs beside the libraries of others."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"carcls", "sweeps"}
    files = {path for package in ("carcls", "sweeps") for path in (ROOT / package).rglob("*") if path.is_file()}
    wanted = {p.relative_to(ROOT).as_posix() for p in files if p.suffix != ".pyc"}
    assert "sweeps/spec/presets/transfer.yaml" in wanted
    assert wanted <= set(wheel.namelist())
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "carsweep = sweeps.cli:main" in wheel.read(entry).decode()


def test_lock_file_is_pins_and_nothing_else() -> None:
    """Each line is name==version: no index, no path, no local build that other machines cannot have."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][a-z0-9.]*", line)] == []


def test_lock_file_pins_every_direct_dependency() -> None:
    """What pyproject.toml asks for, the lock file pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split(r"[\[<>=;]", line)[0].strip().lower().replace("_", "-") for line in wanted}
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert names <= {line.split("==")[0] for line in text.splitlines()}
