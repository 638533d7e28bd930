"""Conditional search spaces, near-duplicates, and what the sampler is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import ask, complete, run_study, study_spec

from carcls.config import TrialConfig
from carcls.errors import SpecError
from carcls.outcome import Measurement
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.loading import load_spec
from sweeps.spec.space import Choice, Range, parameters_of
from sweeps.study.sampling import Sampler
from sweeps.study.study import Asked, Study

BACKBONE_LR = Range(1e-5, 1e-2, log=True)


# A sweep over a schedule, and a rate that only some of its values have a use for.
SEARCH = {"unfreezing": Choice(("frozen", "full")), "dropout": Range(0.0, 0.5), "backbone_lr": BACKBONE_LR}
spec_of = partial(study_spec, trials=20, config={"backbone_lr": 5e-4}, search=SEARCH)


def score(config: TrialConfig) -> float:
    """Fine-tuning wins, at a rate of 1e-3."""
    if config.unfreezing == "frozen":
        return 0.3 - (config.dropout - 0.2) ** 2
    return 0.9 - (math.log10(config.backbone_lr) + 3) ** 2 / 10 - (config.dropout - 0.2) ** 2


def measured(asked: Asked) -> dict[str, float]:
    """What a trial measures at its end."""
    return {"val_accuracy": score(asked.config)}


def run_all(study: Study) -> list[Asked]:
    """Complete all that the study still owes."""
    return run_study(study, measured)


def test_what_cannot_matter_is_no_parameter_and_the_rest_is_learned(tmp_path: Path) -> None:
    """A frozen trial has no backbone_lr in its settings or config; unfrozen ones come closer to the best rate."""
    with Study.open(tmp_path, spec_of(trials=60)) as study:
        done = run_all(study)
        settings = [record.settings for record in study.records()]
    frozen = [asked for asked in done if asked.config.unfreezing == "frozen"]
    assert frozen
    assert all(("backbone_lr" in given) == (given["unfreezing"] == "full") for given in settings)
    assert {asked.config.backbone_lr for asked in frozen} == {5e-4}
    misses = [abs(math.log10(a.config.backbone_lr) + 3) for a in done if a.config.unfreezing == "full"]
    assert len(misses) > len(frozen)
    assert sum(misses[-10:]) / 10 < sum(misses[:5]) / 5


@pytest.mark.parametrize(
    ("settings", "searched", "expected"),
    [
        ({"family": "retrieval", "vote": "uniform"}, {"temperature": Choice((0.1, 0.2))}, set()),
        ({"family": "retrieval", "whitening": "pca"}, {"whitening_dim": Range(8, 64, step=1)}, {"whitening_dim"}),
        ({"optimizer": "adam"}, {"momentum": Range(0.8, 0.99)}, set()),
        ({"optimizer": "sgd"}, {"momentum": Range(0.8, 0.99)}, {"momentum"}),
        ({"family": "scratch", "backbone": "scratch"}, {"backbone_lr": BACKBONE_LR}, set()),
    ],
)
def test_conditions_follow_from_the_config_itself(
    settings: dict[str, Any], searched: dict[str, Any], expected: set[str]
) -> None:
    """Nobody has to say when a setting matters, also where it has its default value."""
    assert set(parameters_of(TrialConfig.model_validate(settings), searched)) == expected


def test_a_condition_of_the_spec_holds(tmp_path: Path) -> None:
    """A setting with ``when`` is searched where the other has one of the values, and has its base value elsewhere."""
    search = {**SEARCH, "dropout": Range(0.1, 0.5, when={"unfreezing": ("full",)})}
    with Study.open(tmp_path, spec_of(search=search)) as study:
        done = run_all(study)
    assert {asked.config.unfreezing for asked in done} == {"frozen", "full"}
    for asked in done:
        assert ("dropout" in asked.settings) == (asked.config.unfreezing == "full")
        assert (asked.config.dropout == 0.0) == (asked.config.unfreezing == "frozen")


def test_conditions_in_a_row_fall_together() -> None:
    """What depends on a setting that is no parameter is judged by the value that the trial has."""
    search = {
        "unfreezing": Choice(("frozen", "full")),
        "optimizer": Choice(("adam", "sgd"), when={"unfreezing": ("full",)}),
        "dropout": Range(0.1, 0.5, when={"optimizer": ("sgd",)}),
    }
    drawn = {"unfreezing": "frozen", "optimizer": "sgd", "dropout": 0.3}
    config = spec_of(search=search).searched_config(drawn)
    assert (config.optimizer, config.dropout) == ("adam", 0.0)
    assert parameters_of(config, search) == {"unfreezing": "frozen"}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("head_lr.when.unfreezin=[full]", "search.head_lr.when.unfreezin: must be a setting of a trial"),
        ("head_lr.when.unfreezing=[2:1]", "search.head_lr.when.unfreezing: must be among the values searched"),
        ("head_lr.when.k=[0]", "search.head_lr.when.k[0]: must be at least 1, got 0."),
        ("head_lr.when.k=[]", "search.head_lr.when.k: must be a value or a list of values, got []."),
        ("head_lr.when.head_lr=[0.001]", "search.head_lr.when: must not depend on head_lr itself"),
        (
            "dropout.when.optimizer=[adam] search.optimizer.choices=[adam] search.optimizer.when.dropout=[0.25]",
            "search.dropout.when: must not depend on dropout itself, got dropout -> optimizer -> dropout.",
        ),
        ("head_lr.when=full", "search.head_lr.when: must be like"),
    ],
)
def test_mistaken_conditions_say_where_and_what(sets: str, message: str) -> None:
    """One sentence each, that begins with the path; of a circle it tells the way round."""
    with pytest.raises(SpecError) as caught:
        load_spec("transfer", sets=f"search.{sets}".split())
    assert any(mistake.startswith(message) for mistake in caught.value.mistakes), caught.value.mistakes


@pytest.mark.parametrize(
    ("name", "domain"), [("dropout", Range(0.0, 0.9)), ("head_lr", Range(1e-4, 1e-2, log=True))], ids=["", "log"]
)
def test_a_near_duplicate_takes_over_the_result_and_costs_nothing(
    tmp_path: Path, name: str, domain: Range[float]
) -> None:
    """At 10% only some eleven trials of a range differ: the others are marked, and the space ends before the budget.

    On a logarithmic range 10% is a factor, and is the same at both ends.
    """
    with Study.open(tmp_path, spec_of(search={name: domain}, near=0.1, trials=40)) as study:
        done, listed = run_all(study), study.records()

    def place(settings: Mapping[str, Any]) -> float:
        value: float = settings[name]
        return math.log10(value / domain.low) / 2 if domain.log else value / domain.high

    assert all(b - a > 0.1 for a, b in pairwise(sorted(place(asked.config.model_dump()) for asked in done)))
    assert 5 <= len(done) == len(listed) <= 10
    twins = [(record.config, twin) for record in listed for twin in record.duplicates]
    assert twins
    assert all(twin.near and abs(place(twin.settings) - place(config)) <= 0.1 for config, twin in twins)
    numbers = [record.number for record in listed] + [twin.number for _, twin in twins]
    assert sorted(numbers) == list(range(len(numbers)))


@pytest.mark.parametrize(
    ("changes", "trials"),
    [({"starts": ({"dropout": 0.2}, {"dropout": 0.2001}), "trials": 2}, 2), ({"near": 0.0, "trials": 60}, 60)],
)
def test_what_is_asked_for_by_name_is_run_however_near(tmp_path: Path, changes: dict[str, Any], trials: int) -> None:
    """Two starts 0.0001 apart are both run; with a share of 0 so is everything that is not equal."""
    with Study.open(tmp_path, spec_of(search={"dropout": Range(0.0, 0.5)}, **changes)) as study:
        assert len(run_all(study)) == trials
        assert not [twin for record in study.records() for twin in record.duplicates]


def test_other_choices_and_running_trials_are_no_near_duplicates(tmp_path: Path) -> None:
    """A difference in a choice is a difference; what still runs has nothing to take over."""
    search = {"dropout": Range(0.0, 0.9), "optimizer": Choice(("adam", "adamw"))}
    with Study.open(tmp_path, spec_of(search=search, near=0.5, trials=12)) as study:
        running = [ask(study) for _ in range(6)]
        assert len({asked.config.digest for asked in running}) == 6
        for asked in running:
            complete(study, asked, measured(asked))
        run_all(study)
        pairs = [(record, twin) for record in study.records() for twin in record.duplicates]
        assert all(twin.settings["optimizer"] == record.config["optimizer"] for record, twin in pairs)


def test_trials_in_flight_differ_and_are_seen_by_the_sampler(tmp_path: Path) -> None:
    """Asks without an answer between them give different trials, further from those that run than without them."""
    spec = spec_of(search={"dropout": Range(0.0, 0.5)}, trials=100, near=0.0)
    with Study.open(tmp_path, spec) as study:
        for _ in range(20):
            asked = ask(study)
            complete(study, asked, {"val_accuracy": 1 - (asked.config.dropout - 0.2) ** 2})
        flying = [ask(study) for _ in range(4)]
        records = study.records()
    assert len({asked.config.dropout for asked in flying}) == 4
    finished = [record for record in records if record.status != "running"]
    with_them, without = (
        [Sampler(spec.search, 0).draw(shown, number)["dropout"] for number in range(200, 240)]
        for shown in (records, finished)
    )
    assert with_them != without

    def distance(values: list[float]) -> float:
        return sum(min(abs(value - a.config.dropout) for a in flying) for value in values)

    assert distance(with_them) > distance(without)


def test_the_sampler_sees_old_trials_in_todays_domains(tmp_path: Path) -> None:
    """After a change, values outside of a domain are left out, and values that now fit come in; nothing is lost."""
    with Study.open(tmp_path, spec_of()) as study:
        run_all(study)
    narrow = spec_of(trials=30, search={"dropout": Range(0.0, 0.1), "unfreezing": Choice(("full", "progressive"))})
    with Study.open(tmp_path, narrow, edits=["search"]) as study:
        later = run_all(study)
        assert len(later) == 10
    assert all(asked.config.dropout <= 0.1 and asked.config.unfreezing != "frozen" for asked in later)
    with Study.open(tmp_path, spec_of(trials=32), edits=["search"]) as study:
        assert len(run_all(study)) == 2


def test_verdicts_after_reopening_are_those_of_an_undisturbed_study(tmp_path: Path) -> None:
    """Three trials at a time, the study reopened between any two reports: same trials, same verdicts, same steps."""
    spec = spec_of(early_stopping=EarlyStopping(min_epochs=1), trials=12, fixed={"epochs": 6})

    def sweep(folder: Path, *, reopens: bool) -> list[tuple[str, int, Any]]:
        study, epochs, configs = Study.open(folder, spec), dict[int, int](), dict[int, TrialConfig]()
        while True:
            while len(epochs) < 3 and (asked := study.ask()) is not None:
                configs[asked.number] = asked.config
                epochs.setdefault(asked.number, 0)
            if not epochs:
                break
            for number, epoch in sorted(epochs.items()):
                if reopens:
                    study.release()
                    study.close()
                    study = Study.open(folder, spec)
                    assert {ask(study).number for _ in epochs} == set(epochs)
                accuracy = score(configs[number]) * (epoch + 1) / 6
                is_stopped = study.report(number, Measurement(epoch + 1, {"val_accuracy": accuracy}))
                epochs[number] += 1
                if is_stopped:
                    study.tell_pruned(number)
                elif epoch == 5:
                    study.tell_complete(number, {"metrics": {"val_accuracy": accuracy}, "epochs": 6, "model": "m"})
                if is_stopped or epoch == 5:
                    del epochs[number]
        study.close()
        return [(record.status, record.epochs, record.settings) for record in study.records()]

    whole = sweep(tmp_path / "whole", reopens=False)
    assert {status for status, _, _ in whole} == {"complete", "pruned"}
    assert sweep(tmp_path / "pieces", reopens=True) == whole
    assert all(epochs < 6 for status, epochs, _ in whole if status == "pruned")
