"""Trials on fake GPUs (``fake_card``) in real Ray processes: where they are placed, and what they may take.

Nothing here ran on a card: what Ray gives, what a process sees and what carsweep asks of PyTorch is real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_card import GIB, Card, FakeCards
from helpers import Diary, light_work

from sweeps.engine.engine import EngineResult, run_trials
from sweeps.engine.resources import Machine, this_machine
from sweeps.engine.session import RaySession
from sweeps.engine.task import Work
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Choice
from sweeps.spec.spec import SweepSpec

TWO = (Card("GPU-aaaa-1"), Card("GPU-bbbb-2"))


@contextmanager
def ray_here(folder: Path, cpus: int = 4) -> Iterator[None]:
    """Start Ray as a sweep does, with the GPUs that carsweep counts and so many cores in its books."""
    with RaySession(machine=Machine(cpus, this_machine().gpus)) as session:
        session.connect(folder / "ray.log")
        yield


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
    folder: Path, needs: dict[float, float], said: list[str] | None = None, *, together: int = 0, **changes: Any
) -> EngineResult:
    """Run such a sweep."""
    with work_of(folder, needs, {"together": together}, **changes) as work:
        return run_trials(work, [Diary()], notify=(said if said is not None else []).append)


def most_at_once(told: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many trials held each GPU at a time, at most."""
    now, most = dict[str, int](), dict[str, int]()
    for event in told:
        gpu, step = event["visible"], {"began": 1, "ended": -1}.get(event["event"], 0)
        now[gpu] = now.get(gpu, 0) + step
        most[gpu] = max(most.get(gpu, 0), now[gpu])
    return most


@pytest.mark.parametrize(
    ("cards", "share"),
    [
        (1, 0.25),
        (2, 0.5),
        pytest.param(1, 1.0, marks=pytest.mark.slow),
        pytest.param(1, 0.5, marks=pytest.mark.slow),
        pytest.param(2, 1.0, marks=pytest.mark.slow),
        pytest.param(2, 0.25, marks=pytest.mark.slow),
    ],
)
def test_trials_fill_gpus_by_their_share(fake_cards: FakeCards, tmp_path: Path, cards: int, share: float) -> None:
    """Each sees one GPU and has all of its share of it; so many see the same one at a time as fit, and no more."""
    fake_cards.tell(*TWO[:cards])
    fit = round(1 / share) * cards
    with ray_here(tmp_path, cpus=8):
        needs = {n / 100: 140 * share for n in range(1, fit + 2)}
        result = run(tmp_path / "sweep", needs, together=fit, gpus_per_trial=share)
    assert [record.status for record in result.records] == ["complete"] * len(needs)
    assert most_at_once(fake_cards.told) == {str(number): round(1 / share) for number in range(cards)}
    assert {event["value"]["given"] for event in fake_cards.told if event["event"] == "began"} == {share}
