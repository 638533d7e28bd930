"""When a silent trial hangs, and when it is only slow."""

from __future__ import annotations

import math
from typing import Any

import pytest

from carcls.config import TrialConfig
from carcls.errors import InputError
from sweeps.engine.hangs import Patience, expected_seconds
from sweeps.engine.resources import Share, least_seconds


@pytest.fixture
def patience() -> Patience:
    """Five minutes at least, and nobody knows how long an epoch takes."""
    return Patience(lambda _config, _is_open: 0.0, 300.0)


def config_of(**settings: Any) -> TrialConfig:
    """A trial of ten epochs."""
    return TrialConfig.model_validate({"epochs": 10, **settings})


def silent_for(patience: Patience, most: int = 10_000) -> int | None:
    """Let seconds pass until a trial hangs; return how many, None if none hangs within ``most``."""
    return next((second for second in range(1, most + 1) if patience.look(1.0)), None)


def with_epochs(patience: Patience, seconds: int, epochs: int = 2, **settings: Any) -> None:
    """Begin a trial, number 0, that trains epochs of so many seconds."""
    patience.begin(0, config_of(**settings))
    for epoch in range(1, epochs + 1):
        assert silent_for(patience, seconds) is None
        patience.on_report(0, epoch, trained=True)


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
    seconds: int, epochs: int, settings: dict[str, Any], limit: int, patience: Patience
) -> None:
    """So long it may be silent after so many epochs."""
    with_epochs(patience, seconds, epochs, **settings)
    assert silent_for(patience) == limit


def test_what_a_plan_expects_excuses_a_slow_machine() -> None:
    """Ten times the expected epoch is granted where that is more."""
    patience = Patience(lambda _config, is_open: 900.0 if is_open else 60.0, 300.0)
    patience.begin(0, config_of(unfreezing="full"))
    assert silent_for(patience) == 9000
    with_epochs(patience, 1, unfreezing="frozen")
    assert silent_for(patience) == 600


def test_a_trial_is_measured_by_others_like_it(patience: Patience) -> None:
    """One that has no epoch yet is compared with those of the same backbone, size and batch, and with no others."""
    with_epochs(patience, 40)
    patience.end(0)
    patience.begin(1, config_of(dropout=0.3))
    assert silent_for(patience) == 400
    patience.begin(2, config_of(image_size=64))
    assert silent_for(patience) == 3600


def test_epochs_told_from_a_checkpoint_are_no_measure(patience: Patience) -> None:
    """What comes after them may be the first that this process trains."""
    with_epochs(patience, 1)
    patience.end(0)
    patience.begin(0, config_of())
    patience.on_report(0, 1)
    assert silent_for(patience) == 3600


def test_time_of_who_waits_for_a_stage_and_in_which_nobody_looked_does_not_count(patience: Patience) -> None:
    """Its word starts the time anew; where the driver was stopped, or the machine asleep, words lie unread."""
    with_epochs(patience, 1)
    for _ in range(100):
        assert silent_for(patience, 10) is None
        patience.on_report(0)
    assert patience.look(100_000.0) == {}
    assert silent_for(patience) == 299


def test_a_hang_is_told_once_with_its_numbers(patience: Patience) -> None:
    """Seconds in silence and of an epoch, if one was seen."""
    with_epochs(patience, 60)
    patience.begin(1, config_of(image_size=64))
    hangs = [hang for _ in range(5000) for hang in patience.look(1.0).items()]
    assert hangs == [
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
