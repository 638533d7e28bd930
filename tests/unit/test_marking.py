"""What goes when room is made: the policy over drawn stores, then real stores beside sweeps that run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import events_of

from carcls.stages import StageStore
from carcls.stages_disk import Stored, list_store, take_out
from sweeps.run.cleaning import USELESS, Marks, Reason, choose

NOW = 1_000_000.0


def draw_store(dice: random.Random) -> tuple[list[Stored], Marks]:
    """Draw a store and what sweeps say of it."""
    things = []
    for number in range(dice.randrange(1, 30)):
        kind = dice.choice(["training", "embeddings", "features", "neighbours", "pack", "index", "new-kind"])
        state = dice.choice(["made", "made", "made", "unfinished", "making", "trash"])
        digest, used = f"{number:024x}", NOW - dice.random() * 10_000
        path = Path("/store") / kind / digest
        things.append(Stored(path, kind, digest, state, dice.randrange(1, 1000), used))  # type: ignore[arg-type]
    made = [stored.name for stored in things if stored.state == "made"]
    going_on = [stored.name for stored in things if stored.state == "unfinished" and dice.random() < 0.5]
    models = dict(zip(dice.sample(made, len(made) // 2), range(1, 99), strict=False))
    return things, Marks(
        kept={*going_on, *(name for name, rank in models.items() if rank <= 2)},
        named={*going_on, *models, *(name for name in made if dice.random() < 0.5)},
        models=models,
        in_use_since=dice.choice([float("inf"), NOW - 3000]),
        has_unnamed=dice.random() < 0.5,
        has_unnamed_checkpoints=dice.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(200))
def test_what_is_needed_never_goes_and_the_budget_holds_when_it_can(seed: int) -> None:
    """Over drawn stores: needed stages stay, what goes was necessary, and what stays fits or is needed."""
    dice = random.Random(seed)
    things, marks = draw_store(dice)
    budget = dice.choice([None, 1, dice.randrange(1, 10_000)])
    useless_too = dice.random() < 0.5
    gone = {stored.path for _, stored in choose(things, marks, budget, useless_too=useless_too)}
    for stored in things:
        made, unfinished = stored.state == "made", stored.state == "unfinished"
        if (
            ((made or unfinished) and (stored.name in marks.kept or stored.kind == "index"))
            or (made and stored.used >= marks.in_use_since)
            or (unfinished and marks.has_unnamed_checkpoints)
        ):
            assert stored.path not in gone
        if made and budget is None and (stored.name in marks.named or marks.has_unnamed):
            assert stored.path not in gone
    left = [stored for stored in things if stored.path not in gone]
    if budget is not None and sum(stored.size for stored in left) > budget:
        assert all(marks.why(stored) is None for stored in left)
    if budget is None:
        assert gone == {stored.path for stored in things if useless_too and marks.why(stored) in USELESS}


def test_the_readiest_go_first_and_no_more_than_the_budget_asks() -> None:
    """Leftovers, then checkpoints, then the worst models, then what was not used for longest."""
    order: list[tuple[Reason, str, float]] = [
        ("leftover", "making", 0),
        ("stopped", "unfinished", 0),
        ("model", "made", 0),
        ("model", "made", 0),
        ("unused", "made", -99),
        ("unused", "made", -1),
    ]
    things = [
        Stored(Path(f"/store/training/{place}"), "training", str(place), state, 10, NOW + age)  # type: ignore[arg-type]
        for place, (_, state, age) in enumerate(order)
    ]
    kept = Stored(Path("/store/index/0"), "index", "0", "made", 10, 0.0)
    marks = Marks(named={stored.name for stored in things}, models={"training/2": 9, "training/3": 7})
    expected = [(why, stored) for (why, _, _), stored in zip(order, things, strict=True)]
    for count in range(len(order) + 1):
        assert choose([*reversed(things), kept], marks, 70 - 10 * count, useless_too=False) == expected[:count]


def fill(folder: Path) -> None:
    """Make something of some size."""
    (folder / "content").write_bytes(b"x" * 20_000)


def test_a_store_is_listed_with_sizes_and_states(tmp_path: Path) -> None:
    """Whole stages and unfinished ones are told apart, each with its bytes on disk."""
    store = StageStore(tmp_path)
    store.get_or_make("kind", {"a": 1}, fill)
    with pytest.raises(RuntimeError):
        store.get_or_make("kind", {"a": 2}, lambda folder: _fail(folder), keep=True)
    made, unfinished = sorted(list_store(tmp_path), key=lambda stored: stored.state)
    assert (made.state, unfinished.state) == ("made", "unfinished")
    assert unfinished.path == store.folder("kind", {"a": 2}).with_suffix(".unfinished")
    assert 20_000 <= made.size <= 60_000
    assert made.path == store.folder("kind", {"a": 1})


def _fail(folder: Path) -> None:
    fill(folder)
    raise RuntimeError


def test_what_is_taken_out_is_made_again(tmp_path: Path) -> None:
    """A stage that went leaves nothing behind, and whoever asks for it gets it anew."""
    store = StageStore(tmp_path)
    folder = store.get_or_make("kind", {"a": 1}, fill)
    (stored,) = list_store(tmp_path)
    assert take_out(stored)
    assert list_store(tmp_path) == []
    assert store.get_or_make("kind", {"a": 1}, fill) == folder
    assert [event.event for event in events_of(store)] == ["made", "made"]


def test_what_was_used_since_it_was_listed_stays(tmp_path: Path) -> None:
    """Somebody may have it open."""
    store = StageStore(tmp_path)
    store.get_or_make("kind", {"a": 1}, fill)
    (stored,) = list_store(tmp_path)
    store.get_or_make("kind", {"a": 1}, fill)
    assert not take_out(stored)
    assert len(list_store(tmp_path)) == 1


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    """Its maker holds its lock."""
    store = StageStore(tmp_path)
    work = store.folder("kind", {"a": 1}).with_suffix(".unfinished")
    work.mkdir(parents=True)
    (stored,) = list_store(tmp_path)
    with FileLock(store.folder("kind", {"a": 1}).with_suffix(".lock")):
        assert not take_out(stored)
    assert take_out(stored)


def test_who_has_a_file_open_keeps_it(tmp_path: Path) -> None:
    """A reader goes on reading a stage that was taken out."""
    store = StageStore(tmp_path)
    with (store.get_or_make("kind", {"a": 1}, fill) / "content").open("rb") as file:
        assert take_out(list_store(tmp_path)[0])
        assert len(file.read()) == 20_000
