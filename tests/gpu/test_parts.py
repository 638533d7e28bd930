"""Parts of benchmarks/gpu.py that state facts, not speeds: what they claim must be so. Each is a process of its own."""

from __future__ import annotations

import pytest
from gpu import run
from gpu_part import NEEDS_A_GPU

FACTS = ["ladder", "assert", "quarantine", "pack", "neighbours", "export", "killed"]
ON_A_CPU = [pytest.param("assert", "cpu", marks=pytest.mark.slow), ("neighbours", "cpu"), ("export", "cpu")]


@pytest.mark.parametrize(
    ("part", "device"),
    [*ON_A_CPU, *(pytest.param(part, "cuda", marks=pytest.mark.gpu) for part in FACTS)],
)
def test_what_a_part_claims_is_so(part: str, device: str) -> None:
    """Its claims hold, and nothing of it is left running; its description says what it is about."""
    found = run(part, device, None, limit=400.0)
    assert found["error"] == ""
    assert len(found["claims"]) > 1
    assert [claim for claim in found["claims"] if claim["ok"] is False] == []


def test_a_part_that_needs_a_gpu_says_so_on_a_cpu() -> None:
    """It measures nothing and fails nothing there."""
    found = run("ladder", "cpu", None, limit=120.0)
    assert (found["skipped"], found["error"], found["figures"]) == (NEEDS_A_GPU, "", {})
