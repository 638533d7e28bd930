"""Trials on fake GPUs (``fake_card``) in real Ray processes: where they are placed, and what they may take.

Nothing here ran on a card: what Ray gives, what a process sees and what carsweep asks of PyTorch is real.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from fake_card import GIB, Card, FakeCards, fake_cards_in
from fake_cuda import Holder
from helpers import Diary, light_work

from carcls.errors import OutOfMemory
from carcls.machine import visible_uuids
from sweeps.engine.engine import EngineResult, run_trials
from sweeps.engine.resources import Machine, this_machine
from sweeps.engine.session import RaySession
from sweeps.engine.task import Work, run_task
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice
from sweeps.spec.spec import SweepSpec

TWO = (Card("GPU-aaaa-1"), Card("GPU-bbbb-2"))


@contextmanager
def ray_here(folder: Path) -> Iterator[None]:
    """Start Ray as a sweep does, with the GPUs that carsweep counts, and with 8 cores in its books."""
    with RaySession(machine=Machine(8, this_machine().gpus)) as session:
        session.connect(folder / "ray.log")
        yield


@pytest.fixture(scope="class")
def ray_on_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCards]:
    """One Ray for the tests that can share it, on two cards of 140 GiB."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch, fake_cards_in(folder / "cards", patch) as cards:
        cards.tell(*TWO)
        with ray_here(folder):
            yield cards


@pytest.fixture
def two_cards(ray_on_two: FakeCards) -> FakeCards:
    """They, free again."""
    ray_on_two.tell(*TWO)
    ray_on_two.forget()
    return ray_on_two


@contextmanager
def work_of(folder: Path, needs: dict[float, float], data: dict[str, Any], **changes: Any) -> Iterator[Work]:
    """Yield a sweep of a trial for each dropout, which needs so many GiB."""
    spec = SweepSpec.model_validate(
        {
            "family": "transfer",
            "trials": len(needs),
            "cpus_per_trial": 1.0,
            "config": {"epochs": 2},
            "fixed": {"batch_size": 64},
            "search": {"dropout": Choice(tuple(needs))},
            "early_stopping": EarlyStopping(enabled=False),
            **changes,
        }
    )
    mib = {f"{dropout:.2f}": round(gib * GIB) for dropout, gib in needs.items()}
    folder.mkdir()
    with light_work(folder, spec, "fake_cuda", {"needs": mib, **data}) as work:
        yield work


def run(
    folder: Path,
    needs: dict[float, float],
    said: list[str] | None = None,
    *,
    together: int = 0,
    **changes: Any,
) -> EngineResult:
    """Run such a sweep."""
    with work_of(folder, needs, {"together": together}, **changes) as work:
        return run_trials(work, [Diary()], notify=(said if said is not None else []).append)


def events_of(cards: FakeCards, *kinds: str) -> list[Any]:
    """Return the values of some events, oldest first."""
    return [event["value"] for event in cards.told if event["event"] in kinds]


def most_at_once(told: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many trials held each GPU at a time, at most."""
    now, most = dict[str, int](), dict[str, int]()
    for event in told:
        gpu, step = event["visible"], {"began": 1, "ended": -1}.get(event["event"], 0)
        now[gpu] = now.get(gpu, 0) + step
        most[gpu] = max(most.get(gpu, 0), now[gpu])
    return most


def assert_filled(cards: FakeCards, folder: Path, count: int, share: float) -> None:
    """Check that each trial sees one GPU and has all of its share of it, and that as many run at a time as fit."""
    fit = round(1 / share) * count
    needs = {n / 100: 140 * share for n in range(1, fit + 2)}
    result = run(folder, needs, together=fit, gpus_per_trial=share)
    assert [record.status for record in result.records] == ["complete"] * len(needs)
    assert most_at_once(cards.told) == {str(number): round(1 / share) for number in range(count)}
    assert {value["given"] for value in events_of(cards, "began")} == {share}
    places = {record.worker.rpartition(" pid ")[0] for record in result.records}
    assert places == {f"{platform.node()} GPU {number}" for number in range(count)}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(1, 1.0), (1, 0.5), (1, 0.25), (2, 1.0), (2, 0.25)])
def test_trials_fill_gpus_by_any_share(fake_cards: FakeCards, tmp_path: Path, count: int, share: float) -> None:
    """Whole ones, halves and quarters, of one and of two."""
    fake_cards.tell(*TWO[:count])
    with ray_here(tmp_path):
        assert_filled(fake_cards, tmp_path / "sweep", count, share)


FORMS = [
    (1, "NoDevFiles"),
    (1, "0,1"),
    (2, " 1 , 0"),
    (2, "0,7,1"),
    (2, "GPU-b"),
    (2, "GPU-b,GPU-a"),
    (2, "MIG-2,MIG-1"),
]
SLOW_FORMS = [pytest.param(*form, marks=pytest.mark.slow) for form in FORMS]


@pytest.mark.parametrize(("count", "listed"), [(2, "MIG-2,MIG-1,GPU-b"), *SLOW_FORMS])
def test_ray_gives_the_gpus_that_carsweep_counts(
    fake_cards: FakeCards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, listed: str
) -> None:
    """Each of as many processes sees another one of them, one without a share none, whatever a shell says to Ray."""
    fake_cards.tell(*(Card("GPU-aaaa-1", parts=("MIG-1", "MIG-2")), Card("GPU-bbbb-2"))[:count])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    uuids = visible_uuids()
    with RaySession() as session:
        (machine,) = session.connect(tmp_path / "ray.log")
        assert machine.gpus == len(uuids)
        processes = [
            ray.remote(Holder).options(num_cpus=0.1, num_gpus=share).remote() for share in (0, *(1 for _ in uuids))
        ]
        without, *each = ray.get([process.sees.remote() for process in processes])
        numbered_by = {*ray.get([process.numbered_by.remote() for process in processes])}
    assert numbered_by == {"PCI_BUS_ID"}  # as nvidia-smi does
    assert without == []
    assert sorted(each) == sorted([uuid] for uuid in uuids)


def use(work: Work, gib: int, said: list[str] | None = None, batch_size: int = 1) -> int:
    """Use so much memory in a task, which trains where it has a batch; return its process."""
    notify, arguments = (said if said is not None else []).append, {"mib": gib * GIB}
    pid: int = run_task(work, "fake_cuda:use_memory", arguments, batch_size=batch_size, notify=notify)
    return pid


class TestOnTwoGpus:
    """What one Ray can serve test after test."""

    def test_trials_fill_two_gpus_by_their_share(self, two_cards: FakeCards, tmp_path: Path) -> None:
        """Four trials run at a time, two on each, and the fifth after them."""
        assert_filled(two_cards, tmp_path / "sweep", 2, 0.5)

    def test_a_trial_out_of_memory_gets_more_of_a_gpu_and_then_goes_in_parts(
        self, two_cards: FakeCards, tmp_path: Path
    ) -> None:
        """It gets 1/4, 1/2 and a whole GPU, in three processes; in micro-batches of 16 it fits."""
        said: list[str] = []
        (record,) = run(tmp_path / "sweep", {0.1: 500}, said, gpus_per_trial=0.25).records
        assert (record.status, record.config["micro_batch"]) == ("complete", 16)
        assert [value["given"] for value in events_of(two_cards, "began")] == [0.25, 0.5, 1.0, 1.0, 1.0]
        assert [value["micro_batch"] for value in events_of(two_cards, "began")] == [None, None, None, 32, 16]
        assert len({event["pid"] for event in two_cards.told}) == 3
        words = ["0.5 of a GPU", "a whole GPU", "micro-batches of 32", "micro-batches of 16"]
        assert said == [f"trial 0 ran out of memory; trying again with {word}" for word in words]

    def test_micro_batches_that_were_asked_for_are_halved_not_raised(
        self, two_cards: FakeCards, tmp_path: Path
    ) -> None:
        """A trial in parts of 8 that runs out of memory goes on in parts of 4, not of half its batch."""
        fixed = {"batch_size": 64, "micro_batch": 8}
        (record,) = run(tmp_path / "sweep", {0.1: 2000}, fixed=fixed, gpus_per_trial=1.0).records
        assert (record.status, record.config["micro_batch"]) == ("complete", 4)
        assert [value["micro_batch"] for value in events_of(two_cards, "began")] == [8, 4]

    def test_a_gpu_that_others_fill_is_not_used_any_more(self, two_cards: FakeCards, tmp_path: Path) -> None:
        """Of two GPUs another program holds one: after three lacks of memory there all trials run on the other one."""
        two_cards.tell(Card("GPU-aaaa-1", processes=((1, "python", 139 * GIB),)), Card("GPU-bbbb-2"))
        said: list[str] = []
        # One on the other GPU waits until there were three on this one.
        result = run(tmp_path / "sweep", {n / 10: 50 for n in range(1, 7)}, said, together=4, gpus_per_trial=1.0)
        assert [record.status for record in result.records] == ["complete"] * 6
        assert sum("GPU 0 of " in line and "does not use it any more" in line for line in said) == 1
        assert {event["visible"] for event in two_cards.told if event["event"] == "allocated"} == {"1"}
        assert len(events_of(two_cards, "refused")) <= 4  # one was handed out before the third was known

    def test_what_comes_after_the_trials_gets_more_of_a_gpu_when_it_runs_out_of_memory(
        self, two_cards: FakeCards, tmp_path: Path
    ) -> None:
        """In the last trial's process, then with more in another one, which what comes next uses; then it is told."""
        said: list[str] = []
        with work_of(tmp_path / "sweep", {0.1: 1}, {}, gpus_per_trial=0.25) as work:
            run_trials(work, [Diary()])
            first = two_cards.told[-1]["pid"]
            assert use(work, 30) == first
            larger = use(work, 60, said)
            assert larger != first
            assert (use(work, 30), said) == (larger, ["out of memory after the trials; trying again with 0.5 of a GPU"])
            with pytest.raises(OutOfMemory, match=r"Tried to allocate 200\.00 GiB") as raised:
                use(work, 200)
            assert str(raised.value).endswith(
                " Tried before it failed: a whole GPU. See who else holds it (nvidia-smi)."
            )
            said.clear()
            assert use(work, 500, said, batch_size=64) > 0
            assert said == [f"out of memory after the trials; trying again with micro-batches of {n}" for n in (32, 16)]
        assert os.getpid() not in {event["pid"] for event in two_cards.told}

    def test_what_breaks_a_gpu_after_the_trials_is_computed_in_another_process(
        self, two_cards: FakeCards, tmp_path: Path
    ) -> None:
        """A CUDA error leaves a process that can use its GPU no more; the third one ends it, with the error's words."""
        with work_of(tmp_path / "sweep", {0.1: 1}, {}, gpus_per_trial=1.0) as work:
            assert run_task(work, "fake_cuda:break_gpu", {"times": 1}) == 2
            with pytest.raises(OSError, match="its process died: RuntimeError: CUDA error: an illegal memory access"):
                run_task(work, "fake_cuda:break_gpu", {"times": 9})
        assert len({event["pid"] for event in two_cards.told}) == 4  # the second served the second task, too, at first
