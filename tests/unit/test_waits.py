"""What a sweep waits for is said once it takes long."""

from __future__ import annotations

import time

import pytest

from sweeps import waits
from sweeps.waits import Waiting


def test_only_a_long_wait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over in time is quiet; what is not says what it waits for, once, also when it ends in an error."""
    monkeypatch.setattr(waits, "QUIET_SECONDS", 0.2)
    told: list[str] = []
    with Waiting(told.append, "short …"):
        pass
    with pytest.raises(OSError, match="gone"), Waiting(told.append, "failing …"):
        raise OSError("gone")
    with Waiting(told.append, "long …"):
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
    time.sleep(0.3)
    assert told == ["long …"]


def test_a_wait_for_trials_is_over_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a trial has begun there is nothing to be told."""
    monkeypatch.setattr(waits, "QUIET_SECONDS", 0.2)
    told: list[str] = []
    with Waiting(told.append, "starting …") as beginning:
        beginning.trial_changed(object())
        time.sleep(0.4)
    assert told == []
