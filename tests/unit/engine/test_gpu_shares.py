"""Which part of a GPU a trial gets by what was measured, and what a plan says of it; measuring itself is not here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_card import Card, FakeCards

from carcls.config import TrialConfig
from carcls.stages import StageStore
from sweeps.engine.loads import MOST_LOADS, loads_of
from sweeps.engine.resources import Machine, Share
from sweeps.engine.shares import (
    KIND,
    Reading,
    choose,
    note_out_of_memory,
    questions_of,
    read,
    share_of,
    share_text,
    write,
)
from sweeps.spec.loading import load_spec
from sweeps.spec.spec import SweepSpec

H100 = Machine(16, 2, gpu_kind="NVIDIA H100 80GB HBM3")
RISING = {1: 1000.0, 2: 1700.0, 4: 2600.0, 8: 3400.0}


def readings(speeds: Mapping[int, float], memory: float = 2.0, card: float = 80.0) -> dict[int, Reading]:
    """Return what was measured: images per second by the number of processes, and GiB."""
    return {count: Reading(speed, memory * 2**30, card * 2**30) for count, speed in speeds.items()}


@pytest.mark.parametrize(
    ("speeds", "memory", "card", "most", "processes"),
    [
        (RISING, 2.0, 80.0, 8, 8),
        (RISING, 2.0, 80.0, 4, 4),
        (RISING, 2.0, 80.0, 1, 1),
        # A process may keep decoded images in a quarter of its part, and a tenth is spared: 0.65 of the card are left.
        (RISING, 6.5, 80.0, 8, 8),
        (RISING, 6.6, 80.0, 8, 4),
        (RISING, 2.0, 16.0, 8, 4),
        (RISING, 20.0, 16.0, 8, 1),
        # Twice as many must be worth it.
        ({**RISING, 8: 2600.0 * 1.04}, 2.0, 80.0, 8, 4),
        ({1: 1000.0, 2: 1000.0, 4: 2000.0, 8: 3000.0}, 2.0, 80.0, 8, 1),
        ({**RISING, 4: 0.0}, 2.0, 80.0, 8, 2),
        ({1: 0.0}, 0.0, 0.0, 8, 1),
    ],
)
def test_as_many_processes_share_a_gpu_as_fit_and_are_faster_together(
    speeds: dict[int, float], memory: float, card: float, most: int, processes: int
) -> None:
    """They are doubled while the memory suffices and all together make a twentieth more images per second."""
    assert choose(readings(speeds, memory, card), most) == (processes, None)


def test_no_count_is_measured_that_nobody_needs_to_know() -> None:
    """One after the other is asked for, until the memory or the speed says that more are too many."""
    found: dict[int, Reading] = {}
    asked = []
    while (count := choose(found, 8).unknown) is not None:
        asked.append(count)
        found |= readings({count: {**RISING, 4: 1750.0}[count]})
    assert asked == [1, 2, 4]
    assert choose(readings({1: 1000.0}, memory=30.0), 8).unknown is None


@pytest.mark.parametrize(
    ("machines", "asked", "most"),
    [
        ([H100], {}, 8),
        ([H100], {"trials": 7}, 4),
        ([H100], {"trials": 2}, 0),
        ([H100], {"trials": 1}, 0),
        ([H100], {"concurrency": 4}, 2),
        ([H100], {"cpus_per_trial": 4.0}, 2),
        ([H100], {"cpus_per_trial": 8.0}, 0),
        ([H100], {"cpus_per_trial": 0.25}, 8),
        ([Machine(2, 1, gpu_kind="L4")], {"cpus_per_trial": 0.25}, 2),
        ([H100], {"gpus_per_trial": 0.25}, 0),
        ([H100], {"gpus_per_trial": 0.0}, 0),
        ([Machine(4, 1, gpu_kind="L4")], {}, 4),
        ([Machine(64)], {}, 0),
        ([Machine(16, 2)], {}, 0),
        ([H100, Machine(16, 2)], {}, 0),
        ([H100, Machine(64)], {}, 8),
        ([H100, Machine(4, 2, gpu_kind="L4")], {}, 2),
    ],
)
def test_no_more_share_a_gpu_than_there_are_trials_and_cores(
    machines: list[Machine], asked: dict[str, Any], most: int
) -> None:
    """Each trial has a core for its images; nothing is asked where one trial a GPU is all, or GPUs have no name."""
    spec = SweepSpec.model_validate({"family": "transfer", "trials": 40, **asked})
    assert {question.most for question in questions_of(spec, machines)} == ({most} if most else set())


@pytest.mark.parametrize(
    ("family", "sets", "expected"),
    [
        ("transfer", ["backbone=efficientnet_lite0"], [("efficientnet_lite0", 224, 32, None, "auto", "full")]),
        ("transfer", ["backbone=resnet50", "unfreezing=frozen"], [("resnet50", 224, 32, None, "auto", "frozen")]),
        (
            "transfer",
            ["backbone=resnet50", "search.image_size=[96, 288]", "search.batch_size={low: 16, high: 128, step: 16}"],
            [("resnet50", 288, 128, None, "auto", "full")],
        ),
        (
            "transfer",
            ["backbone=resnet50", "micro_batch=8", "precision=bf16"],
            [("resnet50", 224, 32, 8, "bf16", "full")],
        ),
        (
            "retrieval",
            ["precision=fp32"],
            [("resnet50", 224, 64, None, "fp32", "full"), ("densenet121", 224, 64, None, "fp32", "full")],
        ),
    ],
)
def test_a_load_is_the_most_that_trials_of_a_backbone_ask_for(
    family: str, sets: list[str], expected: list[tuple[Any, ...]]
) -> None:
    """Documented, started and drawn trials count; the heaviest backbone comes first."""
    loads = loads_of(load_spec(family, sets=sets, overrides={"data": "/cars"}))
    assert [tuple(load.values()) for load in loads] == expected


def test_a_scratch_network_is_measured_at_its_largest_and_few_backbones_are() -> None:
    """Of the architectures that may be drawn the one with the most arithmetic; of backbones the heaviest."""
    (load,) = loads_of(load_spec("scratch", overrides={"data": "/cars"}))
    config = TrialConfig.model_validate(load)
    assert (config.width, config.residual, config.batch_norm, config.stem) == (64, True, True, "none")
    many = "search.backbone=[resnet50, densenet121, efficientnet_lite0, 'timm:a', 'timm:b']"
    loads = loads_of(load_spec("transfer", sets=[many, "fixed.backbone=null"], overrides={"data": "/cars"}))
    names = [load["backbone"] for load in loads]
    assert len(names) == MOST_LOADS
    assert "efficientnet_lite0" not in names


def remember(stages: Path, spec: SweepSpec, machine: Machine, *found: dict[int, Reading]) -> None:
    """Keep what was measured for each question of a sweep."""
    for question, known in zip(questions_of(spec, [machine]), found, strict=True):
        StageStore(stages).get_or_make(KIND, question.stage, lambda folder, known=known: write(folder, known))


def two_backbones(**changes: Any) -> SweepSpec:
    """Forty trials with ResNet-50 or DenseNet-121, which trains."""
    search = {"backbone": ["resnet50", "densenet121"]}
    spec = {"family": "transfer", "trials": 40, "config": {"unfreezing": "full"}, "search": search}
    return SweepSpec.from_tree({**spec, **changes})


def test_the_heaviest_load_decides_and_answers_fewer_trials_too(tmp_path: Path) -> None:
    """Until all loads are measured a trial gets a whole GPU; what was measured of 8 answers for a sweep of few."""
    spec = two_backbones()
    assert share_of(spec, tmp_path / "none", [H100]) == Share(8.0, 1.0, 2)
    assert not (tmp_path / "none").exists()
    assert share_text(spec, tmp_path / "none", [H100]) == "GPU share: measured at the start."
    remember(tmp_path, spec, H100, readings(RISING), readings({**RISING, 4: 1700.0}))
    assert share_of(spec, tmp_path, [H100]) == Share(4.0, 0.5, 4)
    said = "densenet121 224 px batch 32: 1,000 images/s alone, 1,700 by two, 1,700 by four; 2.0 GiB each"
    assert share_text(spec, tmp_path, [H100]) == f"GPU share: 1/2 ({said})."
    assert share_of(two_backbones(concurrency=2), tmp_path, [H100]) == Share(8.0, 1.0, 2)
    given = two_backbones(gpus_per_trial=0.25)
    assert (share_of(given, tmp_path, [H100]).gpus, share_text(given, tmp_path, [H100])) == (0.25, "")


def test_what_was_measured_of_few_does_not_answer_for_many(tmp_path: Path) -> None:
    """Unless more than these are too many; another kind of GPU, image size or architecture is another question."""
    few, many = two_backbones(trials=4), two_backbones()
    remember(tmp_path, few, H100, readings({1: 1000.0, 2: 1700.0}), readings({1: 1000.0, 2: 1010.0}))
    answered = {question.load["backbone"]: bool(read(tmp_path, question)) for question in questions_of(many, [H100])}
    assert answered == {"resnet50": False, "densenet121": True}
    assert all(read(tmp_path, question) for question in questions_of(few, [H100]))
    others = [Machine(16, 2, gpu_kind="NVIDIA L4")]
    assert not any(read(tmp_path, question) for question in questions_of(few, others))
    larger = two_backbones(trials=4, fixed={"image_size": 256})
    assert not any(read(tmp_path, question) for question in questions_of(larger, [H100]))


def test_a_part_that_ran_out_of_memory_is_not_given_again(tmp_path: Path) -> None:
    """Trials of the backbone get twice as much from then on; on a second lack a whole GPU."""
    spec = two_backbones()
    remember(tmp_path, spec, H100, readings(RISING), readings(RISING))
    config = spec.trial_config({"backbone": "densenet121"})
    shares = [share_of(spec, tmp_path, [H100])]
    for _ in range(3):
        note_out_of_memory(spec, tmp_path, [H100], config, shares[-1].gpus)
        shares.append(share_of(spec, tmp_path, [H100]))
    assert [share.gpus for share in shares] == [0.125, 0.25, 0.5, 1.0]
    only = two_backbones(fixed={"backbone": "resnet50"}, search={})
    assert share_of(only, tmp_path, [H100]).gpus == 0.125


def test_damaged_readings_are_measured_again(tmp_path: Path) -> None:
    """A file that was cut off answers nothing."""
    spec = two_backbones()
    remember(tmp_path, spec, H100, readings(RISING), readings(RISING))
    for file in tmp_path.glob(f"{KIND}/*/readings.json"):
        file.write_bytes(file.read_bytes()[:30])
    assert share_text(spec, tmp_path, [H100]) == "GPU share: measured at the start."


def test_a_plan_tells_the_share_or_that_it_will_be_measured(
    fake_cards: FakeCards, run: Callable[..., tuple[int, str, str]], draw_tints: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As a line and in JSON; nothing where the share was given, or trials take no GPU."""
    monkeypatch.setattr("sweeps.engine.resources.usable_cores", lambda: 8)
    fake_cards.tell(Card(name="NVIDIA H100 80GB HBM3"))
    data = draw_tints(tmp_path / "pictures", 6, 2)
    words = ("run", "transfer", "--data", data, "--dry-run", "--trials", 12, "--set", "backbone=efficientnet_lite0")
    code, out, err = run(*words)
    assert (code, out.count("GPU share: measured at the start.")) == (0, 1), err
    assert not (tmp_path / "runs").exists()
    spec = load_spec("transfer", sets=["backbone=efficientnet_lite0"], overrides={"data": str(data), "trials": 12})
    remember(tmp_path / "runs" / "stages", spec, Machine(8, 1, gpu_kind="NVIDIA H100 80GB HBM3"), readings(RISING))
    said = "efficientnet_lite0 224 px batch 32: 1,000 images/s alone, 3,400 by eight; 2.0 GiB each"
    assert f"\nGPU share: 1/8 ({said}).\n" in run(*words)[1]
    assert f"\nGPU share: 1/8 ({said}).\n" in run(*words, "--gpus-per-trial", "auto")[1]
    assert json.loads(run(*words, "--json")[1])["gpu_share"] == f"GPU share: 1/8 ({said})."
    for gpus in (0, 0.5):
        assert "GPU share" not in run(*words, "--gpus-per-trial", gpus)[1]
