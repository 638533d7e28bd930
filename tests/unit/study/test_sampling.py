"""What each sampler draws, and what of the trials it is shown."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import study_spec
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import qmc

from sweeps.spec.objectives import ACCURACY_ALONE
from sweeps.spec.samplers import SAMPLERS, SamplerKind
from sweeps.spec.space import Choice, Domain, Range, fits
from sweeps.study.sampling import (
    BUILDERS,
    MOST_SHOWN,
    STARTUP_TRIALS,
    Builder,
    Sampler,
    _most_telling,
    seed_of,
    to_distribution,
)
from sweeps.study.study import Study
from sweeps.trial import Status, TrialRecord

SEARCH: dict[str, Domain] = {
    "dropout": Range(0.0, 0.7),
    "head_lr": Range(1e-4, 1e-2, log=True),
    "optimizer": Choice(("adam", "adamw")),
}
DISTRIBUTIONS = {name: to_distribution(domain) for name, domain in SEARCH.items()}
PLANE: dict[str, Domain] = {"dropout": Range(0.0, 0.7), "epochs": Range(2, 20, step=3)}


def trials_of(count: int) -> list[TrialRecord]:
    """Return trials of every kind: complete, stopped, failed, running, and some that lack a parameter."""
    dice, records = random.Random(0), []
    statuses: tuple[Status, ...] = ("pruned", "failed", "running", "complete")
    for number in range(count):
        settings: dict[str, Any] = {name: domain.draw(dice) for name, domain in SEARCH.items()}
        if number % 11 == 3:
            del settings["dropout"]
        metrics, epochs = {"val_accuracy": dice.random()}, 0 if number % 5 == 0 else 2
        records.append(TrialRecord(number, None, settings, {}, statuses[min(number % 7, 3)], metrics, epochs, 1.0))
    return records


def peak_at(best: float) -> list[TrialRecord]:
    """Return complete trials that are the better, the nearer their dropout is to ``best``."""
    dice = random.Random(0)
    drawn = [{name: domain.draw(dice) for name, domain in PLANE.items()} for _ in range(STARTUP_TRIALS + 12)]
    metrics = [{"val_accuracy": 1 - abs(settings["dropout"] - best)} for settings in drawn]
    return [
        TrialRecord(n, None, s, {}, "complete", m, 2, 1.0) for n, (s, m) in enumerate(zip(drawn, metrics, strict=True))
    ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_from_the_space_the_same_again_and_learns_as_it_says(name: str) -> None:
    """Equal seeds and trials give equal draws, in the next driver too; results count only for samplers that learn."""

    def draw(records: list[TrialRecord], seed: int = 0) -> dict[str, Any]:
        return Sampler(PLANE, seed, name=name).draw(records, len(records))

    optuna.logging.set_verbosity(optuna.logging.INFO)
    low, high = draw(peak_at(0.1)), draw(peak_at(0.6))
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR  # it would tell of each draw
    for drawn in (low, high):
        assert drawn.keys() == PLANE.keys()
        assert all(fits(PLANE[setting], value) for setting, value in drawn.items())
    assert draw(peak_at(0.1)) == low
    assert name == "gp" or draw(peak_at(0.1), seed=1) != low  # its draws hardly differ
    if BUILDERS[name].learns:
        assert low["dropout"] < 0.3 < 0.4 < high["dropout"]
    else:
        assert low == high != draw(peak_at(0.1)[1:])


def test_a_sequence_is_evener_than_chance() -> None:
    """The first 32 draws of qmc fill the space more evenly than those of random; derived trials take no place in it."""
    square: dict[str, Domain] = {"dropout": Range(0.0, 0.5), "label_smoothing": Range(0.0, 0.5)}
    drawn = {name: [] for name in ("random", "qmc")}
    for name, points in drawn.items():
        sampler, trials = Sampler(square, 0, name=name), trials_of(32)
        points += [[2 * value for value in sampler.draw(trials[:n], n).values()] for n in range(32)]
        derived = [TrialRecord(40, None, {}, {}, "complete", {}, 1, 0.0, derived_from=3)]
        assert sampler.draw([*trials[:7], *derived], 41) == sampler.draw(trials[:7], 7)
    assert qmc.discrepancy(np.array(drawn["qmc"])) < qmc.discrepancy(np.array(drawn["random"])) / 2


def test_what_gp_cannot_take_it_is_not_shown() -> None:
    """A documented experiment outside of a domain would have that setting drawn at random from then on."""
    whole = peak_at(0.1)
    outside = TrialRecord(99, "transfer/frozen", {"dropout": 0.2}, {}, "complete", {"val_accuracy": 0.9}, 2, 1.0)
    assert Sampler(PLANE, 0, name="gp").draw([*whole, outside], 100) == Sampler(PLANE, 0, name="gp").draw(whole, 100)


def test_only_gp_loads_pytorch_into_the_driver() -> None:
    """Whoever does not ask for it waits for none of that."""
    code = (
        "import sys\nfrom sweeps.study.sampling import Sampler, BUILDERS\nfrom sweeps.spec.space import Range\n"
        "for name in [name for name in BUILDERS if name != 'gp']:\n"
        "    Sampler({'dropout': Range(0.0, 0.5)}, 0, name=name).draw([], 0)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sampler_is_a_record_and_a_row(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is named by a spec once it is in both lists, and nothing else is to be told of it."""

    def build(seed: int, startup: int) -> BaseSampler:
        return RandomSampler(seed + startup)

    monkeypatch.setitem(SAMPLERS, "dice", SamplerKind("draws at random"))
    monkeypatch.setitem(BUILDERS, "dice", Builder(build))
    with Study.open(tmp_path, study_spec(sampler="dice")) as study:
        asked = study.ask()
    assert asked is not None
    assert asked.settings.keys() == {"dropout"}


ROWS = [
    (Range(0.0, 0.5), "0.5"),
    (Range(1e-5, 1e-1, log=True), 0.0),
    (Range(2, 8, step=3), 4),
    (Range(1, 64, step=1, log=True), True),
    (Choice(("adam", "sgd")), "SGD"),
    (Choice((True, False)), 1),
    (Choice((1, 2.5, "x")), 2),
]


@pytest.mark.parametrize(("domain", "never"), ROWS, ids=str)
def test_distributions_hold_what_their_domains_draw(domain: Domain, never: object) -> None:
    """Optuna takes the ends of a domain and whatever is drawn from it, and draws itself what fits into it.

    A value outside of a range, between its steps or of another type does not fit.
    """
    distributions = {"it": to_distribution(domain)}
    assert all(fits(domain, end) for end in domain.ends())
    assert not fits(domain, never)
    for value in (*domain.ends(), *(domain.draw(random.Random(seed)) for seed in range(20))):
        create_trial(value=0.0, params={"it": value}, distributions=distributions)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    assert all(fits(domain, study.ask(distributions).params["it"]) for _ in range(20))


def _trial(record: TrialRecord) -> FrozenTrial:
    """Return the trial as a study of Optuna would have it, with all it has measured."""
    value = record.metrics["val_accuracy"]
    trial = create_trial(
        state=TrialState["FAIL" if record.status == "failed" else record.status.upper()],
        value=value if record.status == "complete" else None,
        params=dict(record.settings),
        distributions={name: DISTRIBUTIONS[name] for name in record.settings},
        intermediate_values={1: value / 2, 2: value} if record.epochs else {},
    )
    trial.number = record.number
    return trial


def test_draws_are_those_of_a_study_that_holds_the_trials() -> None:
    """Trials that are shown without being stored lead to the settings that optuna draws from a study of its own."""
    records = trials_of(60)
    sampler = Sampler(SEARCH, 3)
    for count in (0, 5, 30, 45, 60):
        theirs = BUILDERS["tpe"].build(seed_of(3, count), STARTUP_TRIALS)
        study = optuna.create_study(direction="maximize", sampler=theirs)
        study.add_trials([_trial(record) for record in records[:count]])
        expected = study.ask(dict(DISTRIBUTIONS)).params
        assert sampler.draw(records[:count], count) == expected
        assert Sampler(SEARCH, 3).draw(records[:count], count) == expected


def test_among_many_trials_the_best_the_latest_and_the_running_are_shown() -> None:
    """However many there are, the sampler sees about MOST_SHOWN, in their order, and all that run."""
    trials = [_trial(record) for record in trials_of(2000)]
    shown = _most_telling(trials, ACCURACY_ALONE)
    numbers = [trial.number for trial in shown]
    running = {trial.number for trial in trials if trial.state is TrialState.RUNNING}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: trial.values[0], reverse=True)[:20]
    assert numbers == sorted(numbers)
    assert running | {trial.number for trial in best} | set(range(1800, 2000)) <= set(numbers)
    assert len(set(numbers) - running) <= MOST_SHOWN
    assert _most_telling(trials[:MOST_SHOWN], ACCURACY_ALONE) == trials[:MOST_SHOWN]
