"""What processes answer that are measured on a GPU; measuring itself is in tests/integration/engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sweeps.engine.probing import _step


@pytest.mark.parametrize(
    ("error", "fits"),
    [
        (ray.exceptions.OutOfMemoryError("The task was killed due to the node running low on memory."), False),
        (ray.exceptions.RayError("The worker died unexpectedly."), None),
    ],
)
def test_processes_that_the_memory_monitor_ends_are_too_many(
    monkeypatch: pytest.MonkeyPatch, error: Exception, fits: bool | None
) -> None:
    """So many do not fit into the memory of the machine; another death is a failure of the measuring."""

    def get(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ray, "wait", lambda *_, **__: ([], []))
    monkeypatch.setattr(ray, "get", get)
    process = SimpleNamespace(step=SimpleNamespace(remote=lambda: "answer"))
    if fits is None:
        with pytest.raises(ray.exceptions.RayError, match="died unexpectedly"):
            _step([process], lambda: None)
    else:
        assert _step([process], lambda: None) is None
