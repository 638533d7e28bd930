"""What tests on a card share. Without one they are skipped; their variants on the CPU run everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import carcls.machine
from sweeps.engine.session import RaySession

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # whose parts and trials the tests hold to what they claim


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"no CUDA GPU: PyTorch {torch.__version__} can use none here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the device on which this process computes, as a trial that was given a whole GPU or none."""
    monkeypatch.setattr(carcls.machine, "_held", [float(request.param == "cuda")])
    return str(request.param)


@pytest.fixture(scope="module")
def session() -> Iterator[RaySession]:
    """One Ray for a module's sweeps, with what this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(BENCHMARKS), prepend=os.pathsep)
        with RaySession() as session:
            yield session
