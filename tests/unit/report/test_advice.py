"""What the report suggests: only what the numbers say, with a command that the command line takes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import study_spec, trial_record

from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.failures import POLICIES
from sweeps.report.advice import advice_of
from sweeps.report.facts import Facts
from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.loading import edit_spec
from sweeps.text import out_words
from sweeps.trial import TrialRecord

SEARCH = {"dropout": {"low": 0.0, "high": 0.7}, "head_lr": {"low": 1e-4, "high": 1e-2, "log": True}}


def facts_of(*trials: TrialRecord, **spec: Any) -> Facts:
    """Return a sweep with these trials, which nobody runs."""
    asked = study_spec(**{"search": SEARCH, **spec})
    return Facts(Path("runs/mine"), asked, Leaderboard(trials, images=100), None, None, StageStore(Path("stages")))


def drawn(number: int, accuracy: float, *curve: float, **config: Any) -> TrialRecord:
    """Return a searched trial that finished, with its settings, and perhaps the accuracies of its epochs."""
    history = [Measurement(epoch, {"val_accuracy": said}) for epoch, said in enumerate(curve, 1)]
    own = {"epochs": len(curve) or 1, **config}
    return trial_record(number, accuracy, settings=config, config=own, history=history, epochs=len(curve) or 1)


def commands_of(facts: Facts) -> list[str]:
    """Return the commands that are suggested; each ``--set`` of them changes the spec."""
    found = [one.command for one in advice_of(facts)]
    for command in found:
        words = shlex.split(command)
        settings = [word for before, word in pairwise(words) if before == "--set"]
        assert not settings or edit_spec(facts.spec, settings, {}) != facts.spec
    return found


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((0.009, 0.0095, 0.008, 0.01, 0.001), "search.head_lr.high=0.1"),
        ((0.0001, 0.00011, 0.00012, 0.00014, 0.001), "search.head_lr.low=1e-05"),
        ((0.009, 0.0095, 0.008, 0.002, 0.001), None),
    ],
    ids=["high end", "low end", "three of five"],
)
def test_a_range_is_widened_where_the_best_lie_at_its_end(rates: tuple[float, ...], said: str | None) -> None:
    """Four of the best five within a tenth of an end, on the range's own scale; three may be chance."""
    trials = [
        drawn(place, 0.9 - place / 100, dropout=0.1 * place + 0.1, head_lr=rate) for place, rate in enumerate(rates)
    ]
    found = [command for command in commands_of(facts_of(*trials)) if "search." in command]
    assert found == ([f"carsweep resume mine --set {said}"] if said else [])


def test_a_range_is_never_widened_beyond_what_a_setting_may_be() -> None:
    """A dropout of 1 drops all: the widest allowed is suggested, and nothing where no more is allowed."""
    trials = [drawn(place, 0.9, dropout=0.69, head_lr=0.001) for place in range(5)]
    assert "carsweep resume mine --set search.dropout.high=0.88" in commands_of(facts_of(*trials))
    widest = {"dropout": {"low": 0.9, "high": 0.95}}
    trials = [drawn(place, 0.9, dropout=0.95) for place in range(5)]
    assert not [command for command in commands_of(facts_of(*trials, search=widest)) if "dropout.high" in command]


def test_longer_training_where_the_best_still_climb() -> None:
    """Not where a schedule ends at a rate of zero, which climbs to its end in any case, nor where one fell."""
    rising, falling = (0.2, 0.3, 0.4, 0.5), (0.2, 0.3, 0.5, 0.4)
    trials = [drawn(place, 0.5, *rising, dropout=place / 10) for place in range(3)]
    assert "carsweep resume mine --set epochs=8" in commands_of(facts_of(*trials))
    ending = [drawn(place, 0.5, *rising, dropout=place / 10, lr_schedule="cosine") for place in range(3)]
    mixed = [*trials[:2], drawn(2, 0.4, *falling, dropout=0.3)]
    for others in (ending, mixed):
        assert not [command for command in commands_of(facts_of(*others)) if "epochs" in command]


def test_each_kind_of_failure_has_a_remedy() -> None:
    """Three failures of a kind are worth a word, two of thirty are not."""
    assert all(policy.remedy for policy in POLICIES.values())
    trials = [trial_record(n, None, status="failed", failure="out_of_memory" if n < 3 else "bug") for n in range(5)]
    fine = [drawn(number, 0.5, dropout=0.3) for number in range(5, 30)]
    advice = advice_of(facts_of(*trials, *fine))
    assert [one.why for one in advice if "failed" in one.why] == ["3 of 30 trials failed as out_of_memory."]


def test_commands_name_the_folder_of_runs_unless_it_is_the_one_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder that is called ``runs`` as well is another folder."""
    elsewhere = replace(facts_of(drawn(0, 0.9)), folder=tmp_path / "runs" / "mine")
    assert out_words(elsewhere.out) == ["--out", str(tmp_path / "runs")]
    monkeypatch.chdir(tmp_path)
    assert out_words(elsewhere.out) == []
