"""Unfreezing schedules as plain values."""

from __future__ import annotations

import random

import pytest

from carcls.unfreezing import NAMED, parse_unfreezing, unfrozen_stages

LENGTHS = [1, 2, 3, 5, 10, 50]
STAGES = [1, 2, 5, 9, 14]


def _written_out(draw: random.Random) -> str:
    count = draw.randint(1, 4)
    epochs = sorted(draw.sample(range(12), count))
    counts: list[object] = sorted(draw.sample(range(1, 12), count))
    if draw.random() < 0.5:
        counts[-1] = "all"
    return ",".join(f"{epoch}:{opened}" for epoch, opened in zip(epochs, counts, strict=True))


BAD = [
    "",
    *["half", "1", "1:", ":1", "1:0", "1:-1", "-1:2", "1:1.5", "1:1,1:2", "3:1,2:2", "1:2,2:2", "1:3,2:1", "1:all,2:9"],
]


@pytest.mark.parametrize("text", BAD)
def test_an_unreadable_schedule_is_refused(text: str) -> None:
    """What is no schedule, or does not rise, is refused with what was given."""
    with pytest.raises(ValueError, match="unfreezing must") as caught:
        parse_unfreezing(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("epochs", LENGTHS)
@pytest.mark.parametrize("stages", STAGES)
def test_no_schedule_ever_freezes_what_it_unfroze(epochs: int, stages: int) -> None:
    """The number of unfrozen stages never falls and stays between none, as in ``frozen``, and all, as in ``full``."""
    draw = random.Random(epochs * 100 + stages)
    for text in [*NAMED, *(_written_out(draw) for _ in range(20))]:
        counts = [unfrozen_stages(text, epoch, epochs, stages) for epoch in range(epochs)]
        assert counts == sorted(counts)
        assert all(0 <= count <= stages for count in counts)
        assert set(counts) == {"frozen": {0}, "full": {stages}}.get(text, set(counts))


@pytest.mark.parametrize("epochs", [4, 5, 10, 50])
@pytest.mark.parametrize("stages", STAGES)
def test_progressive_begins_with_the_head_and_ends_with_all(epochs: int, stages: int) -> None:
    """``progressive`` trains the head alone for a fifth of the epochs and everything from half of them on."""
    counts = [unfrozen_stages("progressive", epoch, epochs, stages) for epoch in range(epochs)]
    head_only = max(1, epochs // 5)
    assert counts[:head_only] == [0] * head_only
    assert counts[head_only] >= 1
    assert counts[epochs // 2 :] == [stages] * (epochs - epochs // 2)


def test_a_written_out_schedule_holds_until_the_next_named_epoch() -> None:
    """An epoch that is not named keeps what the one before had; more stages than a shallower network has are all."""
    assert [unfrozen_stages("2:1,4:3,6:all", epoch, 8, 9) for epoch in range(8)] == [0, 0, 1, 1, 3, 3, 9, 9]
    assert unfrozen_stages("0:12", 0, 5, 5) == 5
