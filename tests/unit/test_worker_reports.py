"""How a trial's measurements travel to the driver."""

from __future__ import annotations

import json
from typing import Any

import pytest

from carcls.config import TrialConfig
from sweeps.engine.reports import Reports, told_at_once
from sweeps.spec.fields import EarlyStopping


class Post:
    """What was sent, and a clock that the test sets."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.now = 0.0

    def send(self, message: dict[str, Any]) -> None:
        """Note the epochs of a message."""
        self.sent.append(epochs_of(message))

    def tell(self, reports: Reports, epochs: int, seconds: float) -> None:
        """Note so many epochs of so many seconds each."""
        for epoch in range(1, epochs + 1):
            self.now += seconds
            reports.note({"epoch": epoch})


def epochs_of(message: dict[str, Any]) -> list[int]:
    """Return the epochs that a message tells."""
    return [said["epoch"] for said in json.loads(message.get("measurements", "[]"))]


@pytest.fixture
def post() -> Post:
    """A clock at zero."""
    return Post()


def test_slow_epochs_are_told_at_once(post: Post) -> None:
    """An epoch that takes half a second waits for no other."""
    reports = Reports(post.send, (), lambda: post.now)
    post.tell(reports, 4, 0.5)
    assert post.sent == [[1], [2], [3], [4]]
    assert reports.take() == {}


def test_a_trial_of_some_length_tells_its_last_epoch_before_it_ends(post: Post) -> None:
    """What comes after the last epoch may take long; only a trial of less than a second tells both together."""
    reports = Reports(post.send, (), lambda: post.now, last=12)
    post.tell(reports, 12, 0.125)
    assert post.sent == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12]]
    post.sent.clear()
    reports = Reports(post.send, (), lambda: post.now, last=7)
    post.tell(reports, 7, 0.0625)
    assert post.sent == [[1]]


def test_short_epochs_travel_together(post: Post) -> None:
    """The first epoch comes at once, the others twice a second, the last ones with what the trial says at its end."""
    reports = Reports(post.send, (), lambda: post.now)
    post.tell(reports, 12, 0.125)
    assert post.sent == [[1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert epochs_of(reports.take()) == [10, 11, 12]
    assert reports.take() == {}


def test_a_rung_ends_its_group(post: Post) -> None:
    """After an epoch at which the trial may be stopped nothing is trained before the verdict is there."""
    reports = Reports(post.send, {2, 6}, lambda: post.now)
    post.tell(reports, 9, 0.0)
    assert post.sent == [[1], [2], [3, 4, 5, 6]]
    assert epochs_of(reports.take()) == [7, 8, 9]


def test_what_is_held_is_sent_once(post: Post) -> None:
    """A trial that fails first tells how far it came."""
    reports = Reports(post.send, (), lambda: post.now)
    post.tell(reports, 3, 0.0)
    reports.flush()
    reports.flush()
    assert post.sent == [[1], [2, 3]]


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
    assert told_at_once(TrialConfig(epochs=10, unfreezing=unfreezing), stopping) - {0} == epochs
