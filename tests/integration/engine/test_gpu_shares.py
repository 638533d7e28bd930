"""``--gpus-per-trial auto`` on a fake card (``fake_card``), under the unchanged engine in a real Ray.

Nothing here ran on a card: processes, their parts of a GPU and the moments at which they compute are real; the memory
of the card and the speed of the steps are told by the test.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from fake_card import GIB, Card, FakeCards, fake_cards_in
from fake_steps import Told, tell
from helpers import Diary, light_work

import sweeps.waits
from sweeps.engine.engine import EngineResult, run_trials
from sweeps.engine.halt import Halt
from sweeps.engine.probing import measure_shares
from sweeps.engine.resources import Machine, Share, this_machine
from sweeps.engine.session import RaySession
from sweeps.engine.shares import PROBER, share_of, share_text
from sweeps.engine.task import Work
from sweeps.lock import ask_to_stop
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice
from sweeps.spec.spec import SweepSpec

RISING = {1: 1000.0, 2: 1700.0, 4: 2600.0}


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCards]:
    """One fake card of 140 GiB, and one Ray that believes to have it, with 4 cores."""
    folder = tmp_path_factory.mktemp("card")
    with pytest.MonkeyPatch.context() as patch, fake_cards_in(folder / "cards", patch) as cards:
        machine = this_machine()
        with RaySession(machine=Machine(4, machine.gpus)) as session:
            session.connect(folder / "ray.log")
            yield cards


@contextmanager
def work_of(
    folder: Path,
    needs: dict[float, float] | None = None,
    stages: Path | None = None,
    *,
    together: int = 0,
    **changes: Any,
) -> Iterator[Work]:
    """Yield a sweep of a trial for each dropout, four unless told otherwise, which needs so many GiB.

    Trials wait until so many have begun ``together``, those of earlier sweeps on the card included.
    """
    needs = needs or {n / 10: 1.0 for n in range(1, 5)}
    spec = SweepSpec.model_validate(
        {
            "family": "transfer",
            "trials": len(needs),
            "config": {"epochs": 1, "backbone": "efficientnet_lite0", "unfreezing": "full"},
            "search": {"dropout": Choice(tuple(needs))},
            "early_stopping": EarlyStopping(enabled=False),
            **changes,
        }
    )
    mib = {f"{dropout:.2f}": round(gib * GIB) for dropout, gib in needs.items()}
    folder.mkdir()
    with light_work(folder, spec, "fake_cuda", {"needs": mib, "together": together}, stages) as work:
        yield replace(work, prober="fake_steps:steps")


def run(folder: Path, said: list[str], *arguments: Any, **changes: Any) -> EngineResult:
    """Run such a sweep."""
    with work_of(folder, *arguments, **changes) as work:
        return run_trials(work, [Diary()], notify=said.append)


def shares_given(cards: FakeCards, begun: int = 0) -> list[float]:
    """Return the part of the GPU that each trial began with, in their order, after so many."""
    return [event["value"]["given"] for event in cards.told if event["event"] == "began"][begun:]


def measured(cards: FakeCards) -> int:
    """Return how many processes have measured so far."""
    return sum(event["event"] == "prepared" for event in cards.told)


def lines(said: list[str]) -> list[str]:
    """Return what was told besides what is waited for."""
    return [line for line in said if not line.endswith("…")]


@pytest.mark.parametrize(
    ("card", "told", "share", "text"),
    [
        (Card(), Told(2 * GIB, RISING), Share(1.0, 0.25, 4), "1/4 ({}: 1,000 images/s alone, 2,600 by four; 2.5 GiB"),
        (
            Card(),
            Told(2 * GIB, {**RISING, 4: 1750.0}),
            Share(2.0, 0.5, 2),
            "1/2 ({}: 1,000 images/s alone, 1,700 by two, 1,750 by four; 2.5 GiB",
        ),
        pytest.param(
            Card(),
            Told(30 * GIB, RISING),
            Share(2.0, 0.5, 2),
            "1/2 ({}: 1,000 images/s alone, 1,700 by two; 30.5 GiB",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Card(),
            Told(60 * GIB, RISING),
            Share(4.0, 1.0, 1),
            "a whole GPU ({}: 1,000 images/s alone; 60.0 GiB",
            marks=pytest.mark.slow,
        ),
        # Others hold all but 12 GiB, of which two processes with 3.5 GiB leave too little for images.
        (
            Card(processes=[(1, "/usr/bin/python", 128 * GIB)]),
            Told(2 * GIB, RISING),
            Share(2.0, 0.5, 2),
            "1/2 ({}: 1,000 images/s alone, 1,700 by two; 2.5 GiB",
        ),
        # The second process is refused its memory, of which the first alone could not know.
        (
            Card(),
            Told(2 * GIB, RISING, context=80 * GIB),
            Share(4.0, 1.0, 1),
            "a whole GPU ({}: 1,000 images/s alone, two run out of memory; 2.0 GiB",
        ),
    ],
)
def test_the_share_follows_the_memory_and_the_speed_of_the_card(
    cards: FakeCards, tmp_path: Path, card: Card, told: Told, share: Share, text: str
) -> None:
    """It is halved while all fit with room to spare and are faster together; how it was found is told in one line."""
    cards.tell(card)
    tell(cards, told)
    said: list[str] = []
    with work_of(tmp_path / "sweep") as work:
        machines = work.session.connect(tmp_path / "ray.log")
        measure_shares(work, machines, Halt(tmp_path, said.append, time.monotonic() + 600), said.append)
        found = share_of(work.spec, work.stages, machines)
    assert lines(said) == [f"GPU share: {text.format('efficientnet_lite0 224 px batch 32')} each)."]
    assert found == share


def test_trials_share_a_gpu_and_the_next_sweep_measures_nothing(cards: FakeCards, tmp_path: Path) -> None:
    """Every trial begins with the part that was measured; a second sweep finds it, however many trials it has."""
    cards.tell(Card())
    tell(cards, Told(2 * GIB, RISING))
    stages, began, before, said = tmp_path / "stages", len(shares_given(cards)), measured(cards), list[str]()
    result = run(tmp_path / "one", said, None, stages)
    assert [record.status for record in result.records] == ["complete"] * 4
    assert shares_given(cards, began) == [0.25] * 4
    assert measured(cards) == before + 4
    again = list[str]()
    run(tmp_path / "two", again, {0.1: 1.0, 0.2: 1.0}, stages)
    assert shares_given(cards, began + 4) == [0.5] * 2  # no more than there are trials
    assert (measured(cards), len(lines(again))) == (before + 4, 1)
    run(tmp_path / "three", again, {0.1: 1.0}, stages)
    run(tmp_path / "four", again, {0.1: 1.0, 0.2: 1.0}, stages, gpus_per_trial=1.0)
    assert shares_given(cards, began + 6) == [1.0] * 3
    assert measured(cards) == before + 4


def test_a_share_that_is_too_small_grows_for_later_trials_and_the_next_sweep(cards: FakeCards, tmp_path: Path) -> None:
    """A trial that runs out of memory goes on with more, and so do those that begin after it, in later sweeps too."""
    cards.tell(Card())
    tell(cards, Told(2 * GIB, RISING))
    stages, began, said = tmp_path / "stages", len(shares_given(cards)), list[str]()
    needs = {0.01: 60.0, **{n / 100: 1.0 for n in range(2, 13)}}
    result = run(tmp_path / "one", said, needs, stages, together=began + 4, starts=({"dropout": 0.01},))
    assert {record.status for record in result.records} == {"complete"}
    given = shares_given(cards, began)
    assert given[0] == 0.25
    assert set(given[-3:]) == {0.5}
    assert sum("ran out of memory; trying again with 0.5 of a GPU" in line for line in said) == 1
    again = list[str]()
    run(tmp_path / "two", again, None, stages)
    assert shares_given(cards, began + len(given)) == [0.5] * 4
    assert "four run out of memory" in lines(again)[0]


@pytest.mark.parametrize(
    ("peak", "does", "why"),
    [
        (2, "bug", "a bug of the prober's"),
        pytest.param(2, "dies", "died", marks=pytest.mark.slow),
        pytest.param(200, "", "one process alone ran out of memory", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_measured_gives_whole_gpus_and_a_line(
    cards: FakeCards, tmp_path: Path, peak: int, does: str, why: str
) -> None:
    """The sweep runs all the same, and the next one tries again."""
    cards.tell(Card())
    tell(cards, Told(peak * GIB, RISING, does=does))
    began, said = len(shares_given(cards)), list[str]()
    result = run(tmp_path / "sweep", said, {0.1: 1.0, 0.2: 1.0}, tmp_path / "stages")
    assert [record.status for record in result.records] == ["complete"] * 2
    assert shares_given(cards, began) == [1.0] * 2
    (line,) = lines(said)
    assert line.startswith("GPU share: a whole GPU, since it could not be measured")
    assert why in line
    with work_of(tmp_path / "next", stages=tmp_path / "stages") as work:
        machines = work.session.connect(tmp_path / "ray.log")
        assert share_text(work.spec, work.stages, machines) == "GPU share: measured at the start."


def test_a_gpu_that_pytorch_cannot_use_is_told(cards: FakeCards, tmp_path: Path) -> None:
    """The steps of a sweep's own are begun in such a process, and say what trials on it would."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    cards.tell(Card())
    said = list[str]()
    with work_of(tmp_path / "sweep", {0.1: 1.0, 0.2: 1.0}) as work:
        machines = work.session.connect(tmp_path / "ray.log")
        own = replace(work, prober=PROBER)
        measure_shares(own, machines, Halt(tmp_path, said.append, time.monotonic() + 600), said.append)
    assert "could not be measured how many share one well: the trial was given a GPU" in lines(said)[0]


def test_a_request_to_stop_ends_the_measuring(
    cards: FakeCards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that are silent end with the sweep, which no trial began; the GPU is free again, nothing remembered."""
    monkeypatch.setattr(sweeps.waits, "QUIET_SECONDS", 0.0)
    cards.tell(Card())
    tell(cards, Told(2 * GIB, RISING, does="silent"))
    before, said = measured(cards), list[str]()

    def stop() -> None:
        while measured(cards) == before:
            time.sleep(0.1)
        ask_to_stop(tmp_path / "sweep" / "sweep", now=False)

    thread = threading.Thread(target=stop)
    thread.start()
    result = run(tmp_path / "sweep", said, None, tmp_path / "stages")
    thread.join()
    assert (result.interrupted, result.records) == (True, ())
    assert said == ["measuring how many trials fit on a GPU …"]  # no word of epochs that run
    assert not list((tmp_path / "stages").glob("gpu-share/*/readings.json"))
    deadline = time.monotonic() + 30
    while ray.available_resources().get("GPU") != 1.0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
