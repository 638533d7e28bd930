"""The number format is measured, once on each machine, and everybody who asks gets the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import events_of

from carcls.config import TrialConfig
from carcls.stages import StageStore
from carcls.training import measured
from carcls.training.images import NumberFormat
from carcls.training.measured import compare, resolve_precision

CPU = torch.device("cpu")
SMALL = TrialConfig(family="scratch", backbone="scratch", image_size=32, depth=2, width=8)
Times = dict[NumberFormat, list[float]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Times], list[int]]:
    """Make the measurement say what a test wants; the list that is returned grows with each measurement."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    calls: list[int] = []

    def say(times: Times) -> list[int]:
        monkeypatch.setattr(measured, "compare", lambda _: (calls.append(1), times)[1])
        return calls

    return say


def test_the_faster_format_is_taken_and_remembered(tmp_path: Path, answer: Callable[[Times], list[int]]) -> None:
    """Later trials, with other settings and another number of threads, get the first answer and measure nothing."""
    calls = answer({"fp32": [2.0, 1.0], "bf16": [0.9, 0.5]})
    assert resolve_precision(SMALL, CPU, StageStore(tmp_path)) == "bf16"
    answer({"fp32": [1.0], "bf16": [9.0]})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        other = SMALL.model_copy(update={"dropout": 0.5, "seed": 7, "batch_size": 4})
        assert resolve_precision(other, CPU, StageStore(tmp_path)) == "bf16"
    finally:
        torch.set_num_threads(threads)
    assert calls == [1]


@pytest.mark.parametrize(
    ("settings", "images"),
    [({"batch_size": 512}, 98), ({"batch_size": 24}, 24), ({"batch_size": 24, "micro_batch": 3}, 3)],
)
def test_what_is_timed_needs_no_more_memory_than_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], images: int
) -> None:
    """As many pixels as are timed best (98 images of 32 px), but no more images at a time than the trial trains on."""
    counts: set[int] = set()

    def time_step(_: object, batch: torch.Tensor, __: NumberFormat) -> float:
        counts.add(len(batch))
        return 1.0

    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    monkeypatch.setattr(measured, "_step_seconds", time_step)
    resolve_precision(SMALL.model_copy(update=settings), CPU, StageStore(tmp_path))
    assert counts == {images}


def test_finding_the_measurement_counts_as_no_saving(tmp_path: Path, answer: Callable[[Times], list[int]]) -> None:
    """No trial would measure it for itself alone, so what sharing saved must not be made larger by it."""
    answer({"fp32": [2.0, 1.0], "bf16": [0.9, 0.5]})
    resolve_precision(SMALL, CPU, StageStore(tmp_path))
    later = StageStore(tmp_path)
    resolve_precision(SMALL, CPU, later)
    assert list(later.take_used().values()) == [0.0]


@pytest.mark.parametrize("change", [{"image_size": 64}, {"width": 16}, {"backbone": "efficientnet_lite0"}, {}])
def test_another_network_or_machine_is_measured_for_itself(
    tmp_path: Path, answer: Callable[[Times], list[int]], monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    """What was found for one network, image size or kind of machine says nothing of another."""
    calls = answer({"fp32": [1.0], "bf16": [0.5]})
    resolve_precision(SMALL, CPU, StageStore(tmp_path))
    if not change:
        monkeypatch.setattr(measured, "machine_name", lambda _: "another")
    answer({"fp32": [1.0], "bf16": [2.0]})
    assert resolve_precision(SMALL.model_copy(update=change), CPU, StageStore(tmp_path)) == "fp32"
    assert calls == [1, 1]


def test_a_small_gain_is_not_worth_less_exact_numbers(tmp_path: Path, answer: Callable[[Times], list[int]]) -> None:
    """bf16 that is 10% faster is not taken."""
    answer({"fp32": [1.1], "bf16": [1.0]})
    assert resolve_precision(SMALL, CPU, StageStore(tmp_path)) == "fp32"


@pytest.mark.parametrize(("asked", "able"), [("fp32", True), ("bf16", True), ("auto", False)])
def test_nothing_is_measured_where_nothing_is_to_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, able: bool
) -> None:
    """A format that is asked for is taken; a device without bf16 computes in fp32. Nothing is put into the store."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: able)
    taken = resolve_precision(SMALL.model_copy(update={"precision": asked}), CPU, StageStore(tmp_path))
    assert taken == (asked if able else "fp32")
    assert events_of(StageStore(tmp_path)) == []


def test_the_measurement_is_real_and_leaves_the_random_numbers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both formats are timed on the network itself, and training afterwards draws what it would have drawn."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    state = torch.get_rng_state()
    store = StageStore(tmp_path)
    taken = resolve_precision(SMALL.model_copy(update={"dropout": 0.5}), CPU, store)
    assert torch.equal(torch.get_rng_state(), state)
    (stage,) = (tmp_path / measured.PRECISION).glob("*/precision.json")
    said = json.loads(stage.read_text())
    assert said["precision"] == taken
    assert set(said["milliseconds_per_image"]) == {"fp32", "bf16"}
    assert min(said["milliseconds_per_image"].values()) > 0


def _scripted(fp32: list[float], bf16: list[float], said: list[str]) -> Callable[[NumberFormat], float]:
    left = {"fp32": iter(fp32), "bf16": iter(bf16)}

    def step(name: NumberFormat) -> float:
        said.append(name)
        return next(left[name])

    return step


def test_formats_take_turns_and_the_first_step_does_not_count() -> None:
    """Three rounds that agree are enough; the steps that prepared are left out."""
    said: list[str] = []
    seconds = compare(_scripted([99, 1, 1, 1], [0, 5, 5, 5], said))
    assert seconds == {"fp32": [1, 1, 1], "bf16": [5, 5, 5]}
    assert said == ["fp32", "bf16"] * 4


def test_rounds_that_disagree_are_repeated_until_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither is clearly faster, two seconds decide."""
    clock = iter(0.3 * tick for tick in range(100))
    monkeypatch.setattr(measured.time, "perf_counter", lambda: next(clock))
    seconds = compare(_scripted([1] * 50, [5, *[0.5, 2] * 25], []))
    assert len(seconds["fp32"]) == 7  # 0.3 s a round: the first reading over two seconds is the seventh
