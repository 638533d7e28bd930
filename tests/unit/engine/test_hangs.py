"""When a silent trial hangs, and when it is only slow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from carcls.config import TrialConfig
from carcls.errors import InputError
from sweeps.engine.hangs import Patience, expected_seconds
from sweeps.engine.recovery import Running
from sweeps.engine.resources import Share, least_seconds
from sweeps.failures import Try


class Watch:
    """Trials of ten epochs that are watched: five minutes at least, and ten times what an epoch is expected to take."""

    def __init__(self, expected: Callable[[TrialConfig, bool], float] = lambda *_: 0.0, least: float = 300.0) -> None:
        self.patience, self.trials = Patience(expected, least), dict[int, Running]()

    def begin(self, number: int = 0, *, seconds: int = 0, epochs: int = 0, **settings: Any) -> None:
        """Let a process take up a trial, which trains epochs of so many seconds."""
        trial = self.trials[number] = Running(number, config_of(**settings), Try(1, 0))
        self.patience.begin(trial)
        for epoch in range(1, epochs + 1):
            assert self.silent_for(seconds) is None
            self.patience.on_report(trial, epoch, trained=True)

    def look(self, seconds: float = 1.0) -> list[tuple[int, str]]:
        """Let seconds pass; return what hangs."""
        return [(trial.number, said) for trial, said in self.patience.look(seconds, self.trials.values())]

    def silent_for(self, most: int = 10_000) -> int | None:
        """Let seconds pass until a trial hangs; return how many, None if none hangs within ``most``."""
        return next((second for second in range(1, most + 1) if self.look()), None)


@pytest.fixture
def watch() -> Watch:
    """Nobody knows how long an epoch takes."""
    return Watch()


def config_of(**settings: Any) -> TrialConfig:
    """The settings of a trial of ten epochs."""
    return TrialConfig.model_validate({"epochs": 10, **settings})


@pytest.mark.parametrize(
    ("seconds", "epochs", "settings", "limit"),
    [
        # Its own epochs are the measure: ten times the longest, but never less than five minutes.
        (1, 2, {}, 300),
        (30, 2, {}, 300),
        (60, 2, {}, 600),
        # Before anything is known an hour is granted: for downloads, decoding, compiling.
        (0, 0, {}, 3600),
        # The first epoch with an open backbone is another matter than heads on known features.
        (1, 2, {"unfreezing": "2:all"}, 3600),
        # After the last told epoch predictions are written, or embeddings made and searched.
        (1, 10, {"unfreezing": "full"}, 3600),
        (1, 9, {"unfreezing": "full", "family": "retrieval"}, 3600),
    ],
)
def test_a_trial_is_measured_by_its_epochs(
    seconds: int, epochs: int, settings: dict[str, Any], limit: int, watch: Watch
) -> None:
    """So long it may be silent after so many epochs."""
    watch.begin(seconds=seconds, epochs=epochs, **settings)
    assert watch.silent_for() == limit


def test_what_a_plan_expects_excuses_a_slow_machine() -> None:
    """Ten times the expected epoch is granted where that is more."""
    watch = Watch(lambda _config, is_unfrozen: 900.0 if is_unfrozen else 60.0)
    watch.begin(unfreezing="full")
    assert watch.silent_for() == 9000
    watch.begin(seconds=1, epochs=2, unfreezing="frozen")
    assert watch.silent_for() == 600


def test_a_trial_is_measured_by_others_like_it(watch: Watch) -> None:
    """One that has no epoch yet is compared with those of the same backbone, size and batch, and with no others."""
    watch.begin(seconds=40, epochs=2)
    watch.begin(dropout=0.3)
    assert watch.silent_for() == 400
    watch.begin(image_size=64)
    assert watch.silent_for() == 3600


def test_epochs_reported_from_a_checkpoint_are_no_measure(watch: Watch) -> None:
    """What comes after them may be the first that this process trains."""
    watch.begin(seconds=1, epochs=2)
    watch.begin()
    watch.patience.on_report(watch.trials[0], 1)
    assert watch.silent_for() == 3600


def test_time_of_who_waits_for_a_stage_and_in_which_nobody_looked_does_not_count(watch: Watch) -> None:
    """A report starts the time anew; where the driver was stopped, or the machine asleep, reports lie unread."""
    watch.begin(seconds=1, epochs=2)
    for _ in range(100):
        assert watch.silent_for(10) is None
        watch.patience.on_report(watch.trials[0])
    assert watch.look(100_000.0) == []
    assert watch.silent_for() == 299


def test_a_hang_is_told_once_with_its_numbers(watch: Watch) -> None:
    """Seconds in silence and of an epoch, if one was seen."""
    watch.begin(seconds=60, epochs=2)
    watch.begin(1, image_size=64)
    assert [hang for _ in range(5000) for hang in watch.look()] == [
        (0, "it reported nothing for 10 min, where an epoch takes at most 60 s."),
        (1, "it reported nothing for 1 h 0 min, at its start or at its end."),
    ]


def test_expected_epochs_follow_images_and_share() -> None:
    """Twice the images take twice as long, half a GPU twice as long as one; what is closed takes less."""
    config = config_of(backbone="resnet50")

    def expected(cpus: float, gpus: float, images: int = 8144, is_open: bool = True) -> float:
        return expected_seconds(Share(cpus, gpus, 1), images, config, is_open)

    one = expected(1, 0)
    assert expected(1, 0, images=16288) == pytest.approx(2 * one)
    assert expected(2, 0) == pytest.approx(one / 2)
    assert expected(1, 0, is_open=False) < one
    assert expected(4, 0.5) == pytest.approx(2 * expected(1, 1))
    assert expected(1, 1) < one / 100


@pytest.mark.parametrize(("said", "seconds"), [("", 300.0), ("900", 900.0), ("inf", math.inf)])
def test_the_least_time_can_be_set(said: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable it is five minutes; infinity lets nothing be ended."""
    monkeypatch.setenv("CARSWEEP_HANG_SECONDS", said)
    assert least_seconds() == seconds


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan"])
def test_a_wrong_number_of_seconds_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    monkeypatch.setenv("CARSWEEP_HANG_SECONDS", said)
    with pytest.raises(InputError, match=f"CARSWEEP_HANG_SECONDS must be .* got '{said}'"):
        least_seconds()
