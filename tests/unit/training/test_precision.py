"""The number format is measured, once on each machine, and everybody who asks gets the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers import events_of

from carcls.config import TrialConfig
from carcls.stages import StageStore
from carcls.training import measured
from carcls.training.images import NumberFormat
from carcls.training.measured import fastest_of, resolve_precision

CPU = torch.device("cpu")
SMALL = TrialConfig(family="scratch", backbone="scratch", image_size=32, depth=2, width=8)
Answer = Callable[[float, float], list[int]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Make the measurement say seconds in fp32 and bf16; the list that is returned grows with each measurement."""
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    calls: list[int] = []

    def say(fp32: float, bf16: float) -> list[int]:
        monkeypatch.setattr(measured, "fastest_of", lambda _: (calls.append(1), {"fp32": fp32, "bf16": bf16})[1])
        return calls

    return say


def test_the_faster_format_is_taken_and_remembered(tmp_path: Path, answer: Answer) -> None:
    """Later trials, with other settings and another number of threads, get the first answer and measure nothing.

    No trial would measure it for itself alone, so what sharing saved is not made larger by it.
    """
    calls = answer(1.0, 0.5)
    assert resolve_precision(SMALL, CPU, StageStore(tmp_path)) == "bf16"
    answer(1.0, 9.0)
    later, threads = StageStore(tmp_path), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        other = SMALL.model_copy(update={"dropout": 0.5, "seed": 7, "batch_size": 4})
        assert resolve_precision(other, CPU, later) == "bf16"
    finally:
        torch.set_num_threads(threads)
    assert calls == [1]
    assert list(later.take_used().values()) == [0.0]


@pytest.mark.parametrize(
    ("settings", "images"),
    [({"batch_size": 512}, 98), ({"batch_size": 24}, 24), ({"batch_size": 24, "micro_batch": 3}, 3)],
)
def test_what_is_timed_needs_no_more_memory_than_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], images: int
) -> None:
    """As many pixels as are timed best (98 images of 32 px), but no more images at a time than the trial trains on."""
    counts: set[int] = set()
    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    monkeypatch.setattr(measured, "_step_seconds", lambda _, batch, __: counts.add(len(batch)) or 1.0)
    resolve_precision(SMALL.model_copy(update=settings), CPU, StageStore(tmp_path))
    assert counts == {images}


@pytest.mark.parametrize(("enough", "tried"), [(10, [24, 12, 6]), (1, [24, 12, 6, 3, 2])])
def test_a_measurement_that_lacks_memory_is_made_on_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int, tried: list[int]
) -> None:
    """Both formats on half as many, until they suffice; where two images do not, it is the trial's lack of memory."""
    counts: list[int] = []

    def step(_: object, batch: torch.Tensor, precision: NumberFormat) -> float:
        counts.append(len(batch))
        if len(batch) > enough and precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1.0

    monkeypatch.setattr(measured, "has_bf16", lambda _: True)
    monkeypatch.setattr(measured, "_step_seconds", step)
    with nullcontext() if enough > 1 else pytest.raises(torch.OutOfMemoryError):
        resolve_precision(SMALL.model_copy(update={"batch_size": 24}), CPU, StageStore(tmp_path))
    assert list(dict.fromkeys(counts)) == tried


@pytest.mark.parametrize("change", [{"image_size": 64}, {"width": 16}, {"backbone": "efficientnet_lite0"}, {}])
def test_another_network_or_machine_is_measured_for_itself(
    tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    """What was found for one network, image size or kind of machine says nothing of another."""
    calls = answer(1.0, 0.5)
    resolve_precision(SMALL, CPU, StageStore(tmp_path))
    if not change:
        monkeypatch.setattr(measured, "machine_name", lambda _: "another")
    answer(1.1, 1.0)  # too little to be worth less exact numbers
    assert resolve_precision(SMALL.model_copy(update=change), CPU, StageStore(tmp_path)) == "fp32"
    assert calls == [1, 1]


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
    taken = resolve_precision(SMALL.model_copy(update={"dropout": 0.5}), CPU, StageStore(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
    (stage,) = (tmp_path / measured.PRECISION).glob("*/precision.json")
    said = json.loads(stage.read_text())
    assert said["precision"] == taken
    assert set(said["milliseconds_per_image"]) == {"fp32", "bf16"}
    assert min(said["milliseconds_per_image"].values()) > 0


def test_formats_take_turns_and_the_first_step_does_not_count() -> None:
    """Of each format the fastest step counts; those that prepared are left out."""
    said: list[str] = []
    left = {"fp32": iter([0.1, 3, 1, 2]), "bf16": iter([0.1, 5, 6, 5.5])}

    def step(name: NumberFormat) -> float:
        said.append(name)
        return next(left[name])

    assert fastest_of(step) == {"fp32": 1, "bf16": 5}
    assert said == ["fp32", "bf16"] * 4
