"""The folder mlflow/ at the root must not stand in front of the mlflow library."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_mlflow_folder_holds_no_python() -> None:
    """No .py file in mlflow/, so that it can never be imported as a package of modules."""
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def test_import_from_the_root_finds_the_library() -> None:
    """``import mlflow`` in the root gives the library, which is a hard dependency, and not an empty namespace."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert any(line.startswith("mlflow>") for line in dependencies)
    code = "import importlib.util as u; print(u.find_spec('mlflow').origin)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    library = importlib.metadata.distribution("mlflow").locate_file("mlflow/__init__.py")
    assert found.stdout.strip() == str(library), found.stderr
