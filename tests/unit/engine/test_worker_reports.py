"""How a trial's measurements travel to the driver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from carcls.config import TrialConfig
from sweeps.engine.worker import Reports, reported_at_once
from sweeps.spec.fields import EarlyStopping


def epochs_of(message: dict[str, Any]) -> list[int]:
    """Return the epochs that a message tells."""
    return [said["epoch"] for said in json.loads(message.get("measurements", "[]"))]


@pytest.mark.parametrize(
    ("epochs", "seconds", "options", "sent", "held"),
    [
        # An epoch that takes half a second waits for no other.
        (4, 0.5, {}, [[1], [2], [3], [4]], []),
        # Of short ones the first comes at once, the others twice a second, the last with what is said at the end.
        (12, 0.125, {}, [[1], [2, 3, 4, 5], [6, 7, 8, 9]], [10, 11, 12]),
        # A trial of some length tells its last epoch before it ends: what comes after it may take long.
        (12, 0.125, {"last": 12}, [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12]], []),
        (7, 0.0625, {"last": 7}, [[1]], [2, 3, 4, 5, 6, 7]),
        # After an epoch at which it may be stopped nothing is trained before the verdict is there.
        (9, 0.0, {"at_once": {2, 6}}, [[1], [2], [3, 4, 5, 6]], [7, 8, 9]),
    ],
)
def test_measurements_travel_in_groups(
    epochs: int, seconds: float, options: dict[str, Any], sent: list[list[int]], held: list[int]
) -> None:
    """Each is sent once; what is held goes with the last message, or before it where the trial fails."""
    now, messages = 0.0, list[list[int]]()
    reports = Reports(
        lambda message: messages.append(epochs_of(message)), **{"at_once": (), "clock": lambda: now, **options}
    )
    for epoch in range(1, epochs + 1):
        now += seconds
        reports.note({"epoch": epoch})
    assert messages == sent
    assert epochs_of(reports.take()) == held
    reports.note({"epoch": epochs + 1})
    for _ in range(2):
        reports.flush()
    assert messages[-1] == [epochs + 1]
    assert reports.take() == {}


@pytest.mark.parametrize(
    ("unfreezing", "stopping", "epochs"),
    [
        ("frozen", EarlyStopping(enabled=False), set()),
        ("frozen", EarlyStopping(), {2, 6}),
        ("full", EarlyStopping(enabled=False), set()),
        ("progressive", EarlyStopping(enabled=False), {2}),
        ("5:all", EarlyStopping(), {2, 5, 6}),
    ],
)
def test_what_may_be_the_last_for_long_is_told_at_once(
    unfreezing: str, stopping: EarlyStopping, epochs: set[int]
) -> None:
    """Rungs are told at once, and the last epoch of a closed backbone: the next one takes longer."""
    assert reported_at_once(TrialConfig(epochs=10, unfreezing=unfreezing), stopping) - {0} == epochs
