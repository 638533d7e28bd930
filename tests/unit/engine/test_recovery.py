"""What takes the blame for failures of trials, and what is held of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from sweeps.engine import recovery
from sweeps.engine.recovery import Place, Quarantine
from sweeps.failures import Failure

LOST = Failure("lost", "its process died.")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machines that Ray knows: three with a core and two GPUs each."""
    names = ["a", "b", "c"]

    def known() -> list[dict[str, Any]]:
        has = {"CPU": 1, "GPU": 2}
        return [{"NodeID": name, "Alive": True, "Resources": has, "NodeManagerHostname": name} for name in names]

    monkeypatch.setattr(ray, "nodes", known)
    return names


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("events", "out"),
    [
        ("a a", ""),
        ("a a a", "a a0 a1"),
        # A trial that gets on clears it; other machines have counts of their own.
        ("a a +a a b a", ""),
        ("a a +a a b a a", "a a0 a1"),
        # A process that has told no place is nobody's.
        ("- - - -", ""),
        # A GPU is to blame where it was always the same, and else its machine.
        ("a0 a0 a0", "a0"),
        ("a0 a1 a0", "a a0 a1"),
        # Another GPU of the machine clears the machine alone.
        ("a0 a0 +a1 a0", "a0"),
        ("a0 a1 +a1 a0 +a0 a0", ""),
    ],
)
def test_a_place_is_out_of_use_after_three_failures_in_a_row(events: str, out: str) -> None:
    """Whichever trials failed there: the GPU where it was always the same, and else the machine."""
    quarantine = Quarantine(lambda _: None)
    places = {name: Place(name[0], name[1:], f"group {name}") for name in ("a", "b", "a0", "a1")}
    quarantine.places.update(places)
    for number, event in enumerate(events.split()):
        if event.startswith("+"):
            quarantine.clear(event[1:])
        else:
            assert quarantine.blame(LOST, event, number, is_alone=True) == ""
    assert [name for name in places if quarantine.has(name)] == out.split()


@pytest.mark.parametrize(("numbers", "stops"), [((1, 1, 1), False), ((1, 2, 1), True)])
@pytest.mark.parametrize(("gpu", "last"), [("", "machine"), ("0", "GPU")])
def test_the_last_place_stays_and_the_sweep_stops_if_it_was_not_one_trials_doing(
    nodes: list[str], numbers: tuple[int, ...], stops: bool, gpu: str, last: str
) -> None:
    """The sweep stops with the reason only where several trials failed there."""
    del nodes[1:]
    quarantine = Quarantine(lambda _: None, {"a": Place("a", gpu), "other": Place("a", "1")})
    if gpu:
        assert [quarantine.blame(LOST, "other", number, is_alone=True) for number in range(3)] == [""] * 3
        assert quarantine.has("other")
        quarantine.clear("other")
    *_, said = [quarantine.blame(LOST, "a", number, is_alone=True) for number in numbers]
    assert said == (f"3 failures in a row on the last {last} that is in use: its process died." if stops else "")
    assert not quarantine.has("a")


def test_what_is_held_of_a_machine_goes_with_it(nodes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would reserve as much on the machines that are left; what is held of others stays until the end."""
    removed = list[Any]()
    monkeypatch.setattr(recovery, "remove_placement_group", removed.append)
    monkeypatch.setattr(recovery, "_GONE_SECONDS", 0.0)
    groups: dict[str, Any] = {name: SimpleNamespace(id=name.encode()) for name in nodes}
    quarantine = Quarantine(lambda _: None, {name: Place(name, "", group.id.hex()) for name, group in groups.items()})
    for name in ("a", "b"):
        for number in range(3):
            assert quarantine.blame(LOST, name, number, is_alone=True) == ""
    assert [quarantine.retains(group) for group in groups.values()] == [True, True, False]
    quarantine.release_gone()
    assert removed == []
    nodes.remove("a")
    quarantine.release_gone()
    assert removed == [groups["a"]]
    quarantine.close()
    assert removed == [groups["a"], groups["b"]]
