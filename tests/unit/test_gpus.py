"""What is said of GPUs that others use, by a fake nvidia-smi."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_card import GIB, Card, FakeCards

import carcls.gpus
from carcls.gpus import busy_note, gpus_seen

OTHER = (4242, "/opt/venv/bin/python", 136 * GIB)
BUSY = Card("GPU-bbbb-2", total=139 * GIB, processes=(OTHER,))
END = "; trials that need more will run out of memory."


def said() -> str:
    """Return what would be said now."""
    return busy_note(gpus_seen())


def test_a_busy_gpu_is_told_with_who_holds_it(fake_cards: FakeCards) -> None:
    """One line for all of them: what is free, whose process holds most, and what others hold whom nobody names."""
    fake_cards.tell(Card(hidden=GIB), BUSY)
    assert said() == f"GPU 1 (NVIDIA H200) has 3 of 139 GiB free: python (pid 4242) holds 136 GiB{END}"
    fake_cards.tell(
        Card("GPU-a", "A100, 80GB", 80 * GIB, hidden=20 * GIB),
        Card("GPU-b", total=100 * GIB, processes=((8, "x", 20 * GIB), (7, "/b/a, c", 60 * GIB))),
        Card("GPU-c", total=10 * GIB, processes=((9, "[Not Found]", 6400),)),
    )
    assert said() == (
        "GPU 0 (A100, 80GB) has 60 of 80 GiB free: others hold 20 GiB; "
        "GPU 1 (NVIDIA H200) has 20 of 100 GiB free: a, c (pid 7) holds 60 GiB, others hold 20 GiB; "
        f"GPU 2 (NVIDIA H200) has 3.75 of 10 GiB free: the process with pid 9 holds 6.25 GiB{END}"
    )


def test_what_a_driver_and_a_screen_hold_is_not_told(fake_cards: FakeCards) -> None:
    """Up to a tenth of the card is no news, and nobody is asked for processes."""
    fake_cards.tell(Card(total=100 * GIB, hidden=10 * GIB))
    assert said() == ""
    assert [words.partition("=")[0] for words in fake_cards.asked] == ["-L", "--query-gpu"]


@pytest.mark.parametrize(
    ("listed", "numbers"),
    [(None, [0, 1]), ("1", [1]), ("GPU-b", [1]), ("1,0", [0, 1]), ("0,5,1", [0]), ("-1", []), ("MIG-aaaa-1", [])],
)
def test_only_gpus_that_trials_may_use_matter(
    fake_cards: FakeCards, monkeypatch: pytest.MonkeyPatch, listed: str | None, numbers: list[int]
) -> None:
    """Those that CUDA_VISIBLE_DEVICES leaves; of parts (MIG) nvidia-smi tells no memory."""
    fake_cards.tell(Card(parts=("MIG-aaaa-1",), hidden=99 * GIB), BUSY)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [gpu.number for gpu in gpus_seen()] == numbers


@pytest.mark.parametrize(
    "script", ["exit 9", "echo", "echo 'GPU-bbbb-2, 0, [N/A], [N/A], NVIDIA H200'", "sleep 9", r"printf '\265\n'"]
)
def test_no_answer_is_no_error(fake_cards: FakeCards, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A driver that fails, says nothing, does not know, hangs or says something else: nothing is told."""
    monkeypatch.setattr(carcls.gpus, "_SECONDS", 0.5)
    fake_cards.tell(BUSY)
    fake_cards.break_smi(script)
    assert said() == ""


def test_a_driver_that_tells_no_processes_is_answered_without_names(fake_cards: FakeCards) -> None:
    """In a container, or of an older driver."""
    fake_cards.tell(BUSY)
    fake_cards.break_smi('[ "${1%%=*}" = --query-gpu ] && echo "GPU-bbbb-2, 0, 1024, 512, [N/A], NVIDIA H200"')
    assert said() == f"GPU 0 (NVIDIA H200) has 0.5 of 1 GiB free: others hold 0.5 GiB{END}"


def test_plan_says_it_once_and_only_where_trials_take_gpus(
    fake_cards: FakeCards, run: Callable[..., tuple[int, str, str]], draw_tints: Callable[..., Path], tmp_path: Path
) -> None:
    """A plan of three families says it in one line; one without GPUs does not ask."""
    fake_cards.tell(BUSY)
    data = draw_tints(tmp_path / "pictures", 6, 2)
    words = ("run", "all", "--data", data, "--dry-run", "--trials", 12, "--weights", "random")
    code, out, err = run(*words)
    assert code == 0, err
    assert out.count(f"GPU 0 (NVIDIA H200) has 3 of 139 GiB free: python (pid 4242) holds 136 GiB{END}") == 1
    asked = len(fake_cards.asked)
    assert "GiB free" not in run(*words, "--gpus-per-trial", 0)[1]
    assert len(fake_cards.asked) == asked


@pytest.mark.parametrize(
    ("cards", "listed", "counted"),
    [
        (1, None, 1),
        (1, "0,1", 1),
        (1, "7", "got '7'"),
        (1, "0,0", "got '0,0'"),
        (1, "GPU-aa", 1),
        (1, "GPU-cccc", "got 'GPU-cccc'"),
        (1, "", 0),
        (1, "-1", 0),
        (1, "NoDevFiles", 0),
        (2, None, 2),
        (2, "1,0", 2),
        (2, "GPU-bbbb-2,GPU-aaaa-1", 2),
        (2, "0,7,1", 1),
        (2, "MIG-1,MIG-2", 2),
    ],
)
def test_a_plan_counts_gpus_as_cuda_does(
    fake_cards: FakeCards,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    cards: int,
    listed: str | None,
    counted: int | str,
) -> None:
    """From the command line, in every form of CUDA_VISIBLE_DEVICES; one that leaves none is refused in one line."""
    fake_cards.tell(*(Card(), Card("GPU-bbbb-2", parts=("MIG-1", "MIG-2")))[:cards])
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    code, out, err = run("run", "scratch", "--dry-run", "--json", "--trials", 3)
    if isinstance(counted, str):
        assert (code, err.count("\n")) == (2, 1)
        assert counted in json.loads(out)["error"]
    else:
        assert code == 0, err
        assert json.loads(out)["machine"]["gpus"] == counted
