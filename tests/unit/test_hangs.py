"""When a silent trial hangs, and when it is only slow."""

from __future__ import annotations

from typing import Any

import pytest

from carcls.config import TrialConfig
from carcls.errors import InputError
from sweeps.engine.hangs import Patience, expected_seconds
from sweeps.engine.resources import Share, least_seconds

LEAST = 300.0


def nothing_expected(_config: TrialConfig, _is_open: bool) -> float:
    """Nobody knows how long an epoch takes."""
    return 0.0


def config_of(**settings: Any) -> TrialConfig:
    """A trial of ten epochs."""
    return TrialConfig.model_validate({"epochs": 10, **settings})


def silent_for(patience: Patience, most: int) -> int | None:
    """Let seconds pass until a trial hangs; return how many, None if none hangs within ``most``."""
    return next((second for second in range(1, most + 1) if patience.look(1.0)), None)


def with_epochs(patience: Patience, seconds: int, *, config: TrialConfig | None = None, epochs: int = 2) -> None:
    """Begin a trial, number 0, that trains epochs of so many seconds."""
    patience.begin(0, config or config_of())
    for epoch in range(1, epochs + 1):
        assert silent_for(patience, seconds) is None
        patience.hear(0, epoch, trained=True)


@pytest.mark.parametrize(("seconds", "limit"), [(1, 300), (30, 300), (60, 600)])
def test_ten_times_the_longest_epoch_is_too_long_but_never_less_than_five_minutes(seconds: int, limit: int) -> None:
    """Its own epochs are the measure."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, seconds)
    assert silent_for(patience, 4000) == limit


def test_before_anything_is_known_an_hour_is_granted() -> None:
    """Weights are downloaded, images decoded and kernels compiled in the first epoch of the first trial."""
    patience = Patience(nothing_expected, LEAST)
    patience.begin(0, config_of())
    assert silent_for(patience, 4000) == 3600


def test_what_a_plan_expects_excuses_a_slow_machine() -> None:
    """Ten times the expected epoch is granted where that is more."""
    patience = Patience(lambda _config, is_open: 900.0 if is_open else 60.0, LEAST)
    patience.begin(0, config_of(unfreezing="full"))
    assert silent_for(patience, 10_000) == 9000
    with_epochs(patience, 1, config=config_of(unfreezing="frozen"))
    assert silent_for(patience, 10_000) == 600


def test_a_trial_is_measured_by_others_like_it() -> None:
    """One that has no epoch yet is compared with those of the same backbone, size and batch, and with no others."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 40)
    patience.end(0)
    patience.begin(1, config_of(dropout=0.3))
    assert silent_for(patience, 4000) == 400
    patience.begin(2, config_of(image_size=64))
    assert silent_for(patience, 4000) == 3600


def test_the_first_epoch_with_an_open_backbone_is_another_matter() -> None:
    """Heads on known features take a second; then the whole network trains."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 1, config=config_of(unfreezing="2:all"), epochs=2)
    assert silent_for(patience, 4000) == 3600


@pytest.mark.parametrize(("family", "epochs"), [("transfer", 10), ("retrieval", 9)])
def test_what_comes_after_the_last_told_epoch_may_take_an_hour(family: str, epochs: int) -> None:
    """Predictions are written, or embeddings made and searched, which no epoch is a measure of."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 1, config=config_of(family=family, unfreezing="full"), epochs=epochs)
    assert silent_for(patience, 4000) == 3600


def test_epochs_told_from_a_checkpoint_are_no_measure() -> None:
    """What comes after them may be the first that this process trains."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 1)
    patience.end(0)
    patience.begin(0, config_of())
    patience.hear(0, 1)
    assert silent_for(patience, 4000) == 3600


def test_who_waits_for_a_stage_does_not_hang() -> None:
    """Its word starts the time anew."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 1)
    for _ in range(100):
        assert silent_for(patience, 10) is None
        patience.hear(0)
    assert silent_for(patience, 4000) == 300


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """The driver was stopped, or the machine asleep: the trials perhaps too, and their words lie unread."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 1)
    assert patience.look(100_000.0) == {}
    assert silent_for(patience, 4000) == 299


def test_a_hang_is_told_once_with_its_numbers() -> None:
    """Seconds in silence and of an epoch, if one was seen."""
    patience = Patience(nothing_expected, LEAST)
    with_epochs(patience, 60)
    hangs = [hang for _ in range(2000) for hang in patience.look(1.0).items()]
    assert hangs == [(0, "it reported nothing for 10 min, where an epoch takes at most 60 s.")]
    patience.begin(1, config_of(image_size=64))
    hangs = [hang for _ in range(4000) for hang in patience.look(1.0).items()]
    assert hangs == [(1, "it reported nothing for 1 h 0 min, at its start or at its end.")]


def test_expected_epochs_follow_images_and_share() -> None:
    """Twice the images take twice as long, half a GPU twice as long as one; what is closed takes less."""
    config = config_of(backbone="resnet50")
    one = expected_seconds(Share(1.0, 0.0, 1), 8144, config, True)
    assert expected_seconds(Share(1.0, 0.0, 1), 16288, config, True) == pytest.approx(2 * one)
    assert expected_seconds(Share(2.0, 0.0, 1), 8144, config, True) == pytest.approx(one / 2)
    assert expected_seconds(Share(1.0, 0.0, 1), 8144, config, False) < one
    gpu = expected_seconds(Share(1.0, 1.0, 1), 8144, config, True)
    assert expected_seconds(Share(4.0, 0.5, 1), 8144, config, True) == pytest.approx(2 * gpu)
    assert gpu < one / 100


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan"])
def test_a_wrong_number_of_seconds_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    monkeypatch.setenv("CARSWEEP_HANG_SECONDS", said)
    with pytest.raises(InputError, match=f"CARSWEEP_HANG_SECONDS must be .* got '{said}'"):
        least_seconds()


def test_the_least_time_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable it is five minutes; infinity lets nothing be ended."""
    monkeypatch.delenv("CARSWEEP_HANG_SECONDS", raising=False)
    assert least_seconds() == 300
    monkeypatch.setenv("CARSWEEP_HANG_SECONDS", "inf")
    patience = Patience(nothing_expected, least_seconds())
    patience.begin(0, config_of())
    assert silent_for(patience, 10_000) is None
